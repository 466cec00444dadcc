import FlashInferEngine
import Foundation

/// Files that the tokenizer tests read.
enum TokenizerFixtures {
    /// `Tests/FlashInferEngineTests/Fixtures`.
    static let folder = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .appending(path: "Fixtures")

    static func bytes(_ name: String) throws -> [UInt8] {
        try [UInt8](Data(contentsOf: folder.appending(path: name)))
    }

    /// A tokenizer from `tokenizer.json`, or from a JSON object with the fields of a GGUF vocabulary.
    static func tokenizer(_ bytes: [UInt8]) throws -> Tokenizer {
        let json = try OrderedJSON(bytes)
        if json[key: "model"]?.string != nil {
            return try Tokenizer(TokenizerDefinition(gguf: vocabulary(json)))
        }
        return try Tokenizer(TokenizerDefinition(tokenizerJSON: bytes))
    }

    static func vocabulary(_ json: OrderedJSON) -> TokenizerDefinition.GGUFVocabulary {
        func strings(_ key: String) -> [String] { json[key: key]?.array?.map { $0.string ?? "" } ?? [] }
        func id(_ key: String) -> Int32? { json[key: key]?.integer.map { Int32($0) } }
        var vocabulary = TokenizerDefinition.GGUFVocabulary(
            model: json[key: "model"]?.string ?? "", pre: json[key: "pre"]?.string, tokens: strings("tokens"))
        vocabulary.merges = strings("merges")
        vocabulary.tokenTypes = json[key: "token_type"]?.array?.map { Int32($0.integer ?? 1) } ?? []
        vocabulary.scores =
            json[key: "scores"]?.array?.map {
                if case .number(let value) = $0 { Float(value) } else { Float($0.integer ?? 0) }
            } ?? []
        vocabulary.bosID = id("bos_token_id")
        vocabulary.eosID = id("eos_token_id")
        vocabulary.unknownID = id("unknown_token_id")
        vocabulary.addsBos = json[key: "add_bos_token"]?.bool
        vocabulary.addsSpacePrefix = json[key: "add_space_prefix"]?.bool
        return vocabulary
    }

    /// A text and what it must become.
    struct Case {
        var text: String
        var ids: [Int32]
        var parsesSpecial: Bool
        var addsSpecial: Bool
    }

    /// JSON lines of `{"text": …, "ids": […]}`; `"special": false` for text whose special tokens are not parsed,
    /// `"marks": true` for ids with those that begin and end a sequence.
    static func cases(_ bytes: [UInt8]) throws -> [Case] {
        try bytes.split(separator: 10).map { line in
            let json = try OrderedJSON(Array(line))
            return Case(
                text: json[key: "text"]?.string ?? "",
                ids: json[key: "ids"]?.array?.map { Int32($0.integer ?? -1) } ?? [],
                parsesSpecial: json[key: "special"]?.bool ?? true, addsSpecial: json[key: "marks"]?.bool ?? false)
        }
    }
}
