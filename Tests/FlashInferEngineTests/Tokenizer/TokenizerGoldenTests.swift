import FlashInferEngine
import Foundation
import Testing

/// Small tokenizers trained elsewhere, and the ids that their own libraries give (Scripts/check-tokenizer.py).
struct TokenizerGoldenTests {
    @Test(arguments: ["llama3", "qwen2", "gpt2", "smollm", "bytefallback"])
    func idsOfTokenizerFilesAreThePeers(_ name: String) throws {
        let tokenizer = try TokenizerFixtures.tokenizer(TokenizerFixtures.bytes("\(name).tokenizer.json"))
        try compare(tokenizer, TokenizerFixtures.cases(TokenizerFixtures.bytes("\(name).cases.jsonl")))
    }

    @Test func idsOfSentencePieceAreThePeers() throws {
        let tokenizer = try TokenizerFixtures.tokenizer(TokenizerFixtures.bytes("sentencepiece.vocabulary.json"))
        try compare(tokenizer, TokenizerFixtures.cases(TokenizerFixtures.bytes("sentencepiece.cases.jsonl")))
    }

    @Test(arguments: [("NFC", Normalizer.nfc), ("NFD", .nfd), ("NFKC", .nfkc), ("NFKD", .nfkd)])
    func normalisationIsThePeers(_ name: String, _ form: Normalizer) throws {
        for line in try TokenizerFixtures.bytes("normalisation.jsonl").split(separator: 10) {
            let json = try OrderedJSON(Array(line))
            let text = try #require(json[key: "text"]?.string)
            let expected = try #require(json[key: name]?.string)
            let scalars = try form.apply(to: text).unicodeScalars
            #expect(scalars.map(\.value) == expected.unicodeScalars.map(\.value), "\(text.unicodeScalars.map(\.value))")
        }
    }

    private func compare(_ tokenizer: Tokenizer, _ cases: [TokenizerFixtures.Case]) throws {
        #expect(cases.count > 50)
        for item in cases {
            let ids = try tokenizer.encode(
                item.text, addSpecialTokens: item.addsSpecial, parseSpecialTokens: item.parsesSpecial)
            #expect(ids == item.ids, "\(item.text.debugDescription)")
        }
    }

    /// Every text comes back, from `decode` and from a stream alike.
    @Test(arguments: ["llama3", "qwen2", "smollm"])
    func textComesBack(_ name: String) throws {
        let tokenizer = try TokenizerFixtures.tokenizer(TokenizerFixtures.bytes("\(name).tokenizer.json"))
        for item in try TokenizerFixtures.cases(TokenizerFixtures.bytes("\(name).cases.jsonl")) {
            let ids = try tokenizer.encode(item.text, addSpecialTokens: false, parseSpecialTokens: false)
            // Added tokens may take white space with them; those that are not special still match here.
            let isPlain = !["<tool>", "<end>"].contains { item.text.contains($0) }
            if isPlain { #expect(tokenizer.decode(ids) == item.text) }
            var stream = StreamingDecoder(tokenizer, skipSpecialTokens: false, startsText: true)
            let streamed = ids.map { stream.push($0) }.joined() + stream.finish()
            #expect(streamed == tokenizer.decode(ids))
        }
    }
}
