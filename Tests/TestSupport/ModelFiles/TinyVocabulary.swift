/// A byte-level BPE vocabulary of three control tokens, the 256 bytes and a few merges, as GPT-2 writes bytes.
public struct TinyVocabulary: Sendable {
    /// The control tokens, ids 0 to 2: end of text, start and end of a turn.
    public static let controls = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    /// The merges, in the order of their ranks.
    public static let merges = [
        "h e", "t he", "i n", "e r", "l l", "he ll", "hell o", "\u{120} w", "o r", "\u{120}w or", "l d",
        "\u{120}wor ld",
    ]

    /// All tokens by id, filled up to 272 with tokens that no text has.
    public static let tokens: [String] = {
        var tokens = controls + bytes + merges.map { $0.filter { $0 != " " } }
        while tokens.count < 272 { tokens.append("<|unused\(tokens.count)|>") }
        return tokens
    }()

    /// The kind of each token, in GGUF's numbers: 3 control, 1 normal, 5 unused.
    public static let types: [Int32] = tokens.enumerated().map { id, token in
        id < controls.count ? 3 : token.hasPrefix("<|unused") ? 5 : 1
    }

    /// The character that stands for each byte: itself where it can be printed, else the next free one from U+0100 on.
    static let bytes: [String] = {
        var next: UInt32 = 0x100
        return (0..<256).map { (byte: UInt32) in
            let printable = 33...126 ~= byte || 161...172 ~= byte || 174...255 ~= byte
            if !printable { next += 1 }
            return String(Unicode.Scalar(printable ? byte : next - 1).map(Character.init) ?? "?")
        }
    }()

    /// A chat template in the ChatML style.
    public static let chatTemplate =
        "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' "
        + "+ '\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"

    /// `tokenizer.json` as Hugging Face writes it.
    public static var tokenizerJSON: String {
        let vocabulary = tokens.enumerated().map { "\(quoted($1)):\($0)" }.joined(separator: ",")
        let added = controls.enumerated().map { id, text in
            "{\"id\":\(id),\"content\":\(quoted(text)),\"single_word\":false,\"lstrip\":false,\"rstrip\":false,"
                + "\"normalized\":false,\"special\":true}"
        }
        let byteLevel = "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true,\"use_regex\":true}"
        return
            "{\"version\":\"1.0\",\"truncation\":null,\"padding\":null,\"added_tokens\":[\(added.joined(separator: ","))],"
            + "\"normalizer\":null,\"pre_tokenizer\":\(byteLevel),\"post_processor\":null,\"decoder\":\(byteLevel),"
            + "\"model\":{\"type\":\"BPE\",\"dropout\":null,\"unk_token\":null,\"continuing_subword_prefix\":null,"
            + "\"end_of_word_suffix\":null,\"fuse_unk\":false,\"byte_fallback\":false,\"vocab\":{\(vocabulary)},"
            + "\"merges\":[\(merges.map(quoted).joined(separator: ","))]}}"
    }

    /// `tokenizer_config.json`.
    public static var tokenizerConfigJSON: String {
        "{\"add_bos_token\":false,\"eos_token\":\"<|im_end|>\",\"chat_template\":\(quoted(chatTemplate))}"
    }

    private static func quoted(_ text: String) -> String {
        var out = "\""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\"": out += "\\\""
            case "\\": out += "\\\\"
            case "\n": out += "\\n"
            default: out.unicodeScalars.append(scalar)
            }
        }
        return out + "\""
    }
}
