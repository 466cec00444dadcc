/// A whole number that is a sum of multiples of the site's numbers and a constant.
package struct Affine: Sendable, Hashable {
    /// By ``SiteField``'s raw value.
    package var coefficients: SIMD8<Int>
    package var constant: Int

    /// A constant.
    init(_ constant: Int) {
        coefficients = .zero
        self.constant = constant
    }

    /// A number of the site.
    init(_ field: SiteField) {
        self.init(0)
        coefficients[Int(field.rawValue)] = 1
    }

    /// The multiple of a number of the site.
    package subscript(_ field: SiteField) -> Int { coefficients[Int(field.rawValue)] }

    /// Whether it is its constant.
    var isConstant: Bool { coefficients == .zero }

    /// Coefficients beyond this are of no use and might overflow.
    private static let limit = 1 << 40

    private var checked: Affine? {
        let largest = (0..<8).reduce(Swift.abs(constant)) { Swift.max($0, Swift.abs(coefficients[$1])) }
        return largest < Self.limit ? self : nil
    }

    package func adding(_ other: Affine, times factor: Int) -> Affine? {
        var sum = self
        sum.coefficients &+= other.coefficients &* factor
        sum.constant += other.constant * factor
        return sum.checked
    }

    func multiplied(by factor: Int) -> Affine? {
        if Swift.abs(factor) >= 1 << 20 { return nil }
        return Affine(0).adding(self, times: factor)
    }

    /// The terms of a graph that are such sums, as long as nothing overflows 32 bits.
    package static func forms(of graph: ExprGraph) -> [Affine?] {
        var forms: [Affine?] = []
        forms.reserveCapacity(graph.nodes.count)
        for node in graph.nodes {
            forms.append(node.type == .int ? form(node, forms) : nil)
        }
        return forms
    }

    private static func form(_ node: ExprGraph.Node, _ forms: [Affine?]) -> Affine? {
        switch node.operation {
        case .constant: return Affine(Int(node.int))
        case .site: return node.field.map { Affine($0) }
        case .load: return nil
        default: break
        }
        let operands = node.operands.map { forms[$0] }
        guard let first = operands.first, let left = first else { return nil }
        if node.operation == .negate { return left.multiplied(by: -1) }
        guard operands.count == 2, let right = operands[1] else { return nil }
        switch node.operation {
        case .add: return left.adding(right, times: 1)
        case .subtract: return left.adding(right, times: -1)
        case .multiply:
            if right.isConstant { return left.multiplied(by: right.constant) }
            return left.isConstant ? right.multiplied(by: left.constant) : nil
        default: return nil
        }
    }
}
