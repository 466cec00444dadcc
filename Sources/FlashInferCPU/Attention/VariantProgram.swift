internal import CFlashInferCPU
internal import FlashInferCore

/// What of a variant no kernel was written for, as programs for the micro-kernels' `evaluate`.
///
/// Each term is computed as rarely as it can be: once for a work item where it depends on neither row nor key, once for each row or
/// for each key where it depends on one of them, and only what depends on both, for each pair. So `ids[q] == ids[k]` is one
/// instruction a pair, and two loads a row and a key.
final class VariantProgram: Sendable {
    /// How often a term is computed.
    enum Rank: Int, Sendable {
        case item = 0, row, key, pair

        /// The rank of what is made of two.
        func joined(_ other: Rank) -> Rank { Rank(rawValue: rawValue | other.rawValue) ?? .pair }
    }

    /// A register and where it is.
    struct Register: Sendable {
        var rank: Rank
        /// Its place among those of its rank; the scores are the pairs' place −1.
        var place: Int
    }

    /// The scores, which the last instruction writes: register 0.
    static let scores = 0
    /// What a row's scores are multiplied by first: register 1.
    static let scale = 1

    let registers: [Register]
    /// The number of registers of each rank; of the pairs' without the scores.
    let counts: [Int]
    let constants: [(register: Int, bits: UInt32)]
    let sites: [(register: Int, field: SiteField)]
    /// What tables are loaded from.
    let parameters: [ParameterDeclaration]
    /// By rank: item, row, key.
    let preparation: [[fi_expr_instruction]]
    /// Of pairs, where some are hidden, and where all are shown.
    let masked: [fi_expr_instruction]
    let shown: [fi_expr_instruction]
    /// Whether a block that shows all its pairs may be computed without the mask.
    let canSkipMask: Bool

    /// The program of a variant.
    ///
    /// - Parameter hasRanges: whether causality and window reach the kernels as ranges of keys; else the program has all of the mask.
    convenience init(_ variant: AttentionVariant, hasRanges: Bool) {
        let form = variant.form
        var builder = ExprBuilder()
        let raw = builder.add(.score, .float, [])
        let head = builder.add(.site, .int, [], payload: SiteField.head.rawValue)
        let score = builder.add(.multiply, .float, [raw, builder.load(Self.scaleParameter, [head])])
        var value = builder.append(variant.scaledLogits, score: score)
        if let weights = form.weights { value = builder.append(weights, score: value) }
        let mask = hasRanges ? form.maskBesidesRanges : variant.mask.expression.graph
        let hidden = builder.append(.constant(form.weights == nil ? -Float.infinity : 0))
        let whole = mask.map { builder.add(.select, .float, [builder.append($0), value, hidden]) } ?? value
        let (graph, places) = builder.graph(of: [value, whole])
        self.init(
            graph, shown: places[0], masked: places[1],
            canSkipMask: hasRanges && (form.mask == .none || form.mask == .causal))
    }

    /// The program of rows' elements, which are then its scores: of outputs, or one number a row; of values, where rows are keys.
    convenience init(rows graph: ExprGraph, areKeys: Bool = false) {
        self.init(graph, shown: graph.root, masked: graph.root, canSkipMask: true, rowsAreKeys: areKeys)
    }

    private init(_ graph: ExprGraph, shown: Int, masked: Int, canSkipMask: Bool, rowsAreKeys: Bool = false) {
        var assembler = VariantAssembler(graph, rowsAreKeys: rowsAreKeys)
        self.shown = assembler.pairs(shown)
        self.masked = assembler.pairs(masked)
        preparation = assembler.preparation
        registers = assembler.registers
        counts = assembler.counts
        constants = assembler.constants
        sites = assembler.sites
        parameters = graph.parameters
        self.canSkipMask = canSkipMask
    }

    /// Stands for the scale of a head's scores.
    static let scaleParameter = ParameterDeclaration(name: "\u{0}scale", extent: .perHead, type: .float)
}

/// A variant's programs; `nil` where kernels do it all.
struct VariantPrograms: Sendable {
    /// What becomes of scores.
    var scores: VariantProgram?
    /// What becomes of the values' elements.
    var values: VariantProgram?
    /// The sink of each row.
    var sink: VariantProgram?
    /// What becomes of the logarithm of each row's sum.
    var normalizer: VariantProgram?
    /// What becomes of the output's elements.
    var output: VariantProgram?

    init() {}

    init(_ variant: AttentionVariant, hasRanges: Bool) {
        let form = variant.form
        if !form.hasFusedScores { scores = VariantProgram(variant, hasRanges: hasRanges) }
        values = form.values.map { VariantProgram(rows: $0, areKeys: true) }
        sink = form.sink.map { VariantProgram(rows: $0) }
        normalizer = form.normalizer.map { VariantProgram(rows: $0) }
        output = form.output.map { VariantProgram(rows: $0) }
    }

    /// The programs' parameters, one program after the other.
    var parameters: [ParameterDeclaration] {
        [scores, values, sink, normalizer, output].flatMap { $0?.parameters ?? [] }
    }

    /// Where the parameters of a program start among all of them.
    func firstParameter(of program: VariantProgram) -> Int {
        var first = 0
        if program === scores { return first }
        first += scores?.parameters.count ?? 0
        if program === values { return first }
        first += values?.parameters.count ?? 0
        if program === sink { return first }
        first += sink?.parameters.count ?? 0
        if program === normalizer { return first }
        return first + (normalizer?.parameters.count ?? 0)
    }
}

/// Turns terms into registers and instructions.
private struct VariantAssembler {
    private let graph: ExprGraph
    private let ranks: [VariantProgram.Rank]
    /// Of pairs' quotients by a constant: its reciprocal's register.
    private var reciprocals: [Int: Int] = [:]
    /// The registers of terms that are not pairs'.
    private var known: [Int: Int] = [:]
    private(set) var registers: [VariantProgram.Register]
    private(set) var counts = [0, 0, 0, 0]
    private(set) var constants: [(register: Int, bits: UInt32)] = []
    private(set) var sites: [(register: Int, field: SiteField)] = []
    private(set) var preparation: [[fi_expr_instruction]] = [[], [], []]

    init(_ graph: ExprGraph, rowsAreKeys: Bool) {
        self.graph = graph
        ranks = Self.ranks(graph, rowsAreKeys: rowsAreKeys)
        registers = [.init(rank: .pair, place: -1), .init(rank: .row, place: 0)]
        counts[VariantProgram.Rank.row.rawValue] = 1
        for (place, node) in graph.nodes.enumerated() where ranks[place] != .pair { prepare(place, node) }
        for (place, node) in graph.nodes.enumerated() where ranks[place] == .pair { prepareReciprocal(place, node) }
    }

    /// Pairs are divided by a constant by its reciprocal: one more rounding, and a tenth of the time.
    private mutating func prepareReciprocal(_ place: Int, _ node: ExprGraph.Node) {
        guard node.operation == .divide, node.type == .float else { return }
        let divisor = graph.nodes[Int(node.b)]
        guard divisor.operation == .constant, (1 / divisor.float).isNormal else { return }
        let register = register(.item)
        constants.append((register, (1 / divisor.float).bitPattern))
        reciprocals[place] = register
    }

    private static func ranks(_ graph: ExprGraph, rowsAreKeys: Bool) -> [VariantProgram.Rank] {
        var ranks: [VariantProgram.Rank] = []
        for node in graph.nodes {
            switch node.operation {
            case .score: ranks.append(.pair)
            case .site: ranks.append(rank(node.field ?? .request, rowsAreKeys: rowsAreKeys))
            case .load where node.operands.isEmpty: ranks.append(.pair)
            default: ranks.append(node.operands.reduce(.item) { $0.joined(ranks[$1]) })
            }
        }
        return ranks
    }

    private static func rank(_ field: SiteField, rowsAreKeys: Bool) -> VariantProgram.Rank {
        switch field {
        case .request, .queryLength, .keyLength: .item
        // Keys are of one head at a time.
        case .kvHead: rowsAreKeys ? .item : .row
        case .head, .queryIndex, .queryPosition: .row
        case .keyPosition: rowsAreKeys ? .row : .key
        }
    }

    private mutating func register(_ rank: VariantProgram.Rank) -> Int {
        registers.append(.init(rank: rank, place: counts[rank.rawValue]))
        counts[rank.rawValue] += 1
        return registers.count - 1
    }

    /// A term that is not a pair's: it keeps its register.
    private mutating func prepare(_ place: Int, _ node: ExprGraph.Node) {
        if node.operation == .load, graph.parameters[Int(node.payload)] == VariantProgram.scaleParameter {
            known[place] = VariantProgram.scale
            return
        }
        let register = register(ranks[place])
        known[place] = register
        switch node.operation {
        case .constant: constants.append((register, node.type == .bool && node.bool ? .max : node.payload))
        case .site: sites.append((register, node.field ?? .request))
        default:
            preparation[ranks[place].rawValue].append(
                instruction(node, to: register, node.operands.map { known[$0] ?? 0 }))
        }
    }

    /// The instructions that leave a term in the scores' register.
    mutating func pairs(_ root: Int) -> [fi_expr_instruction] {
        guard ranks[root] == .pair, graph.nodes[root].operation != .score else {
            let from = known[root] ?? VariantProgram.scores
            return [
                fi_expr_instruction(
                    op: UInt16(FI_EXPR_COPY.rawValue), to: 0, a: UInt16(from), b: 0, c: 0, table: 0)
            ]
        }
        let order = terms(of: root)
        var lastUse: [Int: Int] = [:]
        for place in order { for operand in graph.nodes[place].operands { lastUse[operand] = place } }
        var homes: [Int: Int] = [:]
        var free: [Int] = []
        // Registers of pairs are shared by the programs.
        for (number, register) in registers.enumerated() where register.rank == .pair && register.place >= 0 {
            free.append(number)
        }
        var code: [fi_expr_instruction] = []
        for place in order {
            let node = graph.nodes[place]
            if node.operation == .score {
                homes[place] = VariantProgram.scores
                continue
            }
            let operands = node.operands.map { homes[$0] ?? known[$0] ?? 0 }
            let target = place == root ? VariantProgram.scores : free.popLast() ?? register(.pair)
            var next = instruction(node, to: target, operands)
            if let reciprocal = reciprocals[place] {
                (next.op, next.b) = (UInt16(FI_EXPR_MUL_F.rawValue), UInt16(reciprocal))
            }
            code.append(next)
            homes[place] = target
            for operand in Set(node.operands) where lastUse[operand] == place {
                if let home = homes[operand], home != VariantProgram.scores { free.append(home) }
            }
        }
        return code
    }

    /// The pairs' terms that a term needs, each after its operands.
    private func terms(of root: Int) -> [Int] {
        var needed = Set([root])
        for place in (0...root).reversed() where needed.contains(place) {
            for operand in graph.nodes[place].operands where ranks[operand] == .pair { needed.insert(operand) }
        }
        return needed.sorted()
    }

    private func instruction(_ node: ExprGraph.Node, to target: Int, _ operands: [Int]) -> fi_expr_instruction {
        let type = node.operands.first.map { graph.nodes[$0].type } ?? node.type
        let (a, b, c) = (
            operands.first ?? 0, operands.count > 1 ? operands[1] : 0, operands.count > 2 ? operands[2] : 0
        )
        return fi_expr_instruction(
            op: UInt16(Self.code(node, type).rawValue), to: UInt16(target), a: UInt16(a), b: UInt16(b), c: UInt16(c),
            table: node.operation == .load ? UInt16(node.payload) : 0)
    }

    private static func code(_ node: ExprGraph.Node, _ type: ExprType) -> fi_expr_op {
        let isFloat = type == .float
        switch node.operation {
        case .add: return isFloat ? FI_EXPR_ADD_F : FI_EXPR_ADD_I
        case .subtract: return isFloat ? FI_EXPR_SUB_F : FI_EXPR_SUB_I
        case .multiply: return isFloat ? FI_EXPR_MUL_F : FI_EXPR_MUL_I
        case .divide: return isFloat ? FI_EXPR_DIV_F : FI_EXPR_DIV_I
        case .remainder: return FI_EXPR_REM_I
        case .minimum: return isFloat ? FI_EXPR_MIN_F : FI_EXPR_MIN_I
        case .maximum: return isFloat ? FI_EXPR_MAX_F : FI_EXPR_MAX_I
        case .negate: return isFloat ? FI_EXPR_NEG_F : FI_EXPR_NEG_I
        case .absolute: return isFloat ? FI_EXPR_ABS_F : FI_EXPR_ABS_I
        case .exp: return FI_EXPR_EXP
        case .exp2: return FI_EXPR_EXP2
        case .log: return FI_EXPR_LOG
        case .log2: return FI_EXPR_LOG2
        case .tanh: return FI_EXPR_TANH
        case .sigmoid: return FI_EXPR_SIGMOID
        case .sqrt: return FI_EXPR_SQRT
        case .floor: return FI_EXPR_FLOOR
        case .sin: return FI_EXPR_SIN
        case .cos: return FI_EXPR_COS
        case .less: return isFloat ? FI_EXPR_LT_F : FI_EXPR_LT_I
        case .lessEqual: return isFloat ? FI_EXPR_LE_F : FI_EXPR_LE_I
        case .equal: return isFloat ? FI_EXPR_EQ_F : FI_EXPR_EQ_I
        case .and, .bitAnd: return FI_EXPR_AND
        case .or, .bitOr: return FI_EXPR_OR
        case .bitXor: return FI_EXPR_XOR
        case .not: return FI_EXPR_NOT
        case .shiftLeft: return FI_EXPR_SHL_I
        case .shiftRight: return FI_EXPR_SHR_I
        case .select: return FI_EXPR_SELECT
        case .toFloat: return FI_EXPR_TO_FLOAT
        case .toInt: return FI_EXPR_TO_INT
        case .load: return node.a < 0 ? FI_EXPR_MASK : node.b < 0 ? FI_EXPR_LOAD : FI_EXPR_LOAD2
        case .constant, .score, .site: return FI_EXPR_COPY
        }
    }
}
