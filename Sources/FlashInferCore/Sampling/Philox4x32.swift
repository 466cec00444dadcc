/// The counter-based random numbers Philox 4x32-10 of Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3" (SC 2011).
///
/// Four 32-bit words are a pure function of a 64-bit key and a 128-bit counter. With a request's seed as the key and its step
/// as the counter, a draw needs no state, no order and no knowledge of the batch, on any device.
///
/// ```swift
/// Philox4x32(seed: 1, step: 0).uniform()  // the same number on every machine
/// ```
public struct Philox4x32: Sendable, Hashable {
    /// The four words.
    public let words: SIMD4<UInt32>

    /// The words at `counter` under `key`: ten rounds.
    public init(counter: SIMD4<UInt32>, key: SIMD2<UInt32>) {
        var (state, key) = (counter, key)
        for _ in 0..<10 {
            let first = UInt64(0xD251_1F53) * UInt64(state[0])
            let second = UInt64(0xCD9E_8D57) * UInt64(state[2])
            state = SIMD4(
                UInt32(truncatingIfNeeded: second >> 32) ^ state[1] ^ key[0], UInt32(truncatingIfNeeded: second),
                UInt32(truncatingIfNeeded: first >> 32) ^ state[3] ^ key[1], UInt32(truncatingIfNeeded: first))
            // The key's Weyl sequence: the golden ratio and the square root of three, less one.
            key = key &+ SIMD2(0x9E37_79B9, 0xBB67_AE85)
        }
        words = state
    }

    /// The words of `step` of the request with `seed`; `stream` gives one step several independent draws.
    public init(seed: UInt64, step: UInt64, stream: UInt32 = 0) {
        self.init(
            counter: SIMD4(UInt32(truncatingIfNeeded: step), UInt32(truncatingIfNeeded: step >> 32), stream, 0),
            key: SIMD2(UInt32(truncatingIfNeeded: seed), UInt32(truncatingIfNeeded: seed >> 32)))
    }

    /// A number in (0, 1], a multiple of 2⁻⁵³, from the first two words.
    ///
    /// Zero is excluded so that the inverse of a distribution never lands on an outcome of no probability.
    public func uniform() -> Double {
        let bits = UInt64(words[0]) << 32 | UInt64(words[1])
        return Double((bits >> 11) + 1) * 0x1p-53
    }
}
