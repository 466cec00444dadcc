extension PreTokenizer {
    /// The pre-tokenisers of a byte-level vocabulary in a GGUF file, by the file's `tokenizer.ggml.pre`.
    struct Known: Sendable {
        let names: [String]
        /// Each cuts what the one before it left.
        let patterns: [String]
        /// Whether whole words of the vocabulary win over merges.
        var ignoresMerges = false
        /// Whether a text begins with the beginning-of-sequence token when the file does not say.
        var addsBos = false
    }

    private static let llama3Pattern =
        #"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|"#
        + #"\s*[\r\n]+|\s+(?!\S)|\s+"#

    private static let qwen2Pattern =
        #"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|"#
        + #"\s*[\r\n]+|\s+(?!\S)|\s+"#

    private static let upper = #"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"#
    private static let lower = #"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"#
    private static let prefix = #"[^\r\n\p{L}\p{N}]?"#
    private static let tail = #" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"#

    private static let tekkenPattern =
        "\(prefix)\(upper)*\(lower)+|\(prefix)\(upper)+\(lower)*|" + #"\p{N}|"# + tail

    private static let gpt4oPattern =
        "\(prefix)\(upper)*\(lower)+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
        + "|\(prefix)\(upper)+\(lower)*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|" + #"\p{N}{1,3}|"# + tail

    private static let deepseek3Patterns = [
        #"\p{N}{1,3}"#,
        "[一-龥\u{3040}-ゟ゠-ヿ]+",
        ##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+|"##
            + #" ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"#,
    ]

    static let known: [Known] = [
        Known(
            names: ["default"],
            patterns: [#"[\p{P}\$\+<=>\^\~\|]+"#, gpt2Pattern, #"\p{N}+"#, "[0-9][0-9][0-9]"]),
        Known(names: ["gpt-2", "phi-2", "mpt", "olmo", "jais", "exaone4"], patterns: [gpt2Pattern]),
        Known(
            names: ["smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"],
            patterns: [#"\p{N}"#, gpt2Pattern]),
        Known(
            names: ["llama3", "llama-v3", "llama-bpe", "falcon3", "pixtral"], patterns: [llama3Pattern],
            ignoresMerges: true, addsBos: true),
        Known(names: ["dbrx", "smaug-bpe", "chatglm-bpe", "glm4"], patterns: [llama3Pattern]),
        Known(
            names: ["qwen2", "deepseek-r1-qwen", "stablelm2", "hunyuan", "megrez"],
            patterns: [qwen2Pattern]),
        Known(names: ["tekken"], patterns: [tekkenPattern], ignoresMerges: true, addsBos: true),
        Known(names: ["gpt-4o", "llama4"], patterns: [gpt4oPattern]),
        Known(
            names: ["deepseek-coder"],
            patterns: [
                #"[\r\n]"#, #"\s?\p{L}+"#, #"\s?\p{P}+"#, "[一-龥\u{0800}-一가-\u{D7FF}]+", #"\p{N}"#,
            ]),
        Known(names: ["deepseek-v3"], patterns: deepseek3Patterns),
        Known(
            names: ["falcon"],
            patterns: [#"[\p{P}\$\+<=>\^~\|`]+"#, gpt2Pattern, "[0-9][0-9][0-9]"]),
    ]

    /// The pre-tokenisers for a `tokenizer.ggml.pre`.
    ///
    /// - Throws: `TokenizerError.unsupportedComponent`, which lists the known names.
    static func known(named name: String) throws(TokenizerError) -> (steps: [PreTokenizer], entry: Known) {
        guard let entry = known.first(where: { $0.names.contains(name) }) else {
            throw .unsupportedComponent(
                kind: "tokenizer.ggml.pre", name: name, known: known.flatMap(\.names).sorted())
        }
        var steps: [PreTokenizer] = []
        for pattern in entry.patterns {
            if pattern == #"\p{N}"# {
                steps.append(.digits(individual: true))
            } else if pattern == gpt2Pattern, pattern == entry.patterns.last {
                continue
            } else {
                steps.append(.split(try PreTokenizerRegex(pattern), .isolated, invert: false))
            }
        }
        steps.append(.byteLevel(addPrefixSpace: false, usesPattern: entry.patterns.last == gpt2Pattern))
        return (steps, entry)
    }
}
