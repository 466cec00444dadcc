/// A 16-bit "brain float": the upper half of an IEEE binary32.
///
/// A storage type: arithmetic is done in `Float` and rounded back, to nearest, ties to even. NaNs stay NaNs
/// (their payload's upper bits, made quiet) and infinities stay infinities.
@frozen
public struct BFloat16: Sendable, BitwiseCopyable {
    /// The 16 bits as stored.
    public var bitPattern: UInt16

    /// The number with these bits.
    @inlinable
    public init(bitPattern: UInt16) { self.bitPattern = bitPattern }

    /// The nearest number to `value`, ties to even.
    @inlinable
    public init(_ value: Float) {
        let bits = value.bitPattern
        if value.isNaN {
            bitPattern = UInt16(truncatingIfNeeded: bits >> 16) | 0x0040
        } else {
            // Adding half a unit less one, plus the last kept bit, carries exactly where rounding goes up.
            bitPattern = UInt16(truncatingIfNeeded: (bits &+ 0x7FFF &+ ((bits >> 16) & 1)) >> 16)
        }
    }
}

extension BFloat16: Equatable {
    /// IEEE equality: NaN differs from itself, zeros of both signs are equal.
    public static func == (left: Self, right: Self) -> Bool { Float(left) == Float(right) }
}

extension BFloat16: CustomStringConvertible {
    /// The text shown to people.
    public var description: String { Float(self).description }
}

extension Float {
    /// The same number; every `BFloat16` is a `Float`.
    @inlinable
    public init(_ value: BFloat16) { self.init(bitPattern: UInt32(value.bitPattern) << 16) }
}
