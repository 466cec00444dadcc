extension ExprGraph: CustomStringConvertible {
    /// As text: infix, one line for each term that is used more than once, the result last.
    ///
    /// ```
    /// t0 = queryPosition - keyPosition
    /// (t0 >= 0) && (t0 <= 4095)
    /// ```
    package var description: String {
        var uses = [Int](repeating: 0, count: nodes.count)
        for node in nodes { for operand in node.operands { uses[operand] += 1 } }
        var lines: [String] = []
        var texts: [String] = []
        var needsBrackets: [Bool] = []
        var count = 0
        for (place, node) in nodes.enumerated() {
            // Arguments and indices have brackets already.
            let bare =
                node.operation == .load || (!isInfix(node) && node.operation != .negate && node.operation != .not)
            let operands = node.operands.map { !bare && needsBrackets[$0] ? "(\(texts[$0]))" : texts[$0] }
            var text = self.text(node, operands)
            if uses[place] > 1, !node.operands.isEmpty {
                lines.append("t\(count) = \(text)")
                text = "t\(count)"
                count += 1
            }
            texts.append(text)
            needsBrackets.append(isInfix(node) && !(uses[place] > 1))
        }
        lines.append(texts[root])
        return lines.joined(separator: "\n")
    }

    private func isInfix(_ node: Node) -> Bool { Self.symbols[node.operation] != nil }

    private static let symbols: [ExprOperation: String] = [
        .add: "+", .subtract: "-", .multiply: "*", .divide: "/", .remainder: "%", .less: "<", .lessEqual: "<=",
        .equal: "==", .and: "&&", .or: "||", .bitAnd: "&", .bitOr: "|", .bitXor: "^", .shiftLeft: "<<",
        .shiftRight: ">>",
    ]

    private func text(_ node: Node, _ operands: [String]) -> String {
        if let symbol = Self.symbols[node.operation] { return "\(operands[0]) \(symbol) \(operands[1])" }
        switch node.operation {
        case .constant:
            switch node.type {
            // Swift's shortest text that reads back as the same number.
            case .float: return "\(node.float)"
            case .int: return "\(node.int)"
            case .bool: return "\(node.bool)"
            }
        case .score: return "score"
        case .site: return node.field?.name ?? "?"
        case .load:
            let parameter = parameters[Int(node.payload)]
            // The last index comes first among the operands.
            return operands.isEmpty
                ? parameter.name : "\(parameter.name)[\(operands.reversed().joined(separator: ", "))]"
        case .negate: return "-\(operands[0])"
        case .not: return "!\(operands[0])"
        default: return "\(node.operation.rawValue)(\(operands.joined(separator: ", ")))"
        }
    }
}
