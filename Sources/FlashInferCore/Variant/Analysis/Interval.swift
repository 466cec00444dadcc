/// All that is known of a term's values over a block: they lie in `low ... high`.
///
/// Whole numbers and truths are exact in Float64; truths are 0 or 1.
struct Interval: BitwiseCopyable {
    var low: Double
    var high: Double
    /// Whether a floating-point value may be NaN.
    var mayBeNaN = false
    /// Whether a whole number, or one that it was made of, may have wrapped.
    var mayWrap = false

    init(_ low: Double, _ high: Double, mayBeNaN: Bool = false, mayWrap: Bool = false) {
        (self.low, self.high, self.mayBeNaN, self.mayWrap) = (low, high, mayBeNaN, mayWrap)
    }

    /// One value.
    init(_ value: Double) { self.init(value, value) }

    /// Nothing is known.
    static func unknown(_ type: ExprType) -> Interval {
        switch type {
        case .float: Interval(-.infinity, .infinity, mayBeNaN: true)
        case .int: Interval(Double(Int32.min), Double(Int32.max), mayWrap: true)
        case .bool: Interval(0, 1)
        }
    }

    var isPoint: Bool { low == high && !mayBeNaN }
    var isTrue: Bool { low == 1 }
    var isFalse: Bool { high == 0 }

    /// What may be this or the other.
    func joined(_ other: Interval) -> Interval {
        Interval(
            Swift.min(low, other.low), Swift.max(high, other.high), mayBeNaN: mayBeNaN || other.mayBeNaN,
            mayWrap: mayWrap || other.mayWrap)
    }

    /// A whole number that these operands gave; all of them where it may not fit.
    func whole(_ operands: Interval...) -> Interval {
        if low < Double(Int32.min) || high > Double(Int32.max) || low.isNaN || high.isNaN { return .unknown(.int) }
        return Interval(low, high, mayWrap: operands.contains { $0.mayWrap })
    }

    /// A floating-point number computed by any backend: a little wider than the exact one, and infinite where float32 is.
    func rounded(_ operands: Interval...) -> Interval {
        if low.isNaN || high.isNaN || operands.contains(where: { $0.mayBeNaN }) { return .unknown(.float) }
        func margin(_ x: Double) -> Double { Swift.abs(x) * 1e-5 + 1e-36 }
        let limit = Double(Float.greatestFiniteMagnitude) * 0.999
        var (low, high) = (low - margin(low), high + margin(high))
        if high > limit { high = .infinity }
        if low < -limit { low = -.infinity }
        low = Swift.min(low, limit)
        high = Swift.max(high, -limit)
        // An infinity that meets another, or a zero, is NaN.
        return Interval(low, high, mayBeNaN: operands.contains { $0.low.isInfinite || $0.high.isInfinite })
    }

    /// The hull of a function's values at the corners.
    static func corners(_ a: Interval, _ b: Interval, _ function: (Double, Double) -> Double) -> Interval {
        let values = (
            function(a.low, b.low), function(a.low, b.high), function(a.high, b.low), function(a.high, b.high)
        )
        return Interval(
            Swift.min(Swift.min(values.0, values.1), Swift.min(values.2, values.3)),
            Swift.max(Swift.max(values.0, values.1), Swift.max(values.2, values.3)))
    }
}
