/// The 8-bit float of OCP's "OFP8 E4M3": 1 sign, 4 exponent (bias 7), 3 mantissa bits; no infinity; NaN is `S.1111.111`.
@frozen
public struct Float8E4M3: Sendable, BitwiseCopyable {
    /// The 8 bits as stored.
    public var bitPattern: UInt8

    /// The number with these bits.
    @inlinable
    public init(bitPattern: UInt8) { self.bitPattern = bitPattern }

    /// The largest finite number, 448.
    public static var greatestFiniteMagnitude: Float { 448 }

    /// The nearest number to `value`, ties to even. What rounds past ±448 becomes NaN, as the format has no infinity.
    public init(_ value: Float) {
        bitPattern = roundToFloat8(value, exponentBits: 4, mantissaBits: 3, infinity: 0x7F)
    }

    /// As `init(_:)`, but what is past ±448, infinities included, becomes ±448. NaN stays NaN.
    public init(saturating value: Float) {
        self.init(value.isNaN ? value : min(max(value, -448), 448))
    }
}

/// The 8-bit float of OCP's "OFP8 E5M2": 1 sign, 5 exponent (bias 15), 2 mantissa bits, with infinities and NaNs as in IEEE 754.
@frozen
public struct Float8E5M2: Sendable, BitwiseCopyable {
    /// The 8 bits as stored.
    public var bitPattern: UInt8

    /// The number with these bits.
    @inlinable
    public init(bitPattern: UInt8) { self.bitPattern = bitPattern }

    /// The largest finite number, 57,344.
    public static var greatestFiniteMagnitude: Float { 57_344 }

    /// The nearest number to `value`, ties to even. What rounds past ±57,344 becomes an infinity.
    public init(_ value: Float) {
        bitPattern = roundToFloat8(value, exponentBits: 5, mantissaBits: 2, infinity: 0x7C)
    }

    /// As `init(_:)`, but what is past ±57,344, infinities included, becomes ±57,344. NaN stays NaN.
    public init(saturating value: Float) {
        self.init(value.isNaN ? value : min(max(value, -57_344), 57_344))
    }
}

/// Rounds to a float of `1 + exponentBits + mantissaBits` = 8 bits, to nearest, ties to even.
///
/// `infinity` is the pattern of what is too large: an infinity, or for E4M3 its only NaN. Every pattern below it is finite.
private func roundToFloat8(_ value: Float, exponentBits: Int, mantissaBits: Int, infinity: UInt8) -> UInt8 {
    let sign: UInt8 = value.sign == .minus ? 0x80 : 0
    if value.isNaN { return sign | 0x7F }
    let magnitude = value.magnitude
    if magnitude.isInfinite { return sign | infinity }
    if magnitude == 0 { return sign }
    let bias = (1 << (exponentBits - 1)) - 1
    // The unit in the last place at this magnitude; below the least normal number it stays that number's.
    let exponent = max(Int(magnitude.exponent), 1 - bias)
    let units = (Double(magnitude) * exp2(mantissaBits - exponent)).rounded(.toNearestOrEven)
    // `units` counts from the binade's start minus the implicit bit, so a carry into the next binade falls out of the sum.
    let pattern = Int(units) + ((exponent + bias - 1) << mantissaBits)
    return sign | (pattern >= Int(infinity) ? infinity : UInt8(pattern))
}

/// 2 to an integer power within binary64's range.
private func exp2(_ exponent: Int) -> Double { Double(sign: .plus, exponent: exponent, significand: 1) }

extension Float {
    /// The same number; every `Float8E4M3` is a `Float`.
    public init(_ value: Float8E4M3) {
        self = decodeFloat8(value.bitPattern, exponentBits: 4, mantissaBits: 3, hasInfinity: false)
    }

    /// The same number; every `Float8E5M2` is a `Float`.
    public init(_ value: Float8E5M2) {
        self = decodeFloat8(value.bitPattern, exponentBits: 5, mantissaBits: 2, hasInfinity: true)
    }
}

private func decodeFloat8(_ pattern: UInt8, exponentBits: Int, mantissaBits: Int, hasInfinity: Bool) -> Float {
    let bias = (1 << (exponentBits - 1)) - 1
    let magnitude = Int(pattern & 0x7F)
    let exponent = magnitude >> mantissaBits
    let mantissa = magnitude & ((1 << mantissaBits) - 1)
    let isNegative = pattern & 0x80 != 0
    if hasInfinity, exponent == (1 << exponentBits) - 1 {
        return mantissa == 0 ? (isNegative ? -.infinity : .infinity) : .nan
    }
    if !hasInfinity, magnitude == 0x7F { return .nan }
    let scale = Float(sign: .plus, exponent: max(exponent, 1) - bias - mantissaBits, significand: 1)
    let units = exponent == 0 ? mantissa : mantissa + (1 << mantissaBits)
    return (isNegative ? -1 : 1) * Float(units) * scale
}

extension Float8E4M3: Equatable {
    /// IEEE equality: NaN differs from itself, zeros of both signs are equal.
    public static func == (left: Self, right: Self) -> Bool { Float(left) == Float(right) }
}

extension Float8E5M2: Equatable {
    /// IEEE equality: NaN differs from itself, zeros of both signs are equal.
    public static func == (left: Self, right: Self) -> Bool { Float(left) == Float(right) }
}

extension Float8E4M3: CustomStringConvertible {
    /// The text shown to people.
    public var description: String { Float(self).description }
}

extension Float8E5M2: CustomStringConvertible {
    /// The text shown to people.
    public var description: String { Float(self).description }
}
