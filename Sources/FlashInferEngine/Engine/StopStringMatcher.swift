/// Watches streamed text for stop strings and holds back what may turn out to be the start of one.
///
/// Works on UTF-8 bytes: equal bytes are equal text, and a match always begins and ends between characters of the
/// stream's own encoding. The stop string that is complete first ends the text; the cut is exactly before it.
package struct StopStringMatcher: Sendable {
    private let stops: [[UInt8]]
    private var held: [UInt8] = []

    /// Makes a matcher for non-empty `stopStrings`; with none it passes everything through.
    package init(_ stopStrings: [String]) { stops = stopStrings.map { Array($0.utf8) } }

    /// Takes more text.
    ///
    /// - Returns: the text that can be shown, and the stop string that ended it, if one did.
    package mutating func append(_ text: String) -> (text: String, stopString: String?) {
        guard !stops.isEmpty else { return (text, nil) }
        // Only a match that ends in the new bytes is possible, so growing byte by byte finds the first complete one.
        for byte in text.utf8 {
            held.append(byte)
            for stop in stops where held.ends(with: stop) {
                let shown = String(decoding: held.dropLast(stop.count), as: UTF8.self)
                held = []
                return (shown, String(decoding: stop, as: UTF8.self))
            }
        }
        let kept = longestPossibleStart()
        let shown = String(decoding: held.dropLast(kept), as: UTF8.self)
        held.removeFirst(held.count - kept)
        return (shown, nil)
    }

    /// Ends the text and returns what was held back.
    package mutating func finish() -> String {
        defer { held = [] }
        return String(decoding: held, as: UTF8.self)
    }

    /// The length of the longest end of the held text that some stop string starts with.
    private func longestPossibleStart() -> Int {
        let longest = stops.map { $0.count - 1 }.max() ?? 0
        return (1...max(1, min(longest, held.count))).reversed().first { length in
            stops.contains { $0.count > length && held.ends(with: $0[..<length]) }
        } ?? 0
    }
}

extension [UInt8] {
    fileprivate func ends(with other: some BidirectionalCollection<UInt8>) -> Bool {
        count >= other.count && self[(count - other.count)...].elementsEqual(other)
    }
}
