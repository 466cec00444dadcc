import FlashInferEngine
import TestSupport
import Testing

struct JSONParserTests {
    private func parse(_ text: String) throws(ModelFileError) -> JSONNode { try parse(Array(text.utf8)) }

    private func parse(_ bytes: [UInt8]) throws(ModelFileError) -> JSONNode {
        try JSONNode(parsing: MappedFile.guarded(bytes))
    }

    @Test func readsEveryKindOfValue() throws {
        #expect(try parse(" null ") == .null)
        #expect(try parse("[true,false]") == .array([.bool(true), .bool(false)]))
        #expect(try parse("{}") == .object([:]))
        #expect(try parse("[ ]") == .array([]))
        #expect(
            try parse("{\"a\" : [1, {\"b\":\"\"}]\n}")
                == .object(["a": .array([.integer(1), .object(["b": .string("")])])]))
    }

    @Test func readsNumbersExactly() throws {
        #expect(try parse("9223372036854775807") == .integer(.max))
        #expect(try parse("-9223372036854775808") == .integer(.min))
        #expect(try parse("9223372036854775808") == .number(9_223_372_036_854_775_808))
        #expect(try parse("1e-05") == .number(1e-5))
        #expect(try parse("-0") == .integer(0))
        #expect(try parse("0.1E+2").int == 10)
        #expect(try parse("10000.5").int == nil)
        for text in ["01", "+1", "-", "1.", ".5", "1e", "1e+", "0x1", "1_0", "NaN", "Infinity", "1e999", "--1"] {
            #expect(throws: ModelFileError.self, "\(text)") { _ = try parse(text) }
        }
    }

    @Test func readsStrings() throws {
        #expect(
            try parse(#""a\n\t\r\b\f\"\\\/é\u00e9\ud83d\ude00""#).string
                == "a\n\t\r\u{8}\u{c}\"\\/\u{e9}\u{e9}\u{1f600}")
        for text in [
            #""\ud83d""#, #""\ude00""#, #""\ud83d\u0041""#, #""\u12""#, #""\x""#, "\"a", "\"\n\"", #""\"#, #""\u"#,
        ] {
            #expect(throws: ModelFileError.self, "\(text)") { _ = try parse(text) }
        }
        #expect(throws: ModelFileError(file: "memory", problem: .invalidUTF8(what: "JSON", offset: 0))) {
            _ = try parse([0x22, 0xff, 0x22])
        }
    }

    @Test func refusesWhatIsNotJSON() {
        for text in [
            "", " ", "[", "]", "{", "[1,]", "[1 2]", "{\"a\"}", "{\"a\":}", "{a:1}", "{\"a\":1,}", "nul", "truE",
            "[] []",
        ] {
            #expect(throws: ModelFileError.self, "\(text)") { _ = try parse(text) }
        }
        #expect(throws: ModelFileError(file: "memory", problem: .duplicateKey("a"))) {
            _ = try parse("{\"a\":1,\"a\":1}")
        }
    }

    @Test func boundsTheDepth() throws {
        func nested(_ depth: Int) -> String {
            String(repeating: "[", count: depth) + String(repeating: "]", count: depth)
        }
        #expect(try parse(nested(64)).array?.count == 1)
        for text in [nested(65), nested(100_000), String(repeating: "{\"a\":", count: 100_000)] {
            #expect(throws: ModelFileError(file: "memory", problem: .nestedTooDeep(what: "JSON", limit: 64))) {
                _ = try parse(text)
            }
        }
    }

    @Test func boundsTheNumberOfValues() throws {
        let limit = 1 << 20
        func zeros(_ count: Int) -> String { "[" + String(repeating: "0,", count: count - 1) + "0]" }
        #expect(try parse(zeros(limit - 1)).array?.count == limit - 1)
        let problem = ModelFileError.Problem.countTooLarge(
            what: "values in JSON", value: UInt64(limit + 1), limit: UInt64(limit))
        #expect(throws: ModelFileError(file: "memory", problem: problem)) { _ = try parse(zeros(limit)) }
    }

    @Test func survivesDamage() {
        let text = Array(#"{"a": [1, -2.5e3, "é\ud83d\ude00\n"], "b": {"c": null, "d": true}}"#.utf8)
        var random = SeededGenerator(seed: 1)
        for length in 0..<text.count { _ = try? parse(Array(text.prefix(length))) }
        for _ in 0..<3_000 {
            var bytes = text
            for _ in 0..<3 {
                bytes[Int.random(in: 0..<bytes.count, using: &random)] = UInt8.random(in: 0...255, using: &random)
            }
            _ = try? parse(bytes)
        }
    }
}
