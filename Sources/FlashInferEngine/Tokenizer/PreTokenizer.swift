/// What becomes of a separator when text is split at it.
public enum SplitBehavior: String, Sendable, CaseIterable {
    /// Separators are dropped.
    case removed = "Removed"
    /// Each separator is a piece of its own.
    case isolated = "Isolated"
    /// A separator ends the piece before it.
    case mergedWithPrevious = "MergedWithPrevious"
    /// A separator begins the piece after it.
    case mergedWithNext = "MergedWithNext"
    /// Neighbouring separators are one piece.
    case contiguous = "Contiguous"
}

/// One way of cutting text into words; merges never cross the cuts.
public enum PreTokenizer: Sendable {
    /// When a metaspace puts its mark before text.
    public enum PrependScheme: String, Sendable, CaseIterable {
        /// Before every part.
        case always
        /// Only at the beginning of the whole text.
        case first
        /// Not at all.
        case never
    }

    /// Cuts at a pattern. With `invert`, what lies between the matches is the separator.
    case split(PreTokenizerRegex, SplitBehavior, invert: Bool)
    /// Cuts out numbers, each numeric scalar by itself or runs of them.
    case digits(individual: Bool)
    /// Bytes instead of scalars are the symbols of the merges from here on; must come last. With `usesPattern`, GPT-2's
    /// pattern cuts first.
    case byteLevel(addPrefixSpace: Bool, usesPattern: Bool)
    /// Spaces become a visible mark; with `splits`, every mark begins a piece.
    case metaspace(replacement: Unicode.Scalar, PrependScheme, splits: Bool)
    /// Runs of word scalars, and runs of what is neither word nor white space.
    case whitespace
    /// Cuts at white space and drops it.
    case whitespaceSplit
    /// Cuts at punctuation.
    case punctuation(SplitBehavior)

    /// GPT-2's pattern (Radford et al. 2019).
    static let gpt2Pattern =
        #"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"#

    var isByteLevel: Bool {
        if case .byteLevel = self { true } else { false }
    }
}

/// A part of a text between special tokens, on its way through the pre-tokenisers.
struct PreTokenizedText {
    private(set) var scalars: [PackedScalar]
    /// In order, none empty, not overlapping.
    private(set) var pieces: [Range<Int>]
    /// Whether scalar 0 is the first of the whole text.
    private let startsText: Bool

    init(_ scalars: [PackedScalar], startsText: Bool) {
        self.scalars = scalars
        self.pieces = scalars.isEmpty ? [] : [0..<scalars.count]
        self.startsText = startsText
    }

    mutating func apply(_ step: CompiledPreTokenizer) throws(TokenizerError) {
        switch step.step {
        case .split(_, let behavior, let invert): try split(step.regex, behavior, invert: invert)
        case .digits(let individual):
            split(individual ? .isolated : .contiguous) { (8...10).contains($0.category) }
        case .byteLevel(let addPrefixSpace, let usesPattern):
            if addPrefixSpace { prepend(PackedScalar(value: 32)) { _ in true } }
            if usesPattern { try split(step.regex, .isolated, invert: false) }
        case .metaspace(let replacement, let scheme, let splits):
            let mark = PackedScalar(replacement)
            for index in scalars.indices where scalars[index].value == 32 { scalars[index] = mark }
            if scheme != .never {
                let startsText = startsText
                prepend(mark) { scheme == .always || (startsText && $0 == 0) }
            }
            if splits { split(.mergedWithNext) { $0 == mark } }
        case .whitespace: try split(step.regex, .removed, invert: true)
        case .whitespaceSplit: split(.removed) { $0.isWhitespace }
        case .punctuation(let behavior):
            split(behavior) {
                let value = $0.value
                return (11...17).contains($0.category)
                    || (value < 0x80 && (18...21).contains($0.category))
            }
        }
    }

    /// Puts a scalar before each piece that does not begin with it and whose start the condition allows.
    private mutating func prepend(_ scalar: PackedScalar, where condition: (Int) -> Bool) {
        guard pieces.contains(where: { condition($0.lowerBound) && scalars[$0.lowerBound] != scalar }) else { return }
        var longer: [PackedScalar] = []
        longer.reserveCapacity(scalars.count + pieces.count)
        for (index, piece) in pieces.enumerated() {
            let start = longer.count
            if condition(piece.lowerBound), scalars[piece.lowerBound] != scalar { longer.append(scalar) }
            longer.append(contentsOf: scalars[piece])
            pieces[index] = start..<longer.count
        }
        scalars = longer
    }

    private mutating func split(
        _ regex: PreTokenizerRegex?, _ behavior: SplitBehavior, invert: Bool
    ) throws(TokenizerError) {
        guard let regex else { return }
        var splitter = Splitter(behavior)
        splitter.pieces.reserveCapacity(scalars.count / 4)
        var matcher = RegexMatcher(regex)
        for piece in pieces {
            var end = piece.lowerBound
            splitter.begin()
            try matcher.forEachMatch(in: scalars, range: piece) { match in
                if end < match.lowerBound { splitter.add(end..<match.lowerBound, isSeparator: invert) }
                if !match.isEmpty { splitter.add(match, isSeparator: !invert) }
                end = match.upperBound
            }
            if end < piece.upperBound { splitter.add(end..<piece.upperBound, isSeparator: invert) }
        }
        pieces = splitter.pieces
    }

    private mutating func split(_ behavior: SplitBehavior, _ isSeparator: (PackedScalar) -> Bool) {
        var splitter = Splitter(behavior)
        for piece in pieces {
            splitter.begin()
            var start = piece.lowerBound
            for index in piece where isSeparator(scalars[index]) {
                if start < index { splitter.add(start..<index, isSeparator: false) }
                splitter.add(index..<index + 1, isSeparator: true)
                start = index + 1
            }
            if start < piece.upperBound { splitter.add(start..<piece.upperBound, isSeparator: false) }
        }
        pieces = splitter.pieces
    }
}

/// Joins separators and what lies between them as a behaviour says; `begin` comes before each piece that is cut.
private struct Splitter {
    var pieces: [Range<Int>] = []
    private let behavior: SplitBehavior
    /// Pieces made from the one that is being cut start here.
    private var base = 0
    private var previousWasSeparator = false

    init(_ behavior: SplitBehavior) {
        self.behavior = behavior
    }

    mutating func begin() {
        base = pieces.count
        previousWasSeparator = false
    }

    @inline(__always)
    mutating func add(_ range: Range<Int>, isSeparator: Bool) {
        switch behavior {
        case .isolated: pieces.append(range)
        case .removed: if !isSeparator { pieces.append(range) }
        case .contiguous: append(range, joined: isSeparator && previousWasSeparator)
        // A separator after a separator is a piece of its own, so that runs of them stay apart.
        case .mergedWithPrevious: append(range, joined: isSeparator && !previousWasSeparator)
        case .mergedWithNext: append(range, joined: !isSeparator && previousWasSeparator)
        }
        previousWasSeparator = isSeparator
    }

    private mutating func append(_ range: Range<Int>, joined: Bool) {
        if joined, pieces.count > base {
            pieces[pieces.count - 1] = pieces[pieces.count - 1].lowerBound..<range.upperBound
        } else {
            pieces.append(range)
        }
    }

}

/// A pre-tokeniser with its pattern compiled.
struct CompiledPreTokenizer: Sendable {
    let step: PreTokenizer
    let regex: PreTokenizerRegex?

    init(_ step: PreTokenizer) throws(TokenizerError) {
        self.step = step
        self.regex =
            switch step {
            case .split(let regex, _, _): regex
            case .byteLevel(_, usesPattern: true): try PreTokenizerRegex(PreTokenizer.gpt2Pattern)
            case .whitespace: try PreTokenizerRegex(#"\w+|[^\w\s]+"#)
            default: nil
            }
    }
}
