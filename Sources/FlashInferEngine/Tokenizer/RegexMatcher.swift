/// Runs a compiled pattern; keeps its backtracking stack between searches.
struct RegexMatcher {
    static let baseBudget = 1 << 22
    static let budgetPerScalar = 256
    static let stackLimit = 1 << 22

    private let regex: PreTokenizerRegex
    private var stack: [Entry] = []
    private var registers: [Int]
    private var steps = 0
    private var budget = 0

    init(_ regex: PreTokenizerRegex) {
        self.regex = regex
        self.registers = Array(repeating: 0, count: regex.registerCount)
    }

    /// A way not taken.
    private struct Entry {
        enum Kind: UInt8 { case alternative, greedy, lazy, register }
        var kind: Kind
        /// Where to continue; the register's number for `register`.
        var step: Int32
        /// The position to continue at; the old value for `register`.
        var position: Int
        /// The lowest position of a greedy run, the highest of a lazy one.
        var bound: Int
        var set: Int32 = 0
    }

    private static let failed = -1
    private static let exhausted = -2

    /// Calls `body` with every match in `range`, leftmost first, not overlapping.
    mutating func forEachMatch(
        in scalars: [PackedScalar], range: Range<Int>, _ body: (Range<Int>) -> Void
    ) throws(TokenizerError) {
        let scalarCount = range.count
        steps = 0
        let (scaled, overflow) = scalarCount.multipliedReportingOverflow(by: Self.budgetPerScalar)
        budget = overflow ? .max : Swift.max(scaled, scaled &+ Self.baseBudget)
        let finished = scalars.withUnsafeBufferPointer { text in
            regex.program.withUnsafeBufferPointer { program in
                regex.sets.withUnsafeBufferPointer { sets in
                    let input = Input(text: text, range: range, program: program, sets: sets)
                    return search(input, body)
                }
            }
        }
        if !finished {
            throw .patternTooExpensive(pattern: regex.pattern, steps: steps, textScalars: scalarCount)
        }
    }

    private struct Input {
        let text: UnsafeBufferPointer<PackedScalar>
        let range: Range<Int>
        let program: UnsafeBufferPointer<RegexInstruction>
        let sets: UnsafeBufferPointer<ScalarSet>
    }

    private mutating func search(_ input: Input, _ body: (Range<Int>) -> Void) -> Bool {
        var start = input.range.lowerBound
        var lastEnd = -1
        while start <= input.range.upperBound {
            stack.removeAll(keepingCapacity: true)
            let end = run(input, step: 0, position: start)
            if end == Self.exhausted { return false }
            if end == Self.failed || (end == start && end == lastEnd) {
                start += 1
                continue
            }
            body(start..<end)
            lastEnd = end
            start = Swift.max(end, start + (end == start ? 1 : 0))
        }
        return true
    }

    /// Runs from a step to the `accept` of its level; the end of the match, or `failed` or `exhausted`.
    ///
    /// Recursion is that of `look` and `atomic` only, which the parser bounds.
    private mutating func run(_ input: Input, step first: Int, position start: Int) -> Int {
        let base = stack.count
        let limit = input.range.upperBound
        let text = input.text
        var step = first
        var position = start
        while true {
            steps &+= 1
            let instruction = input.program[step]
            var matched = true
            switch instruction.operation {
            case .scalar:
                matched = position < limit && text[position].value == UInt32(bitPattern: instruction.a)
                position += 1
            case .foldedScalar:
                matched =
                    position < limit && CaseFolding.fold(text[position].value) == UInt32(bitPattern: instruction.a)
                position += 1
            case .set:
                matched = position < limit && input.sets[Int(instruction.a)].contains(text[position])
                position += 1
            case .any:
                matched = position < limit && text[position].value != 10
                position += 1
            case .greedy, .possessive:
                let low = position + Int(instruction.b)
                let high = instruction.c == .max ? limit : Swift.min(limit, position + Int(instruction.c))
                let runStart = position
                while position < high, input.sets[Int(instruction.a)].contains(text[position]) { position += 1 }
                steps &+= (position - runStart) >> 4
                matched = position >= low
                if matched, position > low, instruction.operation == .greedy {
                    stack.append(Entry(kind: .greedy, step: Int32(step + 1), position: position, bound: low))
                }
            case .lazy:
                let low = position + Int(instruction.b)
                let high = instruction.c == .max ? limit : Swift.min(limit, position + Int(instruction.c))
                matched = low <= limit
                while matched, position < low {
                    matched = input.sets[Int(instruction.a)].contains(text[position])
                    position += 1
                }
                if matched, position < high {
                    stack.append(
                        Entry(kind: .lazy, step: Int32(step + 1), position: position, bound: high, set: instruction.a))
                }
            case .split:
                if stack.count > Self.stackLimit { return Self.exhausted }
                stack.append(Entry(kind: .alternative, step: instruction.b, position: position, bound: 0))
                step = Int(instruction.a) - 1
            case .jump:
                step = Int(instruction.a) - 1
            case .look, .atomic:
                let inner = stack.count
                let end = run(input, step: step + 1, position: position)
                if end == Self.exhausted { return end }
                stack.removeLast(stack.count - inner)
                if instruction.operation == .look {
                    matched = (end == Self.failed) == (instruction.b == 1)
                } else {
                    matched = end != Self.failed
                    position = matched ? end : position
                }
                step = Int(instruction.a) - 1
            case .mark:
                let register = Int(instruction.a)
                stack.append(Entry(kind: .register, step: instruction.a, position: registers[register], bound: 0))
                registers[register] = position
            case .breakIfEmpty:
                if registers[Int(instruction.a)] == position { step = Int(instruction.b) - 1 }
            case .accept:
                return position
            case .lineStart:
                matched = position == input.range.lowerBound || text[position - 1].value == 10
            case .lineEnd:
                matched = position == limit || text[position].value == 10
            case .textStart:
                matched = position == input.range.lowerBound
            case .textEnd:
                matched = position == limit
            case .textEndOrNewline:
                matched = position == limit || (position == limit - 1 && text[position].value == 10)
            case .wordBoundary, .notWordBoundary:
                let before = position > input.range.lowerBound && ScalarSet.isWord(text[position - 1])
                let after = position < limit && ScalarSet.isWord(text[position])
                matched = (before != after) == (instruction.operation == .wordBoundary)
            }
            if matched {
                step += 1
                continue
            }
            if steps > budget || stack.count > Self.stackLimit { return Self.exhausted }
            guard let (resumed, at) = backtrack(input, downTo: base) else { return Self.failed }
            (step, position) = (resumed, at)
        }
    }

    /// The latest way not taken above `base`, or nil.
    @inline(__always)
    private mutating func backtrack(_ input: Input, downTo base: Int) -> (step: Int, position: Int)? {
        while stack.count > base {
            let top = stack.count - 1
            let entry = stack[top]
            switch entry.kind {
            case .alternative:
                stack.removeLast()
                return (Int(entry.step), entry.position)
            case .greedy:
                let position = entry.position - 1
                if position > entry.bound { stack[top].position = position } else { stack.removeLast() }
                return (Int(entry.step), position)
            case .lazy:
                guard input.sets[Int(entry.set)].contains(input.text[entry.position]) else {
                    stack.removeLast()
                    continue
                }
                let position = entry.position + 1
                if position < entry.bound { stack[top].position = position } else { stack.removeLast() }
                return (Int(entry.step), position)
            case .register:
                registers[Int(entry.step)] = entry.position
                stack.removeLast()
            }
        }
        return nil
    }
}
