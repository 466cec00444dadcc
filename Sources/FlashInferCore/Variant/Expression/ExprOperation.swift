/// The type of an expression's value.
package enum ExprType: UInt8, Sendable, Hashable {
    case float, int, bool
}

/// What a node of an expression computes.
package enum ExprOperation: String, Sendable, Hashable, CaseIterable {
    /// A number: the node's payload is its bits.
    case constant = "const"
    /// The score that a hook is given.
    case score
    /// A number of the site: the payload is a ``SiteField``.
    case site
    /// An element of a parameter, whose number is the payload: operand `a` is the (last) index, `b` the one before, if any.
    case load

    case add, subtract = "sub", multiply = "mul", divide = "div", remainder = "rem"
    case minimum = "min", maximum = "max"
    case negate = "neg", absolute = "abs"
    case exp, exp2, log, log2, tanh, sigmoid, sqrt, floor, sin, cos
    case less = "lt", lessEqual = "le", equal = "eq"
    case and, or, not
    case bitAnd = "bitand", bitOr = "bitor", bitXor = "bitxor", shiftLeft = "shl", shiftRight = "shr"
    case select
    case toFloat = "float", toInt = "int"

    /// Whether the operands may change places.
    var isCommutative: Bool {
        switch self {
        case .add, .multiply, .minimum, .maximum, .equal, .and, .or, .bitAnd, .bitOr, .bitXor: true
        default: false
        }
    }

    /// How many operands it has; a load has one or two.
    package var operandCount: Int {
        switch self {
        case .constant, .score, .site: 0
        case .load, .negate, .absolute, .exp, .exp2, .log, .log2, .tanh, .sigmoid, .sqrt, .floor, .sin, .cos, .not,
            .toFloat, .toInt:
            1
        case .select: 3
        default: 2
        }
    }
}

/// A number that says where in attention an expression is evaluated.
package enum SiteField: UInt32, Sendable, Hashable, CaseIterable {
    case request, head, kvHead, queryIndex, queryPosition, keyPosition, queryLength, keyLength

    /// As it is written in texts and in JSON.
    package var name: String {
        switch self {
        case .request: "request"
        case .head: "head"
        case .kvHead: "kvHead"
        case .queryIndex: "queryIndex"
        case .queryPosition: "queryPosition"
        case .keyPosition: "keyPosition"
        case .queryLength: "queryLength"
        case .keyLength: "keyLength"
        }
    }
}
