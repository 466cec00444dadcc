extension ExprBuilder {
    /// What a term comes to, where that is known or is another term.
    ///
    /// Only what holds for every number, NaN and −0 apart, which no mask or weight depends on: `x · 0` stays for floating-point `x`.
    mutating func simplified(_ operation: ExprOperation, _ type: ExprType, _ operands: [Int]) -> Int? {
        let terms = operands.map { nodes[$0] }
        if !terms.isEmpty, operation != .load, terms.allSatisfy({ $0.operation == .constant }),
            let bits = ConstantFolding.value(operation, terms)
        {
            return constant(type, bits)
        }
        switch operation {
        case .add, .bitOr, .bitXor, .shiftLeft, .shiftRight:
            if isZero(terms[1]) { return operands[0] }
        case .subtract:
            if isZero(terms[1]) { return operands[0] }
            if type == .int, operands[0] == operands[1] { return constant(.int, 0) }
        case .multiply:
            if isOne(terms[1]) { return operands[0] }
            if type == .int, isZero(terms[1]) { return operands[1] }
        case .divide:
            if isOne(terms[1]) { return operands[0] }
        case .bitAnd:
            if isZero(terms[1]) { return operands[1] }
            if operands[0] == operands[1] { return operands[0] }
        case .minimum, .maximum:
            if operands[0] == operands[1] { return operands[0] }
        case .negate:
            if terms[0].operation == .negate { return Int(terms[0].a) }
        case .not: return simplifiedNot(terms[0])
        case .and, .or:
            if operands[0] == operands[1] { return operands[0] }
            // A constant comes second.
            if terms[1].operation == .constant {
                return terms[1].bool == (operation == .and) ? operands[0] : operands[1]
            }
        case .less:
            if operands[0] == operands[1] { return constant(.bool, 0) }
        case .lessEqual, .equal:
            // NaN equals nothing.
            if operands[0] == operands[1], terms[0].type != .float { return constant(.bool, 1) }
        case .select:
            if terms[0].operation == .constant { return operands[terms[0].bool ? 1 : 2] }
            if operands[1] == operands[2] { return operands[1] }
        default: break
        }
        return nil
    }

    private mutating func simplifiedNot(_ term: ExprGraph.Node) -> Int? {
        let operands = term.operands
        switch term.operation {
        case .not: return operands[0]
        // A comparison with NaN and its opposite are both false, so only whole numbers turn round.
        case .less where nodes[operands[0]].type == .int:
            return add(.lessEqual, .bool, [operands[1], operands[0]])
        case .lessEqual where nodes[operands[0]].type == .int: return add(.less, .bool, [operands[1], operands[0]])
        case .and, .or:
            let parts = operands.map { add(.not, .bool, [$0]) }
            return add(term.operation == .and ? .or : .and, .bool, parts)
        default: return nil
        }
    }

    private func isZero(_ node: ExprGraph.Node) -> Bool {
        node.operation == .constant && (node.type == .float ? node.float == 0 : node.payload == 0)
    }

    private func isOne(_ node: ExprGraph.Node) -> Bool {
        node.operation == .constant && (node.type == .float ? node.float == 1 : node.int == 1)
    }
}

/// Terms over constants.
package enum ConstantFolding {
    /// The bits of the result; `nil` where it is none of these operations.
    package static func value(_ operation: ExprOperation, _ terms: [ExprGraph.Node]) -> UInt32? {
        if operation == .select { return terms[terms[0].bool ? 1 : 2].payload }
        switch terms[0].type {
        case .float: return floats(operation, terms.map(\.float))
        case .int: return ints(operation, terms.map(\.int))
        case .bool: return bools(operation, terms.map(\.bool))
        }
    }

    private static func floats(_ operation: ExprOperation, _ x: [Float]) -> UInt32? {
        func double(_ function: (Double) -> Double) -> UInt32 { Float(function(Double(x[0]))).bitPattern }
        switch operation {
        case .add: return (x[0] + x[1]).bitPattern
        case .subtract: return (x[0] - x[1]).bitPattern
        case .multiply: return (x[0] * x[1]).bitPattern
        case .divide: return (x[0] / x[1]).bitPattern
        case .minimum: return (x[0] < x[1] ? x[0] : x[1]).bitPattern
        case .maximum: return (x[0] > x[1] ? x[0] : x[1]).bitPattern
        case .negate: return (-x[0]).bitPattern
        case .absolute: return Swift.abs(x[0]).bitPattern
        case .exp: return double(ElementaryFunctions.exp)
        case .exp2: return double { ElementaryFunctions.pow(2, $0) }
        case .log: return double(ElementaryFunctions.log)
        case .log2: return double(ElementaryFunctions.log2)
        case .tanh: return double(ElementaryFunctions.tanh)
        case .sigmoid: return double { 1 / (1 + ElementaryFunctions.exp(-$0)) }
        case .sqrt: return x[0].squareRoot().bitPattern
        case .floor: return x[0].rounded(.down).bitPattern
        case .sin: return double(ElementaryFunctions.sin)
        case .cos: return double(ElementaryFunctions.cos)
        case .less: return x[0] < x[1] ? 1 : 0
        case .lessEqual: return x[0] <= x[1] ? 1 : 0
        case .equal: return x[0] == x[1] ? 1 : 0
        case .toInt: return UInt32(bitPattern: truncated(x[0]))
        default: return nil
        }
    }

    /// Towards zero; numbers that do not fit become the nearest that does, and NaN zero.
    package static func truncated(_ x: Float) -> Int32 {
        if x.isNaN { return 0 }
        return x >= 0x1p31 ? .max : x <= -0x1p31 ? .min : Int32(x)
    }

    private static func ints(_ operation: ExprOperation, _ x: [Int32]) -> UInt32? {
        if operation == .toFloat { return Float(x[0]).bitPattern }
        func word(_ value: Int32) -> UInt32 { UInt32(bitPattern: value) }
        switch operation {
        case .add: return word(x[0] &+ x[1])
        case .subtract: return word(x[0] &- x[1])
        case .multiply: return word(x[0] &* x[1])
        case .divide: return word(quotient(x[0], x[1]))
        case .remainder: return word(x[0] &- quotient(x[0], x[1]) &* x[1])
        case .minimum: return word(Swift.min(x[0], x[1]))
        case .maximum: return word(Swift.max(x[0], x[1]))
        case .negate: return word(0 &- x[0])
        case .absolute: return word(x[0] < 0 ? 0 &- x[0] : x[0])
        case .less: return x[0] < x[1] ? 1 : 0
        case .lessEqual: return x[0] <= x[1] ? 1 : 0
        case .equal: return x[0] == x[1] ? 1 : 0
        case .bitAnd: return word(x[0] & x[1])
        case .bitOr: return word(x[0] | x[1])
        case .bitXor: return word(x[0] ^ x[1])
        case .shiftLeft: return word(x[0] &<< x[1])
        case .shiftRight: return word(x[0] &>> x[1])
        default: return nil
        }
    }

    /// Towards zero; 0 where the divisor is 0.
    package static func quotient(_ x: Int32, _ y: Int32) -> Int32 {
        y == 0 ? 0 : x.dividedReportingOverflow(by: y).partialValue
    }

    private static func bools(_ operation: ExprOperation, _ x: [Bool]) -> UInt32? {
        switch operation {
        case .and: return x[0] && x[1] ? 1 : 0
        case .or: return x[0] || x[1] ? 1 : 0
        case .not: return x[0] ? 0 : 1
        case .equal: return x[0] == x[1] ? 1 : 0
        default: return nil
        }
    }
}
