import FlashInferEngine
import Foundation
import Testing

/// Damaged and hostile descriptions: a typed error, or a tokenizer that works.
struct TokenizerRobustnessTests {
    private func definition(_ tokens: [String], merges: [String] = []) -> TokenizerDefinition {
        var definition = TokenizerDefinition(model: .rankedMerges, tokens: tokens)
        definition.preTokenizers = [.byteLevel(addPrefixSpace: false, usesPattern: true)]
        definition.decoders = [.byteLevel]
        definition.merges = .joined(merges)
        return definition
    }

    @Test func emptyVocabularyIsAnError() {
        #expect(throws: TokenizerError.emptyVocabulary) { try Tokenizer(definition([])) }
    }

    @Test func unknownMergesAreErrors() {
        #expect(throws: TokenizerError.unknownMergeToken(rank: 0, token: "b")) {
            try Tokenizer(definition(["a"], merges: ["a b"]))
        }
        #expect(throws: TokenizerError.unknownMergeToken(rank: 0, token: "ab")) {
            try Tokenizer(definition(["a", "b"], merges: ["a b"]))
        }
        for rule in ["", "a", "a ", " a"] {
            #expect(throws: TokenizerError.malformedMerge(rank: 0, text: rule)) {
                try Tokenizer(definition(["a"], merges: [rule]))
            }
        }
    }

    @Test func duplicatesAndCyclesAreDefined() throws {
        // Of equal tokens the lower id encodes; of equal rules the last counts; no rule can undo another.
        let tokenizer = try Tokenizer(
            definition(["a", "b", "ab", "ba", "ab", "aba", "", ""], merges: ["a b", "b a", "a b", "ab a", "a ba"]))
        #expect(try tokenizer.encode("ab") == [2])
        #expect(try tokenizer.encode("aba") == [5])
        #expect(try tokenizer.encode("bab") == [3, 1])
        #expect(tokenizer.decode([4, 5]) == "ababa")
    }

    @Test func idsOutOfRangeAreErrors() {
        for id in [Int32.min, -1, 1, Int32.max] {
            let expected = { (what: String) in
                TokenizerError.tokenIDOutOfRange(what: what, id: Int(id), vocabularyCount: 1)
            }
            var bos = definition(["a"])
            bos.bosID = id
            #expect(throws: expected("bos_token_id")) { try Tokenizer(bos) }
            var prefix = definition(["a"])
            prefix.prefix = [id]
            #expect(throws: expected("id before the text")) { try Tokenizer(prefix) }
            var added = definition(["a"])
            added.addedTokens = [.init(id: id, content: "x", isSpecial: true)]
            #expect(throws: expected("added token \"x\"")) { try Tokenizer(added) }
        }
    }

    @Test func lengthsThatDisagreeAreErrors() {
        var types = definition(["a", "b"])
        types.types = [.normal]
        #expect(throws: TokenizerError.lengthMismatch(what: "token types", count: 1, expected: 2)) {
            try Tokenizer(types)
        }
        let scored = TokenizerDefinition(model: .scoredMerges, tokens: ["a", "b"])
        #expect(throws: TokenizerError.lengthMismatch(what: "scores", count: 0, expected: 2)) { try Tokenizer(scored) }
    }

    @Test func idsThatAreNotThereStandForNothing() throws {
        let tokenizer = try Tokenizer(definition(["a", ""]))
        #expect(tokenizer.decode([.min, -1, 0, 1, 2, .max]) == "a")
        #expect(tokenizer.bytes(of: -1).isEmpty && tokenizer.bytes(of: 99).isEmpty && tokenizer.bytes(of: 0) == [97])
        var stream = StreamingDecoder(tokenizer)
        #expect([-1, 0, 99, .max].map { stream.push($0) }.joined() + stream.finish() == "a")
        // Without an unknown token, bytes that the vocabulary lacks are left out.
        #expect(try tokenizer.encode("xay") == [0])
    }

    @Test func scoresOfAnyKindAreDefined() throws {
        var definition = TokenizerDefinition(model: .scoredMerges, tokens: ["a", "b", "ab", "ba", "aba", "<0x41>"])
        definition.scores = [.nan, .infinity, -.infinity, .nan, 0, 1]
        let tokenizer = try Tokenizer(definition)
        #expect(tokenizer.decode(try tokenizer.encode("abaabab")).replacing(" ", with: "") == "abaabab")
    }

    @Test func unknownComponentsAreNamed() throws {
        for (part, kind) in [
            ("\"normalizer\": {\"type\": \"Precompiled\"}", "normalizer"),
            ("\"pre_tokenizer\": {\"type\": \"Nope\"}", "pre_tokenizer"),
            ("\"decoder\": {\"type\": \"WordPiece\"}", "decoder"),
            ("\"post_processor\": {\"type\": \"Nope\"}", "post_processor"),
        ] {
            let json = "{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0}, \"merges\": []}, \(part)}"
            do throws(TokenizerError) {
                _ = try TokenizerDefinition(tokenizerJSON: json.utf8)
                Issue.record("\(part) was accepted")
            } catch {
                guard case .unsupportedComponent(kind, _, let known) = error else {
                    Issue.record("\(error)")
                    continue
                }
                #expect(!known.isEmpty)
            }
        }
        #expect(throws: TokenizerError.unsupportedComponent(kind: "model", name: "Unigram", known: ["BPE"])) {
            try TokenizerDefinition(tokenizerJSON: "{\"model\": {\"type\": \"Unigram\"}}".utf8)
        }
        #expect(throws: TokenizerError.self) {
            try TokenizerDefinition(gguf: .init(model: "gpt2", pre: "no-such", tokens: ["a"]))
        }
        #expect(throws: TokenizerError.self) { try TokenizerDefinition(gguf: .init(model: "bert", tokens: ["a"])) }
    }

    @Test func wildIDsInFilesAreErrors() {
        for id in ["-1", "1000000000", "99999999999999999999", "1.5", "\"0\"", "null"] {
            let vocabulary = "{\"model\": {\"vocab\": {\"a\": \(id)}}}"
            #expect(throws: TokenizerError.self) { try TokenizerDefinition(tokenizerJSON: vocabulary.utf8) }
            let added = "{\"model\": {\"vocab\": {\"a\": 0}}, \"added_tokens\": [{\"id\": \(id), \"content\": \"x\"}]}"
            #expect(throws: TokenizerError.self) { try TokenizerDefinition(tokenizerJSON: added.utf8) }
        }
        #expect(throws: TokenizerError.self) {
            try TokenizerDefinition(tokenizerJSON: "{\"model\": {\"vocab\": {\"a\": 0, \"b\": 0}}}".utf8)
        }
    }

    @Test(arguments: [
        "", "{", "[1,", "{\"a\"}", "{\"a\":}", "nul", "1 2", "\"", "\"\\x\"", "\"\\u12\"", "{'a': 1}", "[1 2]",
        "\u{7F}",
        String(repeating: "[", count: 100_000), String(repeating: "{\"a\":", count: 100_000), "+", "1e", "--1",
    ])
    func malformedJSONIsAnError(_ text: String) {
        #expect(throws: TokenizerError.self) { try OrderedJSON(Array(text.utf8)) }
    }

    @Test func jsonIsReadAsWritten() throws {
        let json = try OrderedJSON(Array(#"{"b":[1,-2.5e1,true,null],"a":"\u00e9\ud83d\ude00\ud800\n\/","b":2}"#.utf8))
        #expect(json.object?.map(\.key) == ["b", "a", "b"])
        #expect(json[key: "a"]?.string == "é😀\u{FFFD}\n/" && json[key: "b"]?.integer == 2)
        #expect(json.object?[0].value == .array([.integer(1), .number(-25), .bool(true), .null]))
    }

    /// Flipped, cut and inserted bytes in a real file: an error, or a tokenizer that encodes and decodes.
    @Test func damagedFilesEnd() throws {
        let whole = try TokenizerFixtures.bytes("llama3.tokenizer.json")
        var state: UInt64 = 11
        func random(_ bound: Int) -> Int {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return Int(truncatingIfNeeded: state >> 33) % bound
        }
        var opened = 0
        for _ in 0..<600 {
            var bytes = whole
            for _ in 0...random(4) {
                let place = random(bytes.count)
                switch random(4) {
                case 0: bytes[place] = UInt8(random(256))
                case 1: bytes.removeSubrange(place..<min(bytes.count, place + random(40)))
                case 2: bytes.insert(contentsOf: "\"{[0,:]}".utf8.shuffled(), at: place)
                default: bytes[place] = [48, 57, 34, 44, 123, 93][random(6)]
                }
            }
            guard let definition = try? TokenizerDefinition(tokenizerJSON: bytes),
                let tokenizer = try? Tokenizer(definition)
            else { continue }
            opened += 1
            _ = tokenizer.decode(try tokenizer.encode("Hello <s> it's 123\n漢字 <tool> 👍"))
        }
        #expect(opened > 10)
    }

    @Test func hostileLengthsAreQuick() throws {
        let tokenizer = try TokenizerFixtures.tokenizer(TokenizerFixtures.bytes("llama3.tokenizer.json"))
        let spm = try TokenizerFixtures.tokenizer(TokenizerFixtures.bytes("sentencepiece.vocabulary.json"))
        // One word of 300 kB: quadratic merging would take hours.
        for unit in ["a", "the", " ", "\n", "漢", "!", "\u{301}", "1"] {
            let text = String(repeating: unit, count: 300_000 / unit.utf8.count)
            #expect(tokenizer.decode(try tokenizer.encode(text, addSpecialTokens: false)) == text)
            #expect(try spm.encode(text).count > 10)
        }
    }

    @Test func streamsGiveWholeScalars() throws {
        let tokenizer = try TokenizerFixtures.tokenizer(TokenizerFixtures.bytes("smollm.tokenizer.json"))
        let bytes = (0..<256).map { byte -> Int32 in
            let scalar = Unicode.Scalar(ByteLevelAlphabet.scalars[byte])
            return scalar.flatMap { tokenizer.id(of: String($0)) } ?? -1
        }
        #expect(!bytes.contains(-1))
        var stream = StreamingDecoder(tokenizer)
        let family = Array("👨‍👩‍👧é".utf8)
        let parts = family.map { stream.push(bytes[Int($0)]) }
        #expect(parts.allSatisfy { !$0.contains("\u{FFFD}") } && parts.joined() == "👨‍👩‍👧é")
        #expect(parts.count { $0.isEmpty } == family.count - 6)
        // Bytes that nothing can complete are replaced at once, and what is left at the end by `finish`.
        #expect(stream.push(bytes[0xFF]) == "\u{FFFD}")
        #expect(stream.push(bytes[0xE2]) == "")
        #expect(stream.push(bytes[0x41]) == "\u{FFFD}A")
        #expect(stream.push(bytes[0xF0]) + stream.push(bytes[0x9F]) == "")
        #expect(stream.finish() == "\u{FFFD}" && stream.finish() == "")
        // Any bytes at all: the stream and `decode` agree.
        var state: UInt64 = 5
        for _ in 0..<2000 {
            let ids = (0..<12).map { _ -> Int32 in
                state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
                let interesting = [0xE2, 0x82, 0xAC, 0xF0, 0x9F, 0x98, 0x80, 0xC3, 0xA9, 0x41, 0xED, 0xA0, 0xF4, 0x90]
                return bytes[interesting[Int(state >> 33) % interesting.count]]
            }
            var stream = StreamingDecoder(tokenizer)
            #expect(ids.map { stream.push($0) }.joined() + stream.finish() == tokenizer.decode(ids))
        }
    }

    @Test func textCannotForgeStructure() throws {
        let tokenizer = try TokenizerFixtures.tokenizer(TokenizerFixtures.bytes("llama3.tokenizer.json"))
        #expect(try tokenizer.encode("</s>", addSpecialTokens: false) == [2])
        let plain = try tokenizer.encode("</s>", addSpecialTokens: false, parseSpecialTokens: false)
        #expect(!plain.contains(2) && tokenizer.decode(plain) == "</s>")
        #expect(tokenizer.decode([1, 2], skipSpecialTokens: true) == "" && tokenizer.decode([1]) == "<s>")
        #expect(tokenizer.id(of: "</s>") == 2 && tokenizer.isSpecial(2) && !tokenizer.isSpecial(200))
    }
}
