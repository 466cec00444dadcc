/// Division of numbers below 2³¹ by one that is known on the host: a multiplication and a shift (Granlund and Montgomery, PLDI
/// 1994).
struct FastDivision: Hashable {
    /// 0 for division by 1.
    let multiplier: UInt32
    let shift: UInt32

    /// - Precondition: `divisor` is in `1 ..< 2³¹`.
    init(by divisor: Int) {
        precondition(divisor >= 1 && divisor <= Int(Int32.max), "a divisor of 31 bits")
        let bits = divisor == 1 ? 0 : UInt32(Int.bitWidth - (divisor - 1).leadingZeroBitCount)
        guard bits > 0 else {
            (multiplier, shift) = (0, 0)
            return
        }
        multiplier = UInt32((UInt64(1) << (31 + UInt64(bits))) / UInt64(divisor) + 1)
        shift = bits - 1
    }

    /// n / divisor, as the kernels compute it.
    func divide(_ n: UInt32) -> UInt32 {
        multiplier == 0 ? n : UInt32(UInt64(n) * UInt64(multiplier) >> 32) >> shift
    }
}
