package import FlashInferCore

/// A site's numbers, for an oracle.
package struct OracleSite {
    package var request = 0, head = 0, kvHead = 0, queryIndex = 0, queryPosition = 0, keyPosition = 0, queryLength = 0,
        keyLength = 0

    package init() {}

    func number(_ field: SiteField) -> Int {
        switch field {
        case .request: request
        case .head: head
        case .kvHead: kvHead
        case .queryIndex: queryIndex
        case .queryPosition: queryPosition
        case .keyPosition: keyPosition
        case .queryLength: queryLength
        case .keyLength: keyLength
        }
    }
}

/// Expressions by plain recursion, one site at a time: floating point in float64, whole numbers in 32 bits.
package struct ExprOracle {
    package enum Value: Equatable {
        case float(Double)
        case int(Int32)
        case bool(Bool)

        package var double: Double {
            switch self {
            case .float(let x): x
            case .int(let x): Double(x)
            case .bool(let x): x ? 1 : 0
            }
        }
        package var int: Int32 {
            if case .int(let x) = self { x } else { 0 }
        }
        package var bool: Bool { self == .bool(true) }
    }

    let graph: ExprGraph
    /// Elements of parameters, by name, and how many a row has.
    package var parameters: [String: (elements: [Double], columns: Int)] = [:]
    /// The run's mask.
    package var mask: (OracleSite) -> Bool = { _ in true }

    package init(_ graph: ExprGraph) { self.graph = graph }

    package func callAsFunction(_ site: OracleSite, score: Double = 0) -> Value { value(graph.root, site, score) }

    private func value(_ place: Int, _ site: OracleSite, _ score: Double) -> Value {
        let node = graph.nodes[place]
        func operand(_ index: Int32) -> Value { value(Int(index), site, score) }
        switch node.operation {
        case .constant:
            switch node.type {
            case .float: return .float(Double(node.float))
            case .int: return .int(node.int)
            case .bool: return .bool(node.bool)
            }
        case .score: return .float(score)
        case .site: return .int(Int32(site.number(node.field!)))
        case .load: return load(node, site, node.operands.map { value($0, site, score).int })
        case .select: return operand(node.a).bool ? operand(node.b) : operand(node.c)
        case .and: return .bool(operand(node.a).bool && operand(node.b).bool)
        case .or: return .bool(operand(node.a).bool || operand(node.b).bool)
        case .not: return .bool(!operand(node.a).bool)
        case .toFloat: return .float(Double(operand(node.a).int))
        case .toInt: return .int(ConstantFolding.truncated(Float(operand(node.a).double)))
        case .less: return .bool(operand(node.a).double < operand(node.b).double)
        case .lessEqual: return .bool(operand(node.a).double <= operand(node.b).double)
        case .equal: return .bool(operand(node.a).double == operand(node.b).double)
        default: break
        }
        let (a, b) = (operand(node.a), node.b >= 0 ? operand(node.b) : operand(node.a))
        return node.type == .float
            ? .float(Self.float(node.operation, a.double, b.double)) : .int(Self.int(node.operation, a.int, b.int))
    }

    private func load(_ node: ExprGraph.Node, _ site: OracleSite, _ indices: [Int32]) -> Value {
        let parameter = graph.parameters[Int(node.payload)]
        if indices.isEmpty { return .bool(mask(site)) }
        guard let table = parameters[parameter.name] else { return .float(.nan) }
        let column = min(max(Int(indices[0]), 0), table.columns - 1)
        var row = parameter.extent == .perPosition ? site.request : 0
        if indices.count > 1 { row = min(max(Int(indices[1]), 0), table.elements.count / table.columns - 1) }
        let element = table.elements[row * table.columns + column]
        return parameter.type == .float ? .float(element) : .int(Int32(element))
    }

    private static func float(_ operation: ExprOperation, _ a: Double, _ b: Double) -> Double {
        switch operation {
        case .add: a + b
        case .subtract: a - b
        case .multiply: a * b
        case .divide: a / b
        case .minimum: a < b ? a : b
        case .maximum: a > b ? a : b
        case .negate: -a
        case .absolute: Swift.abs(a)
        case .exp: ElementaryFunctions.exp(a)
        case .exp2: ElementaryFunctions.pow(2, a)
        case .log: ElementaryFunctions.log(a)
        case .log2: ElementaryFunctions.log2(a)
        case .tanh: ElementaryFunctions.tanh(a)
        case .sigmoid: 1 / (1 + ElementaryFunctions.exp(-a))
        case .sqrt: a.squareRoot()
        case .floor: a.rounded(.down)
        case .sin: ElementaryFunctions.sin(a)
        case .cos: ElementaryFunctions.cos(a)
        default: .nan
        }
    }

    private static func int(_ operation: ExprOperation, _ a: Int32, _ b: Int32) -> Int32 {
        let quotient = b == 0 ? 0 : a.dividedReportingOverflow(by: b).partialValue
        return switch operation {
        case .add: a &+ b
        case .subtract: a &- b
        case .multiply: a &* b
        case .divide: quotient
        case .remainder: a &- quotient &* b
        case .minimum: Swift.min(a, b)
        case .maximum: Swift.max(a, b)
        case .negate: 0 &- a
        case .absolute: a < 0 ? 0 &- a : a
        case .bitAnd: a & b
        case .bitOr: a | b
        case .bitXor: a ^ b
        case .shiftLeft: a &<< b
        case .shiftRight: a &>> b
        default: .min
        }
    }
}

extension ExprOracle {
    /// The elements of parameters that a problem may have.
    package mutating func bind(_ values: [String: ParameterValue], _ geometry: BatchGeometry, _ shape: AttentionShape) {
        for parameter in graph.parameters {
            guard let value = values[parameter.name] else { continue }
            let rows = max(parameter.extent.rows(geometry, shape), 1)
            parameters[parameter.name] = (value.elements, value.count / rows)
        }
    }
}

extension ParameterValue {
    /// The elements as float64.
    package var elements: [Double] {
        withBytes { bytes in
            dtype == .float32
                ? bytes.bindMemory(to: Float.self).map { Double($0) }
                : bytes.bindMemory(to: Int32.self).map { Double($0) }
        }
    }
}
