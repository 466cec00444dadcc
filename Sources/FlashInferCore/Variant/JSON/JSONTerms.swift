/// Reads the terms of a hook from JSON, checking types as the Swift compiler does for Swift.
struct JSONTerms {
    private let variant: String
    private let hook: String
    private let parameters: [String: ParameterDeclaration]
    private var builder = ExprBuilder()
    private var types: [Int: ExprType] = [:]
    /// What `ref` stands for.
    private var shared: [Int] = []
    private var termCount = 0

    init(variant: String, hook: String, parameters: [String: ParameterDeclaration]) {
        (self.variant, self.hook, self.parameters) = (variant, hook, parameters)
    }

    /// The graph of a term of a type.
    mutating func graph(_ value: JSONValue, _ type: ExprType) throws(FlashInferError) -> ExprGraph {
        let root = try term(value)
        guard builder.nodes[root].type == type else {
            throw error(value, "a \(builder.nodes[root].type)", "a \(type)")
        }
        return builder.graph(of: root)
    }

    /// The declarations of a variant's parameters.
    static func parameters(
        _ value: JSONValue?, _ variant: String
    ) throws(FlashInferError) -> [String: ParameterDeclaration] {
        guard let value else { return [:] }
        func error(_ name: String, _ found: JSONValue, _ expected: String) -> FlashInferError {
            .invalidArgument("variant '\(variant)': parameter '\(name)'", found: found.text, expected: expected)
        }
        guard case .object(let members) = value else { throw error("", value, "an object of parameters") }
        var result: [String: ParameterDeclaration] = [:]
        for member in members {
            let (name, value) = (member.key, member.value)
            guard case .array(let parts) = value, parts.count >= 2, case .string(let typeName) = parts[0],
                case .string(let extentName) = parts[1],
                let type = ParameterDeclaration.Element(rawValue: typeName), type != .bool
            else { throw error(name, value, "[\"float\" or \"int\", extent] or [type, extent, count]") }
            var count = 0
            if parts.count > 2 {
                guard case .number(let number, _) = parts[2], let whole = Int(exactly: number), whole > 0,
                    whole <= Int(Int32.max)
                else { throw error(name, parts[2], "a positive count") }
                count = whole
            }
            let extents: [String: ParameterExtent] = [
                "scalar": .scalar, "perHead": .perHead, "perRequest": .perRequest, "perPosition": .perPosition,
                "table": .table(count: count), "perHeadTable": .perHeadTable(count: count),
            ]
            guard let extent = extents[extentName] else {
                throw error(name, parts[1], "one of \(extents.keys.sorted().joined(separator: ", "))")
            }
            result[name] = ParameterDeclaration(name: name, extent: extent, type: type)
        }
        return result
    }

    private mutating func term(_ value: JSONValue) throws(FlashInferError) -> Int {
        termCount += 1
        guard termCount <= 4 * AttentionVariant.maximumTerms else {
            throw error(value, "too many terms", "\(AttentionVariant.maximumTerms) at most")
        }
        switch value {
        case .number(let number, let isWhole):
            if isWhole {
                guard let whole = Int32(exactly: number) else { throw error(value, "too large", "32 bits") }
                return builder.append(.constant(whole))
            }
            return builder.append(.constant(Float(number)))
        case .bool(let truth): return builder.append(.constant(truth))
        case .string(let name): return try named(name, value)
        case .array(let parts):
            guard case .string(let name)? = parts.first else { throw error(value, "no operation", "[operation, …]") }
            return try operation(name, Array(parts.dropFirst()), value)
        default: throw error(value, value.kind, "a term")
        }
    }

    private mutating func named(_ name: String, _ value: JSONValue) throws(FlashInferError) -> Int {
        if name == "score" { return builder.add(.score, .float, []) }
        if name == "inf" { return builder.append(.constant(Float.infinity)) }
        if name == "-inf" { return builder.append(.constant(-Float.infinity)) }
        if name == "maskBytes" { return builder.load(.maskBytes, []) }
        if name == "maskBits" { return builder.load(.maskBits, []) }
        guard let field = SiteField.allCases.first(where: { $0.name == name }) else {
            throw error(value, "no such name", "score, \(SiteField.allCases.map(\.name).joined(separator: ", "))")
        }
        return builder.add(.site, .int, [], payload: field.rawValue)
    }

    private mutating func operation(
        _ name: String, _ parts: [JSONValue], _ value: JSONValue
    ) throws(FlashInferError) -> Int {
        if name == "let", parts.count == 2, case .array(let terms) = parts[0] {
            for part in terms { shared.append(try term(part)) }
            return try term(parts[1])
        }
        if name == "ref", parts.count == 1, case .number(let number, true) = parts[0], let index = Int(exactly: number),
            shared.indices.contains(index)
        {
            return shared[index]
        }
        if name == "load", case .string(let parameter)? = parts.first {
            return try load(parameter, Array(parts.dropFirst()), value)
        }
        guard let operation = ExprOperation(rawValue: name), ![.constant, .score, .site, .load].contains(operation)
        else { throw error(value, "operation \"\(name)\"", "one that there is") }
        guard parts.count == operation.operandCount else {
            throw error(value, "\(parts.count) operands", "\(operation.operandCount)")
        }
        var operands: [Int] = []
        for part in parts { operands.append(try term(part)) }
        let types = operands.map { builder.nodes[$0].type }
        guard let type = Self.type(of: operation, types) else {
            throw error(
                value, "operands of types \(types.map { "\($0)" }.joined(separator: ", "))", "types that \(name) takes")
        }
        return builder.add(operation, type, operands)
    }

    private mutating func load(
        _ name: String, _ parts: [JSONValue], _ value: JSONValue
    ) throws(FlashInferError) -> Int {
        var known = parameters
        known["alibiSlopes"] = known["alibiSlopes"] ?? .alibiSlopes
        guard let parameter = known[name] else { throw error(value, "no parameter '\(name)'", "one that is declared") }
        var indices: [Int] = []
        for part in parts {
            let index = try term(part)
            guard builder.nodes[index].type == .int else { throw error(part, "\(builder.nodes[index].type)", "an int") }
            indices.append(index)
        }
        if parameter.extent == .scalar, indices.isEmpty { indices = [builder.append(.constant(Int32(0)))] }
        guard indices.count == parameter.extent.indexCount else {
            throw error(value, "\(indices.count) indices", "\(parameter.extent.indexCount)")
        }
        return builder.load(parameter, indices.reversed())
    }

    /// The type of a term over operands of these types; `nil` where it does not take them.
    static func type(of operation: ExprOperation, _ types: [ExprType]) -> ExprType? {
        func all(_ type: ExprType) -> Bool { types.allSatisfy { $0 == type } }
        let isOne = types.dropFirst().allSatisfy { $0 == types[0] }
        switch operation {
        case .add, .subtract, .multiply, .divide, .minimum, .maximum, .negate, .absolute:
            return isOne && types[0] != .bool ? types[0] : nil
        case .remainder, .bitAnd, .bitOr, .bitXor, .shiftLeft, .shiftRight: return all(.int) ? .int : nil
        case .exp, .exp2, .log, .log2, .tanh, .sigmoid, .sqrt, .floor, .sin, .cos: return all(.float) ? .float : nil
        case .less, .lessEqual, .equal: return isOne && types[0] != .bool ? .bool : nil
        case .and, .or, .not: return all(.bool) ? .bool : nil
        case .select: return types[0] == .bool && types[1] == types[2] ? types[1] : nil
        case .toFloat: return all(.int) ? .float : nil
        case .toInt: return all(.float) ? .int : nil
        case .constant, .score, .site, .load: return nil
        }
    }

    private func error(_ term: JSONValue, _ found: String, _ expected: String) -> FlashInferError {
        .invalidArgument("variant '\(variant)': \(hook), term \(term.text)", found: found, expected: expected)
    }
}
