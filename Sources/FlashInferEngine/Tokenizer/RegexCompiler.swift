/// Turns a pattern's tree into steps of the matching machine.
struct RegexCompiler {
    /// Repetitions of groups are written out, so a bound keeps `((a{1000}){1000}){1000}` from filling memory.
    static let programLimit = 50_000

    let pattern: String
    var sets: [ScalarSet.Rule]
    private(set) var program: [RegexInstruction] = []
    private(set) var registerCount = 0

    init(pattern: String, sets: [ScalarSet.Rule]) {
        self.pattern = pattern
        self.sets = sets
    }

    mutating func compile(_ node: RegexNode) throws(TokenizerError) {
        switch node {
        case .empty: break
        case .scalar(let value, let ignoresCase):
            try emit(
                ignoresCase
                    ? RegexInstruction(.foldedScalar, Int32(CaseFolding.fold(value)))
                    : RegexInstruction(.scalar, Int32(value)))
        case .set(let index): try emit(RegexInstruction(.set, Int32(index)))
        case .any: try emit(RegexInstruction(.any))
        case .sequence(let items):
            for item in items { try compile(item) }
        case .alternation(let branches): try compile(alternatives: branches)
        case .repetition(let body, let min, let max, let mode):
            try compile(repetitionOf: body, min: min, max: max, mode)
        case .look(let body, let negated):
            try enclose(body, in: RegexInstruction(.look, 0, negated ? 1 : 0))
        case .atomic(let body): try enclose(body, in: RegexInstruction(.atomic))
        case .assertion(let operation): try emit(RegexInstruction(operation))
        }
    }

    private var end: Int32 { Int32(program.count) }

    private mutating func emit(_ instruction: RegexInstruction) throws(TokenizerError) {
        guard program.count < Self.programLimit else {
            throw .badPattern(pattern: pattern, offset: 0, reason: "over \(Self.programLimit) steps when compiled")
        }
        program.append(instruction)
    }

    private mutating func enclose(_ body: RegexNode, in instruction: RegexInstruction) throws(TokenizerError) {
        let start = program.count
        try emit(instruction)
        try compile(body)
        try emit(RegexInstruction(.accept))
        program[start].a = end
    }

    private mutating func compile(alternatives: [RegexNode]) throws(TokenizerError) {
        var jumps: [Int] = []
        for (index, branch) in alternatives.enumerated() {
            let isLast = index == alternatives.count - 1
            let split = program.count
            if !isLast { try emit(RegexInstruction(.split, end + 1)) }
            try compile(branch)
            if !isLast {
                jumps.append(program.count)
                try emit(RegexInstruction(.jump))
                program[split].b = end
            }
        }
        for jump in jumps { program[jump].a = end }
    }

    private mutating func compile(
        repetitionOf body: RegexNode, min: Int, max: Int?, _ mode: RegexRepetitionMode
    ) throws(TokenizerError) {
        if let set = singleSet(body) {
            let operation: RegexInstruction.Operation =
                switch mode {
                case .greedy: .greedy
                case .lazy: .lazy
                case .possessive: .possessive
                }
            try emit(RegexInstruction(operation, Int32(set), Int32(min), max.map { Int32($0) } ?? .max))
            return
        }
        if mode == .possessive {
            try enclose(.repetition(body, min: min, max: max, .greedy), in: RegexInstruction(.atomic))
            return
        }
        for _ in 0..<min { try compile(body) }
        if let max {
            var splits: [Int] = []
            for _ in min..<max {
                splits.append(program.count)
                try emit(RegexInstruction(.split))
                try compile(body)
            }
            for split in splits { setTargets(of: split, mode) }
        } else {
            let register = Int32(registerCount)
            registerCount += 1
            let split = program.count
            try emit(RegexInstruction(.split))
            try emit(RegexInstruction(.mark, register))
            try compile(body)
            let check = program.count
            try emit(RegexInstruction(.breakIfEmpty, register))
            try emit(RegexInstruction(.jump, Int32(split)))
            program[check].b = end
            setTargets(of: split, mode)
        }
    }

    /// A split between the step after it and the end of the program so far.
    private mutating func setTargets(of split: Int, _ mode: RegexRepetitionMode) {
        let body = Int32(split + 1)
        (program[split].a, program[split].b) = mode == .lazy ? (end, body) : (body, end)
    }

    /// The set equal to a node that always takes exactly one scalar.
    private mutating func singleSet(_ node: RegexNode) -> Int? {
        var rule = ScalarSet.Rule()
        switch node {
        case .set(let index): return index
        case .scalar(let value, let ignoresCase):
            rule.ranges = [value...value]
            rule.ignoresCase = ignoresCase
        case .any:
            rule.ranges = [10...10]
            rule.negated = true
        default: return nil
        }
        sets.append(rule)
        return sets.count - 1
    }
}
