/// Conversions between float32 and the 16-bit types by integer arithmetic, which compilers vectorise on every processor.
package enum HalfPrecision {
    /// The value of an IEEE binary16.
    @inline(__always)
    package static func float(halfBits bits: UInt16) -> Float {
        let wide = UInt32(bits)
        // As a float32 with a small exponent, which one multiplication puts right, subnormal numbers included.
        let magnitude = Float(bitPattern: (wide & 0x7FFF) << 13) * 0x1p112
        let special = wide & 0x7C00 == 0x7C00 ? 0x7F80_0000 as UInt32 : 0
        return Float(bitPattern: magnitude.bitPattern | special | (wide & 0x8000) << 16)
    }

    /// The nearest IEEE binary16, ties to even; NaN stays NaN, and what rounds past 65,504 becomes infinite.
    @inline(__always)
    package static func halfBits(_ value: Float) -> UInt16 {
        let bits = value.bitPattern
        let magnitude = bits & 0x7FFF_FFFF
        // Half's exponent is 112 less; a carry out of the significand raises it, up to infinity.
        let normal = (magnitude &- 0x3800_0000 &+ 0xFFF &+ (magnitude >> 13 & 1)) >> 13
        // Below 2⁻¹⁴ the unit is 2⁻²⁴: the unit of a float32 in 0.5 ..< 1, so that addition does the rounding.
        let subnormal = (Float(bitPattern: magnitude) + 0.5).bitPattern &- 0x3F00_0000
        let finite = magnitude < 0x3880_0000 ? subnormal : normal
        let large: UInt32 = magnitude > 0x7F80_0000 ? 0x7E00 : 0x7C00
        return UInt16(truncatingIfNeeded: (magnitude >= 0x4780_0000 ? large : finite) | bits >> 16 & 0x8000)
    }

    /// Rounds `count` numbers to binary16.
    @inline(never)
    package static func roundToHalf(
        _ source: UnsafePointer<Float>, count: Int, into out: UnsafeMutablePointer<UInt16>
    ) {
        for index in 0..<count { out[index] = halfBits(source[index]) }
    }

    /// Rounds `count` numbers to bfloat16.
    @inline(never)
    package static func roundToBFloat(
        _ source: UnsafePointer<Float>, count: Int, into out: UnsafeMutablePointer<UInt16>
    ) {
        for index in 0..<count { out[index] = BFloat16(source[index]).bitPattern }
    }

    /// Whether every number stays finite in binary16: below the middle of 65,504 and 65,536 in magnitude, and no NaN.
    @inline(never)
    package static func allFitHalf(_ source: UnsafePointer<Float>, count: Int) -> Bool {
        var largest: UInt32 = 0
        for index in 0..<count { largest = max(largest, source[index].bitPattern & 0x7FFF_FFFF) }
        return largest < (65_520 as Float).bitPattern
    }
}
