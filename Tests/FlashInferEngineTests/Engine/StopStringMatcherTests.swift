import FlashInferEngine
import Testing

@Suite struct StopStringMatcherTests {
    /// Feeds `pieces`; returns what was shown after each, then the rest, and the match.
    static func run(_ stops: [String], _ pieces: [String]) -> (shown: [String], match: String?) {
        var matcher = StopStringMatcher(stops)
        var shown: [String] = []
        for piece in pieces {
            let (text, match) = matcher.append(piece)
            shown.append(text)
            if let match { return (shown, match) }
        }
        shown.append(matcher.finish())
        return (shown, nil)
    }

    @Test func withoutStopStringsEverythingPasses() {
        #expect(Self.run([], ["a", "bc"]) == (["a", "bc", ""], nil))
    }

    @Test func aPossibleStartIsHeldBackAndGivenOutWhenItIsNone() {
        #expect(Self.run(["END"], ["xE", "N", "x", "E"]) == (["x", "", "ENx", "", "E"], nil))
    }

    @Test func aMatchAcrossPiecesIsCutExactly() {
        #expect(Self.run(["END"], ["xE", "N", "Dy"]) == (["x", "", ""], "END"))
        #expect(Self.run(["\n\n"], ["a\n", "b\n", "\nc"]) == (["a", "\nb", ""], "\n\n"))
    }

    @Test func theStopStringCompleteFirstWins() {
        #expect(Self.run(["abc", "b"], ["xab"]) == (["xa"], "b"))
        #expect(Self.run(["bc", "abc"], ["abc"]) == (["a"], "bc"))
    }

    @Test func overlappingStartsKeepTheLongest() {
        #expect(Self.run(["aab"], ["aa", "a", "b"]) == (["", "a", ""], "aab"))
    }

    @Test func multibyteTextIsNeverTornApart() {
        #expect(Self.run(["\u{e9}!"], ["caf\u{e9}", " \u{e9}", "!"]) == (["caf", "\u{e9} ", ""], "\u{e9}!"))
    }

    @Test func everySplitOfATextGivesTheSameResult() {
        let text = Array("one two\n\nthree\n\nUser: four")
        for split in 0...text.count {
            for second in split...text.count {
                let pieces = [text[..<split], text[split..<second], text[second...]].map { String($0) }
                let (shown, match) = Self.run(["\n\nUser:", "never"], pieces)
                #expect(shown.joined() == "one two\n\nthree")
                #expect(match == "\n\nUser:")
            }
        }
    }
}
