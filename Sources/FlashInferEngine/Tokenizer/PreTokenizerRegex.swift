/// A regular expression over Unicode scalars, compiled once: the patterns that split text before a tokenizer's merges.
///
/// The dialect is the one of the patterns in tokenizer files (Oniguruma's, as Hugging Face `tokenizers` uses it):
/// literals, classes (`\p{L}`, `\s`, `\S`, `\d`, `\w`, `[^\r\n\p{L}]`, unions and `&&`), groups, `(?i:…)`,
/// alternation, greedy, lazy and possessive quantifiers, lookahead, atomic groups, `^ $ \A \z \b \B`. The first
/// alternative that matches wins. Look-behind and back-references are refused with an error.
///
/// ```swift
/// let words = try PreTokenizerRegex(#" ?\p{L}+|\s+(?!\S)|\s+"#)
/// try words.split("hello new  world")  // ["hello", " new", " ", " world"]
/// ```
///
/// ### Implementation notes
/// A backtracking machine whose stack is on the heap: depth of the pattern is bounded when it is parsed, and the
/// length of the text costs no recursion. A repeated class takes one stack entry however long its run. Every search
/// has a budget of steps (2^22 and 256 per scalar), so that a pattern that backtracks exponentially ends with
/// `TokenizerError.patternTooExpensive`.
public struct PreTokenizerRegex: Sendable {
    /// The pattern's text.
    public let pattern: String
    let program: [RegexInstruction]
    let sets: [ScalarSet]
    let registerCount: Int

    /// Compiles a pattern.
    ///
    /// - Throws: `TokenizerError.badPattern` with the place and reason.
    public init(_ pattern: String) throws(TokenizerError) {
        var parser = RegexParser(pattern)
        let root = try parser.parse()
        var compiler = RegexCompiler(pattern: pattern, sets: parser.sets)
        try compiler.compile(root)
        self.pattern = pattern
        self.program = compiler.program + [RegexInstruction(.accept)]
        self.sets = compiler.sets.map { ScalarSet($0) }
        self.registerCount = compiler.registerCount
    }

    /// A pattern that matches a text and nothing else.
    package init(literal: String) {
        self.pattern = literal
        self.program =
            literal.unicodeScalars.map { RegexInstruction(.scalar, Int32($0.value)) } + [RegexInstruction(.accept)]
        self.sets = []
        self.registerCount = 0
    }

    /// The text cut at the matches: matches and what lies between them, in order, none empty.
    public func split(_ text: String) throws(TokenizerError) -> [String] {
        let scalars = PackedScalar.unpack(text)
        func string(_ range: Range<Int>) -> String {
            var result = String.UnicodeScalarView()
            result.append(contentsOf: scalars[range].lazy.map(\.scalar))
            return String(result)
        }
        var pieces: [String] = []
        var end = 0
        for match in try matches(in: scalars, range: 0..<scalars.count) {
            if end < match.lowerBound { pieces.append(string(end..<match.lowerBound)) }
            if !match.isEmpty { pieces.append(string(match)) }
            end = match.upperBound
        }
        if end < scalars.count { pieces.append(string(end..<scalars.count)) }
        return pieces
    }

    /// The matches in `range`, leftmost first, not overlapping; text outside the range is not seen at all.
    package func matches(in scalars: [PackedScalar], range: Range<Int>) throws(TokenizerError) -> [Range<Int>] {
        var found: [Range<Int>] = []
        var matcher = RegexMatcher(self)
        try matcher.forEachMatch(in: scalars, range: range) { found.append($0) }
        return found
    }
}

/// One step of a compiled pattern; `a`, `b` and `c` mean what the operation says.
struct RegexInstruction: Sendable {
    enum Operation: UInt8, Sendable {
        /// The scalar `a`.
        case scalar
        /// A scalar whose case folding is `a`.
        case foldedScalar
        /// A scalar of set `a`.
        case set
        /// Any scalar but a line feed.
        case any
        /// Set `a`, `b` to `c` times, as many as can be.
        case greedy
        /// Set `a`, `b` to `c` times, as few as will do.
        case lazy
        /// Set `a`, `b` to `c` times, as many as there are, never fewer.
        case possessive
        /// Continue at `a`; on failure at `b`.
        case split
        /// Continue at `a`.
        case jump
        /// The steps from here to before `a` must match (`b` = 0) or must not (`b` = 1); nothing is consumed.
        case look
        /// The steps from here to before `a`, without coming back into them.
        case atomic
        /// Remember the position in register `a`.
        case mark
        /// Continue at `b` when the position is still the one in register `a`: an empty turn of a loop.
        case breakIfEmpty
        case lineStart, lineEnd, textStart, textEnd, textEndOrNewline, wordBoundary, notWordBoundary
        /// The end of the pattern, or of a `look` or `atomic`.
        case accept
    }

    let operation: Operation
    var a: Int32
    var b: Int32
    var c: Int32

    init(_ operation: Operation, _ a: Int32 = 0, _ b: Int32 = 0, _ c: Int32 = 0) {
        self.operation = operation
        self.a = a
        self.b = b
        self.c = c
    }
}
