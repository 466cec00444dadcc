package import FlashInferCore

/// How far each pair of a head turns from one position to the next, as the kernels read it.
package enum RoPETurns {
    /// 64-bit fractions of a turn: `[rotaryDim / 2]`.
    ///
    /// Position times fraction, in 64 bits, drops whole turns by itself and is exact at any position, so the angle's only error is
    /// the fraction's own: below 2^-25 of a turn at the largest position, 2^-36 at a million.
    package static func fractions(_ parameters: RoPEParameters, headDim: Int) -> [UInt64] {
        parameters.frequencies(headDim: headDim).map { frequency in
            let turns = frequency / (2 * .pi)
            // A double below 1 times 2^64 is below 2^64 and a whole number or less than half a unit from one.
            return UInt64((turns - turns.rounded(.down)) * 0x1p64)
        }
    }

    /// The same as float32 pairs, high part and low part: `[rotaryDim / 2, 2]`.
    package static func highLow(_ parameters: RoPEParameters, headDim: Int) -> [Float] {
        parameters.frequencies(headDim: headDim).flatMap { frequency in
            let turns = frequency / (2 * .pi)
            let high = Float(turns)
            return [high, Float(turns - Double(high))]
        }
    }
}
