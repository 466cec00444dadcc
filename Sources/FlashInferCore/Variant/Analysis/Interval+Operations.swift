extension Interval {
    /// A term over whole numbers.
    static func int(_ operation: ExprOperation, _ a: Interval, _ b: Interval) -> Interval {
        switch operation {
        case .add: return Interval(a.low + b.low, a.high + b.high).whole(a, b)
        case .subtract: return Interval(a.low - b.high, a.high - b.low).whole(a, b)
        case .multiply: return corners(a, b, *).whole(a, b)
        case .divide:
            guard b.low > 0 || b.high < 0 else { return .unknown(.int) }
            return corners(a, b) { ($0 / $1).rounded(.towardZero) }.whole(a, b)
        case .remainder: return remainder(a, b)
        case .minimum: return Interval(Swift.min(a.low, b.low), Swift.min(a.high, b.high)).whole(a, b)
        case .maximum: return Interval(Swift.max(a.low, b.low), Swift.max(a.high, b.high)).whole(a, b)
        case .negate: return Interval(-a.high, -a.low).whole(a)
        case .absolute:
            let (x, y) = (Swift.abs(a.low), Swift.abs(a.high))
            return Interval(a.low <= 0 && a.high >= 0 ? 0 : Swift.min(x, y), Swift.max(x, y)).whole(a)
        case .bitAnd, .bitOr, .bitXor, .shiftLeft, .shiftRight: return bits(operation, a, b)
        default: return .unknown(.int)
        }
    }

    private static func remainder(_ a: Interval, _ b: Interval) -> Interval {
        guard b.low > 0 else { return .unknown(.int) }
        if a.low > -b.low, a.high < b.low { return Interval(a.low, a.high).whole(a, b) }
        if b.isPoint, (a.low / b.low).rounded(.towardZero) == (a.high / b.low).rounded(.towardZero),
            a.low >= 0 || a.high <= 0
        {
            func rest(_ x: Double) -> Double { x - (x / b.low).rounded(.towardZero) * b.low }
            return Interval(rest(a.low), rest(a.high)).whole(a, b)
        }
        let low = a.low < 0 ? Swift.max(a.low, 1 - b.high) : 0
        let high = a.high > 0 ? Swift.min(a.high, b.high - 1) : 0
        return Interval(low, high).whole(a, b)
    }

    private static func bits(_ operation: ExprOperation, _ a: Interval, _ b: Interval) -> Interval {
        if a.isPoint, b.isPoint {
            let terms = [a, b].map { ExprGraph.Node(.constant, .int, payload: UInt32(bitPattern: Int32($0.low))) }
            if let bits = ConstantFolding.value(operation, terms) {
                return Interval(Double(Int32(bitPattern: bits))).whole(a, b)
            }
        }
        switch operation {
        case .bitAnd where a.low >= 0 || b.low >= 0:
            return Interval(0, Swift.min(a.low >= 0 ? a.high : .infinity, b.low >= 0 ? b.high : .infinity)).whole(a, b)
        case .bitOr where a.low >= 0 && b.low >= 0, .bitXor where a.low >= 0 && b.low >= 0:
            var bound = 1.0
            while bound <= Swift.max(a.high, b.high) { bound *= 2 }
            return Interval(0, bound - 1).whole(a, b)
        case .shiftLeft where b.isPoint:
            let factor = Double(1 << (Int(b.low) & 31))
            return Interval(a.low * factor, a.high * factor).whole(a, b)
        case .shiftRight where b.isPoint:
            let factor = Double(1 << (Int(b.low) & 31))
            return Interval((a.low / factor).rounded(.down), (a.high / factor).rounded(.down)).whole(a, b)
        case .shiftRight where a.low >= 0: return Interval(0, a.high).whole(a, b)
        default: return .unknown(.int)
        }
    }

    /// A term over floating-point numbers.
    static func float(_ operation: ExprOperation, _ a: Interval, _ b: Interval) -> Interval {
        func rising(_ function: (Double) -> Double) -> Interval {
            Interval(function(a.low), function(a.high)).rounded(a)
        }
        switch operation {
        case .add: return Interval(a.low + b.low, a.high + b.high).rounded(a, b)
        case .subtract: return Interval(a.low - b.high, a.high - b.low).rounded(a, b)
        case .multiply: return corners(a, b, *).rounded(a, b)
        case .divide:
            guard b.low > 0 || b.high < 0 else { return .unknown(.float) }
            return corners(a, b, /).rounded(a, b)
        case .minimum, .maximum:
            if a.mayBeNaN || b.mayBeNaN { return .unknown(.float) }
            return operation == .minimum
                ? Interval(Swift.min(a.low, b.low), Swift.min(a.high, b.high))
                : Interval(Swift.max(a.low, b.low), Swift.max(a.high, b.high))
        case .negate: return Interval(-a.high, -a.low, mayBeNaN: a.mayBeNaN)
        case .absolute:
            let (x, y) = (Swift.abs(a.low), Swift.abs(a.high))
            return Interval(
                a.low <= 0 && a.high >= 0 ? 0 : Swift.min(x, y), Swift.max(x, y), mayBeNaN: a.mayBeNaN)
        case .exp: return rising(ElementaryFunctions.exp)
        case .exp2: return rising { ElementaryFunctions.pow(2, $0) }
        case .log where a.low >= 0: return rising(ElementaryFunctions.log)
        case .log2 where a.low >= 0: return rising(ElementaryFunctions.log2)
        case .sqrt where a.low >= 0: return rising { $0.squareRoot() }
        case .tanh: return rising(ElementaryFunctions.tanh)
        case .sigmoid: return rising { 1 / (1 + ElementaryFunctions.exp(-$0)) }
        case .floor: return Interval(a.low.rounded(.down), a.high.rounded(.down), mayBeNaN: a.mayBeNaN)
        case .sin, .cos: return Interval(-1, 1).rounded(a)
        default: return .unknown(.float)
        }
    }

    /// A comparison of what two terms may be.
    static func comparison(_ operation: ExprOperation, _ a: Interval, _ b: Interval) -> Interval {
        let (always, never): (Bool, Bool)
        switch operation {
        case .less: (always, never) = (a.high < b.low, a.low >= b.high)
        case .lessEqual: (always, never) = (a.high <= b.low, a.low > b.high)
        default: (always, never) = (a.low == b.high && a.high == b.low, a.high < b.low || b.high < a.low)
        }
        // A comparison with NaN does not hold.
        return Interval(always && !a.mayBeNaN && !b.mayBeNaN ? 1 : 0, never ? 0 : 1)
    }

    /// What a difference says of a comparison: right − left, of which all values between the ends may be taken.
    static func comparison(_ operation: ExprOperation, difference: Interval) -> Interval {
        switch operation {
        case .less: Interval(difference.low > 0 ? 1 : 0, difference.high > 0 ? 1 : 0)
        case .lessEqual: Interval(difference.low >= 0 ? 1 : 0, difference.high >= 0 ? 1 : 0)
        default:
            Interval(
                difference.low == 0 && difference.high == 0 ? 1 : 0, difference.low <= 0 && difference.high >= 0 ? 1 : 0
            )
        }
    }
}
