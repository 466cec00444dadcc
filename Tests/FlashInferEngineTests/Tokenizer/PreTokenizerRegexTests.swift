import FlashInferEngine
import Foundation
import Testing

struct PreTokenizerRegexTests {
    private func matches(_ pattern: String, _ text: String) throws -> [String] {
        let scalars = PackedScalar.unpack(text)
        return try PreTokenizerRegex(pattern).matches(in: scalars, range: 0..<scalars.count).map { range in
            var view = String.UnicodeScalarView()
            view.append(contentsOf: scalars[range].map(\.scalar))
            return String(view)
        }
    }

    struct Case: Sendable, CustomTestStringConvertible {
        var pattern: String
        var text: String
        var matches: [String]
        var testDescription: String { pattern }

        init(_ pattern: String, _ text: String, _ matches: [String]) {
            self.pattern = pattern
            self.text = text
            self.matches = matches
        }
    }

    static let cases: [Case] = [
        Case("a|ab", "ab", ["a"]), Case("(?:a|ab)c", "abc", ["abc"]), Case("a*", "baa", ["", "aa"]),
        Case("a+?", "aaa", ["a", "a", "a"]), Case("<.+?>", "<a><b>", ["<a>", "<b>"]),
        Case("a{2}", "aaaaa", ["aa", "aa"]), Case("a{2,}", "aaaaa", ["aaaaa"]), Case("a{,2}b", "aaab", ["aab"]),
        Case("a{1,3}?b", "aaab", ["aaab"]), Case("a{x", "a{x", ["a{x"]), Case("{", "{", ["{"]),
        Case("a++a", "aaa", []), Case("a*+b", "aab", ["aab"]), Case("(?>a+)a", "aaa", []),
        Case("(?:ab)++c", "ababc", ["ababc"]), Case("[^\\s]+?b", "aab", ["aab"]),
        Case(#"\s+(?!\S)"#, "a   b  ", ["  ", "  "]), Case("a(?=b)", "abac", ["a"]), Case("a(?!b)", "abac", ["a"]),
        Case("(?i:'s|'t)", "'S't'ſ", ["'S", "'t", "'ſ"]), Case("(?i)aB", "ABab", ["AB", "ab"]),
        Case("(?i)[k-l]+", "KLK", ["KLK"]), Case("(?i:a)b", "AbAB", ["Ab"]), Case("(?i:é)", "É", ["É"]),
        Case(#"\p{L}+"#, "aé漢ß1", ["aé漢ß"]), Case(#"\p{Lu}\p{Ll}*"#, "HelloÉaX", ["Hello", "Éa", "X"]),
        Case(#"\P{L}+"#, "a1 b", ["1 "]), Case(#"\p{^N}"#, "1a", ["a"]),
        Case(#"[\p{P}\p{S}]+"#, "a+!€b", ["+!€"]), Case(#"\p{Letter}"#, "1a", ["a"]),
        Case(#"[^\r\n\p{L}]"#, "a\n1\r ", ["1", " "]), Case("[a-c-]+", "ab-d", ["ab-"]), Case("[]a]+", "a]b", ["a]"]),
        Case("[a&&[^b]]", "ab", ["a"]), Case(#"[\w&&[^\d_]]+"#, "a1_b", ["a", "b"]), Case(#"[a\]]+"#, "a]", ["a]"]),
        Case(#"[^\S\n]+"#, "a \t\nb", [" \t"]), Case("[a[bc]d]+", "abcde", ["abcd"]), Case(#"[\D]+"#, "1a2", ["a"]),
        Case(#"\d+|\D"#, "12a٣", ["12", "a", "٣"]), Case(#"\w+"#, "aé_1 b́-", ["aé_1", "b́"]),
        Case(#"\bа\b"#, "а-аб", ["а"]), Case("^a", "a\na", ["a", "a"]), Case(#"\Aa"#, "a\na", ["a"]),
        Case("a$", "a\na", ["a", "a"]), Case(#"a\z"#, "a\na", ["a"]), Case(#"\x41\u0042\x{1F600}"#, "AB😀", ["AB😀"]),
        Case(".", "a\nb", ["a", "b"]), Case("(a*)*b", "aab", ["aab"]), Case("(?:a?)*c", "aac", ["aac"]),
        Case("(?:a|b)*?c", "abc", ["abc"]), Case("(?:)*", "a", ["", ""]), Case("a**", "aa", ["aa"]),
        Case("", "ab", ["", "", ""]), Case(#"\ "#, "a b", [" "]), Case("(a|b)(c|d)", "acbd", ["ac", "bd"]),
    ]

    @Test(arguments: cases)
    func matchesAreOnigurumas(_ item: Case) throws {
        #expect(try matches(item.pattern, item.text) == item.matches)
    }

    @Test(arguments: [
        "(", ")", "[", "[a", "*", "+", "?", "a{3,1}", #"\"#, #"\p{"#, #"\pN"#, #"\p{Nope}"#, "(?<=a)b", "(?<!a)b",
        #"(a)\1"#,
        "[z-a]", "(?x:a)", "[[:alpha:]]", #"\q"#, #"\x{110000}"#, #"\u12"#, "(?P<n>a)", "a{1001}", "[a&&", "^*",
        "((((a{999}){999}){999}){999})", String(repeating: "(", count: 100_000),
        String(repeating: "[", count: 100_000), String(repeating: "(?:", count: 70) + String(repeating: ")", count: 70),
    ])
    func badPatternsAreRefused(_ pattern: String) {
        #expect(throws: TokenizerError.self) { try PreTokenizerRegex(pattern) }
    }

    @Test(arguments: ["(a+)+b", "(a|a)*b", "(a*)*b", "(?:a|aa)+$b", "(.*a){20}b"])
    func exponentialPatternsEnd(_ pattern: String) {
        #expect(throws: TokenizerError.self) { try matches(pattern, String(repeating: "a", count: 5000)) }
    }

    @Test func longTextTakesNoStack() throws {
        let text = String(repeating: "a", count: 1_000_000)
        #expect(try matches("a+", text).count == 1)
        #expect(throws: TokenizerError.self) { try matches("(?:a|b)+?c|a", text) }
        #expect(throws: Never.self) {
            try matches(#"\s*[\r\n]+|\s+(?!\S)|\s+"#, String(repeating: " ", count: 1_000_000))
        }
    }

    /// Random patterns on random text: matches in order and in bounds, or a typed error.
    @Test func randomPatternsEnd() {
        let parts = [
            "a", "b", "(", ")", "(?:", "(?=", "(?!", "(?>", "(?i:", "[", "]", "[^", "-", "|", "*", "+", "?", "{2}",
            "{1,3}",
            "{,2}", ".", "^", "$", #"\p{L}"#, #"\s"#, #"\S"#, #"\d"#, #"\b"#, #"\w"#, "é", "&&", "漢", "{",
        ]
        var state: UInt64 = 3
        func random(_ bound: Int) -> Int {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return Int(truncatingIfNeeded: state >> 33) % bound
        }
        let text = PackedScalar.unpack("ab aé漢b\n12 aab  bA-")
        var compiled = 0
        for _ in 0..<20_000 {
            let pattern = (0..<random(12)).map { _ in parts[random(parts.count)] }.joined()
            guard let regex = try? PreTokenizerRegex(pattern) else { continue }
            compiled += 1
            let range = 2..<text.count - 2
            guard let matches = try? regex.matches(in: text, range: range) else { continue }
            var end = range.lowerBound
            for match in matches {
                #expect(match.lowerBound >= end && match.upperBound <= range.upperBound, "\(pattern)")
                end = match.upperBound
            }
        }
        #expect(compiled > 1000)
    }
}
