import FlashInferEngine
import Foundation
import Testing

struct RopeConfigTests {
    @Test func turnsByPowersOfTheBase() {
        let frequencies = RopeConfig(theta: 10_000, pairing: .halfSplit).frequencies(headDim: 8)
        for (found, expected) in zip(frequencies, [1, 0.1, 0.01, 0.001]) { #expect(abs(found / expected - 1) < 1e-12) }
    }

    @Test func scales() {
        let plain = RopeConfig(theta: 500_000, pairing: .halfSplit).frequencies(headDim: 64)
        var rope = RopeConfig(theta: 500_000, localTheta: 10_000, scaling: .linear(factor: 4), pairing: .halfSplit)
        #expect(rope.frequencies(headDim: 64) == plain.map { $0 / 4 })
        #expect(
            rope.frequencies(headDim: 64, isSliding: true)
                == RopeConfig(theta: 10_000, pairing: .halfSplit).frequencies(headDim: 64))
        rope.scaling = .frequencyFactors((1...32).map(Float.init))
        #expect(rope.frequencies(headDim: 64) == zip(plain, 1...32).map { $0 / Double($1) })
    }

    /// The Llama 3.1 rule as Meta's code states it, by wavelengths.
    @Test func scalesAsLlama31() {
        let rope = RopeConfig(
            theta: 500_000,
            scaling: .llama3(factor: 8, lowFrequencyFactor: 1, highFrequencyFactor: 4, originalContext: 8192),
            pairing: .halfSplit)
        let plain = RopeConfig(theta: 500_000, pairing: .halfSplit).frequencies(headDim: 128)
        var kinds = Set<Int>()
        for (found, frequency) in zip(rope.frequencies(headDim: 128), plain) {
            let wavelength = 2 * Double.pi / frequency
            var expected = frequency
            if wavelength > 8192 / 1 {
                expected = frequency / 8
                kinds.insert(0)
            } else if wavelength >= 8192 / 4 {
                let smooth = (8192 / wavelength - 1) / (4 - 1)
                expected = (1 - smooth) * frequency / 8 + smooth * frequency
                kinds.insert(1)
            } else {
                kinds.insert(2)
            }
            #expect(abs(found / expected - 1) < 1e-12)
        }
        #expect(kinds.count == 3)
    }
}
