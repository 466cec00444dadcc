import FlashInferCore
import TestSupport
import Testing

/// Variants through their JSON form and back.
@Suite struct VariantJSONTests {
    @Test func text() {
        let documents = Parameter<Int32>("documents", .perPosition)
        let variant = AttentionVariant(
            "docs", mask: .causal && .documents(documents), scale: 0.125, logits: .softCap(30))
        #expect(
            variant.json == #"{"name":"docs","mask":["and",["le","keyPosition","queryPosition"],"#
                + #"["eq",["load","documents","queryPosition"],["load","documents","keyPosition"]]],"#
                + #""logits":["mul",["tanh",["div","score",30.0]],30.0],"scale":0.125,"#
                + #""parameters":{"documents":["int","perPosition"]}}"#)
    }

    @Test(arguments: VariantSample.builtIns.indices) func builtInsComeBack(_ index: Int) throws {
        var variant = VariantSample.builtIns[index].variant
        variant.rope = nil
        let read = try AttentionVariant(json: variant.json)
        #expect(read == variant)
        #expect(read.name == variant.name)
        #expect(read.form == variant.form || read.form.mask == variant.form.mask)
    }

    @Test(arguments: 0..<80) func randomExpressionsComeBack(_ seed: Int) throws {
        var random = RandomExpression(seed: UInt64(seed))
        let variant = random.variant("random \"\(seed)\"\n")
        #expect(try AttentionVariant(json: variant.json) == variant)
    }

    @Test func escapedNames() throws {
        // As Python's json.dumps writes what is not ASCII: past U+FFFF in two halves.
        let read = try AttentionVariant(
            json: #"{"name":"\u00e9 \ud83e\uDD99 \"\n","mask":["le","keyPosition","queryPosition"]}"#)
        #expect(read.name == "é 🦙 \"\n")
        #expect(try AttentionVariant(json: read.json).name == read.name)
    }

    @Test func mistakesAreNamed() {
        let cases: [(String, String)] = [
            ("", "JSON"), ("[1]", "JSON object"), (#"{"mask":["le","keyPosition"]}"#, "1 operands"),
            (#"{"mask":["le","keyPosition",1.5]}"#, "types int, float"),
            (#"{"mask":"score"}"#, "a float, but must be a bool"),
            (#"{"mask":["load","ids","keyPosition"]}"#, "no parameter 'ids'"), (#"{"msk":true}"#, "msk"),
            (#"{"logits":["nope","score"]}"#, "operation \"nope\""), (#"{"name":"n","mask":false}"#, "hides every key"),
            (#"{"mask":["ref",0]}"#, "operation \"ref\""), (#"{"logits":["add","score",1e999]}"#, "JSON"),
            (#"{"parameters":{"a":["int","perDay"]}}"#, "perHead"),
            (#"{"mask":["le","keyPosition",99999999999]}"#, "32 bits"),
            (String(repeating: "[", count: 5000), "levels"), (#"{"name":"\ud83e"}"#, "surrogate pair"),
            (#"{"name":"\ud83e\u0041"}"#, "surrogate pair"), (#"{"name":"\udd99"}"#, "surrogate pair"),
            (#"{"name":"\u+041"}"#, "four hexadecimal digits"), (#"{"name":"\x"}"#, "an escape"),
        ]
        for (text, expected) in cases {
            do {
                _ = try AttentionVariant(json: text)
                Issue.record("no error for \(text)")
            } catch {
                #expect("\(error)".contains(expected), "\(text.prefix(80)): \(error)")
            }
        }
    }
}
