/// A set of scalars, as a class of a regular expression describes it.
///
/// The first 128 scalars are a bitmap; the rest are answered from the packed category, white-space bit and ranges.
struct ScalarSet: Sendable {
    private var low: UInt64 = 0
    private var high: UInt64 = 0
    private var rule = Rule()

    /// What is asked of scalars outside ASCII, and of all of them while the bitmap is built.
    struct Rule: Sendable {
        var categories: UInt32 = 0
        var whitespace = false
        var nonWhitespace = false
        var word = false
        var nonWord = false
        /// Sorted by lower bound, not overlapping.
        var ranges: [ClosedRange<UInt32>] = []
        var nested: [Rule] = []
        /// All of these must hold as well (`&&` of a class).
        var intersections: [Rule] = []
        var ignoresCase = false
        var negated = false

        func matches(_ scalar: PackedScalar) -> Bool {
            var inside = matchesOneCase(scalar)
            if !inside, ignoresCase {
                inside = CaseFolding.variants(of: scalar.value).contains { matchesOneCase(PackedScalar(value: $0)) }
            }
            if inside, !intersections.isEmpty {
                inside = intersections.allSatisfy { $0.matches(scalar) }
            }
            return inside != negated
        }

        private func matchesOneCase(_ scalar: PackedScalar) -> Bool {
            if categories >> scalar.category & 1 != 0 { return true }
            if whitespace, scalar.isWhitespace { return true }
            if nonWhitespace, !scalar.isWhitespace { return true }
            if word || nonWord, ScalarSet.isWord(scalar) ? word : nonWord { return true }
            if !ranges.isEmpty, inRanges(scalar.value) { return true }
            return nested.contains { $0.matches(scalar) }
        }

        private func inRanges(_ value: UInt32) -> Bool {
            var lower = 0
            var upper = ranges.count
            while lower < upper {
                let middle = (lower + upper) / 2
                if ranges[middle].upperBound < value { lower = middle + 1 } else { upper = middle }
            }
            return lower < ranges.count && ranges[lower].contains(value)
        }

        /// Sorts and joins the ranges; called once, when the rule is complete.
        mutating func finish() {
            ranges.sort { $0.lowerBound < $1.lowerBound }
            var joined: [ClosedRange<UInt32>] = []
            for range in ranges {
                if let last = joined.last, range.lowerBound <= last.upperBound &+ 1 {
                    joined[joined.count - 1] = last.lowerBound...max(last.upperBound, range.upperBound)
                } else {
                    joined.append(range)
                }
            }
            ranges = joined
        }
    }

    init(_ rule: Rule) {
        self.rule = rule
        for value in UInt32(0)..<128 where rule.matches(PackedScalar(value: value)) {
            if value < 64 { low |= 1 << UInt64(value) } else { high |= 1 << UInt64(value - 64) }
        }
    }

    @inline(__always)
    func contains(_ scalar: PackedScalar) -> Bool {
        let value = scalar.value
        if value < 128 {
            return (value < 64 ? low : high) >> UInt64(value & 63) & 1 != 0
        }
        return rule.matches(scalar)
    }

    /// Letters and other alphabetic scalars, marks, decimal digits and connectors: `\w` of Unicode regular expressions.
    static func isWord(_ scalar: PackedScalar) -> Bool {
        // Lu Ll Lt Lm Lo Mn Mc Me Nd Nl Pc, then what is alphabetic without being any of these.
        if UInt32(0b1011_1111_1111) >> scalar.category & 1 != 0 { return true }
        return scalar.value >= 0x80 && scalar.scalar.properties.isAlphabetic
    }
}

/// Simple case folding: the scalars that are equal to one when case is ignored.
enum CaseFolding {
    static func variants(of value: UInt32) -> [UInt32] {
        guard let scalar = Unicode.Scalar(value) else { return [] }
        let upper = single(scalar.properties.uppercaseMapping) ?? scalar
        let lower = single(upper.properties.lowercaseMapping) ?? upper
        return [single(scalar.properties.lowercaseMapping) ?? scalar, upper, lower].map(\.value)
    }

    /// The scalar that stands for all case variants of one.
    static func fold(_ value: UInt32) -> UInt32 {
        if value < 0x80 { return (65...90).contains(value) ? value + 32 : value }
        guard let scalar = Unicode.Scalar(value) else { return value }
        let upper = single(scalar.properties.uppercaseMapping) ?? scalar
        return (single(upper.properties.lowercaseMapping) ?? upper).value
    }

    private static func single(_ text: String) -> Unicode.Scalar? {
        let scalars = text.unicodeScalars
        return scalars.count == 1 ? scalars.first : nil
    }
}
