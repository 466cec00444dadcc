/// A pattern as a tree.
indirect enum RegexNode {
    case empty
    case scalar(UInt32, ignoresCase: Bool)
    /// An index into the parser's sets.
    case set(Int)
    case any
    case sequence([RegexNode])
    case alternation([RegexNode])
    case repetition(RegexNode, min: Int, max: Int?, RegexRepetitionMode)
    case look(RegexNode, negated: Bool)
    case atomic(RegexNode)
    case assertion(RegexInstruction.Operation)
}

enum RegexRepetitionMode {
    case greedy, lazy, possessive
}

/// Recursive descent over a pattern's scalars; nesting is bounded.
struct RegexParser {
    static let depthLimit = 64
    static let repetitionLimit = 1000

    private(set) var sets: [ScalarSet.Rule] = []
    private let pattern: String
    private let scalars: [Unicode.Scalar]
    private var position = 0
    private var depth = 0
    private var ignoresCase = false

    init(_ pattern: String) {
        self.pattern = pattern
        self.scalars = Array(pattern.unicodeScalars)
    }

    mutating func parse() throws(TokenizerError) -> RegexNode {
        let node = try alternation()
        if position < scalars.count { throw error("unmatched )") }
        return node
    }

    private func error(_ reason: String) -> TokenizerError {
        .badPattern(pattern: pattern, offset: position, reason: reason)
    }

    private var next: Unicode.Scalar? { position < scalars.count ? scalars[position] : nil }

    private mutating func take(_ text: String) -> Bool {
        let wanted = Array(text.unicodeScalars)
        guard position + wanted.count <= scalars.count,
            scalars[position..<position + wanted.count].elementsEqual(wanted)
        else { return false }
        position += wanted.count
        return true
    }

    private mutating func alternation() throws(TokenizerError) -> RegexNode {
        depth += 1
        defer { depth -= 1 }
        if depth > Self.depthLimit { throw error("groups nested deeper than \(Self.depthLimit)") }
        // A flag such as (?i) holds to the end of the group that it is in.
        let outerIgnoresCase = ignoresCase
        defer { ignoresCase = outerIgnoresCase }
        var branches = [try sequence()]
        while take("|") { branches.append(try sequence()) }
        return branches.count == 1 ? branches[0] : .alternation(branches)
    }

    private mutating func sequence() throws(TokenizerError) -> RegexNode {
        var items: [RegexNode] = []
        while let scalar = next, scalar != "|", scalar != ")" {
            let item = try atom()
            items.append(try quantified(item))
        }
        return items.count == 1 ? items[0] : items.isEmpty ? .empty : .sequence(items)
    }

    private mutating func quantified(_ atom: RegexNode) throws(TokenizerError) -> RegexNode {
        var node = atom
        while let bounds = try quantifier() {
            if case .assertion = node { throw error("nothing to repeat") }
            var mode = RegexRepetitionMode.greedy
            if take("?") {
                mode = .lazy
            } else if bounds.allowsPossessive, take("+") {
                mode = .possessive
            }
            node = .repetition(node, min: bounds.min, max: bounds.max, mode)
        }
        return node
    }

    private mutating func quantifier() throws(TokenizerError) -> (min: Int, max: Int?, allowsPossessive: Bool)? {
        if take("*") { return (0, nil, true) }
        if take("+") { return (1, nil, true) }
        if take("?") { return (0, 1, true) }
        guard next == "{" else { return nil }
        let start = position
        position += 1
        let low = try number()
        var high = low
        if take(",") { high = try number() }
        guard low != nil || high != nil || scalars[position - 1] == ",", take("}"),
            low != nil || high != nil
        else {
            // Not a quantifier after all: the brace is a literal.
            position = start
            return nil
        }
        let isRange = scalars[start..<position].contains(",")
        let minimum = low ?? 0
        let maximum = isRange ? high : minimum
        if let maximum, maximum < minimum { throw error("quantifier {\(minimum),\(maximum)} is reversed") }
        return (minimum, maximum, false)
    }

    private mutating func number() throws(TokenizerError) -> Int? {
        var value: Int?
        while let scalar = next, ("0"..."9").contains(scalar) {
            value = (value ?? 0) * 10 + Int(scalar.value - 48)
            if value! > Self.repetitionLimit { throw error("repetition over \(Self.repetitionLimit)") }
            position += 1
        }
        return value
    }

    private mutating func atom() throws(TokenizerError) -> RegexNode {
        let scalar = scalars[position]
        switch scalar {
        case "(": return try group()
        case "[":
            position += 1
            return add(try characterClass())
        case ".":
            position += 1
            return .any
        case "^":
            position += 1
            return .assertion(.lineStart)
        case "$":
            position += 1
            return .assertion(.lineEnd)
        case "*", "+", "?": throw error("nothing to repeat")
        case "\\": return try escape()
        default:
            position += 1
            return .scalar(scalar.value, ignoresCase: ignoresCase)
        }
    }

    private mutating func group() throws(TokenizerError) -> RegexNode {
        position += 1
        var wrap: (RegexNode) -> RegexNode = { $0 }
        if take("?") {
            if take(":") {
            } else if take("=") {
                wrap = { .look($0, negated: false) }
            } else if take("!") {
                wrap = { .look($0, negated: true) }
            } else if take(">") {
                wrap = { .atomic($0) }
            } else if take("<=") || take("<!") {
                throw error("look-behind is not supported")
            } else if next == "i" || next == "-" {
                let outer = ignoresCase
                let flag = try caseFlag()
                if take(")") {
                    ignoresCase = flag
                    return .empty
                }
                guard take(":") else { throw error("expected : or ) after a flag") }
                ignoresCase = flag
                defer { ignoresCase = outer }
                return try groupBody()
            } else {
                throw error("unknown group (?")
            }
        }
        return wrap(try groupBody())
    }

    private mutating func groupBody() throws(TokenizerError) -> RegexNode {
        let body = try alternation()
        guard take(")") else { throw error("missing )") }
        return body
    }

    private mutating func caseFlag() throws(TokenizerError) -> Bool {
        if take("i") { return true }
        guard take("-i") else { throw error("only the flag i is supported") }
        return false
    }

    private mutating func add(_ rule: ScalarSet.Rule) -> RegexNode {
        var rule = rule
        rule.finish()
        sets.append(rule)
        return .set(sets.count - 1)
    }

    private mutating func escape() throws(TokenizerError) -> RegexNode {
        position += 1
        guard let scalar = next else { throw error("a pattern ends with \\") }
        let assertions: [Unicode.Scalar: RegexInstruction.Operation] = [
            "b": .wordBoundary, "B": .notWordBoundary, "A": .textStart, "z": .textEnd, "Z": .textEndOrNewline,
        ]
        if let assertion = assertions[scalar] {
            position += 1
            return .assertion(assertion)
        }
        if let rule = try classEscape() { return add(rule) }
        return .scalar(try scalarEscape().value, ignoresCase: ignoresCase)
    }

    /// The class that an escape stands for, or nil (and nothing consumed) when it stands for one scalar.
    private mutating func classEscape() throws(TokenizerError) -> ScalarSet.Rule? {
        var rule = ScalarSet.Rule()
        switch scalars[position] {
        case "s": rule.whitespace = true
        case "S": rule.nonWhitespace = true
        case "w": rule.word = true
        case "W": rule.nonWord = true
        case "d": rule.categories = GeneralCategory.mask(named: "Nd") ?? 0
        case "D": rule.categories = ~(GeneralCategory.mask(named: "Nd") ?? 0) & GeneralCategory.all
        case "p", "P": return try property()
        default: return nil
        }
        position += 1
        return rule
    }

    private mutating func property() throws(TokenizerError) -> ScalarSet.Rule {
        var negated = scalars[position] == "P"
        position += 1
        var name = ""
        guard take("{") else { throw error("expected { of a property") }
        if take("^") { negated.toggle() }
        while let scalar = next, scalar != "}" {
            name.unicodeScalars.append(scalar)
            position += 1
        }
        guard take("}") else { throw error("missing } of a property") }
        guard let mask = GeneralCategory.mask(named: name) else { throw error("unknown property \(name)") }
        var rule = ScalarSet.Rule()
        rule.categories = negated ? ~mask & GeneralCategory.all : mask
        return rule
    }

    private mutating func scalarEscape() throws(TokenizerError) -> Unicode.Scalar {
        let scalar = scalars[position]
        position += 1
        switch scalar {
        case "n": return "\n"
        case "r": return "\r"
        case "t": return "\t"
        case "f": return "\u{0C}"
        case "v": return "\u{0B}"
        case "a": return "\u{07}"
        case "e": return "\u{1B}"
        case "x": return take("{") ? try hexadecimal(1...8, until: "}") : try hexadecimal(1...2, until: nil)
        case "u": return try hexadecimal(4...4, until: nil)
        case "0"..."9": throw error("back-references and octal escapes are not supported")
        default:
            if scalar.isASCII, scalar.properties.isAlphabetic { throw error("unknown escape \\\(scalar)") }
            return scalar
        }
    }

    private mutating func hexadecimal(
        _ digits: ClosedRange<Int>, until end: String?
    ) throws(TokenizerError) -> Unicode.Scalar {
        var text = ""
        while text.count < digits.upperBound, let scalar = next, scalar.properties.isASCIIHexDigit {
            text.unicodeScalars.append(scalar)
            position += 1
        }
        if let end, !take(end) { throw error("missing \(end) of a scalar") }
        guard digits.contains(text.count), let value = UInt32(text, radix: 16), let scalar = Unicode.Scalar(value)
        else { throw error("not a scalar: \(text)") }
        return scalar
    }

    /// What follows `[`, to its `]`.
    private mutating func characterClass() throws(TokenizerError) -> ScalarSet.Rule {
        depth += 1
        defer { depth -= 1 }
        if depth > Self.depthLimit { throw error("classes nested deeper than \(Self.depthLimit)") }
        var rule = ScalarSet.Rule()
        rule.ignoresCase = ignoresCase
        rule.negated = take("^")
        var isFirst = true
        while let scalar = next, isFirst || scalar != "]" {
            isFirst = false
            if take("[:") { throw error("POSIX classes are not supported") }
            if take("[") {
                rule.nested.append(finished(try characterClass()))
            } else if take("&&") {
                rule.intersections.append(finished(try remainderOfIntersection()))
                break
            } else {
                try classItem(into: &rule)
            }
        }
        guard take("]") else { throw error("missing ]") }
        return rule
    }

    /// What follows `&&`, up to the `]` of the class that it is in, as a class of its own.
    private mutating func remainderOfIntersection() throws(TokenizerError) -> ScalarSet.Rule {
        var rule = ScalarSet.Rule()
        rule.ignoresCase = ignoresCase
        while let scalar = next, scalar != "]" {
            if take("[") {
                rule.nested.append(finished(try characterClass()))
            } else if take("&&") {
                rule.intersections.append(finished(try remainderOfIntersection()))
            } else {
                try classItem(into: &rule)
            }
        }
        return rule
    }

    private func finished(_ rule: ScalarSet.Rule) -> ScalarSet.Rule {
        var rule = rule
        rule.finish()
        return rule
    }

    private mutating func classItem(into rule: inout ScalarSet.Rule) throws(TokenizerError) {
        guard let low = try classScalar(into: &rule) else { return }
        guard next == "-", position + 1 < scalars.count, scalars[position + 1] != "]" else {
            rule.ranges.append(low.value...low.value)
            return
        }
        position += 1
        guard let high = try classScalar(into: &rule) else {
            // As in [a-\s]: the hyphen is itself.
            rule.ranges += [low.value...low.value, 45...45]
            return
        }
        guard low <= high else { throw error("range \(low)-\(high) is reversed") }
        rule.ranges.append(low.value...high.value)
    }

    /// One scalar of a class; nil when it was a class escape, which then is already in the rule.
    private mutating func classScalar(into rule: inout ScalarSet.Rule) throws(TokenizerError) -> Unicode.Scalar? {
        guard let scalar = next else { throw error("missing ]") }
        if scalar != "\\" {
            position += 1
            return scalar
        }
        position += 1
        guard let escaped = next else { throw error("a pattern ends with \\") }
        if escaped == "b" {
            position += 1
            return "\u{08}"
        }
        if let escape = try classEscape() {
            rule.nested.append(escape)
            return nil
        }
        return try scalarEscape()
    }
}
