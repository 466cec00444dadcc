import FlashInferCore
import Testing

@Suite struct SamplingValueTests {
    /// The known answers published with Random123 (`kat_vectors`, philox 4 32 10).
    @Test func philoxKnownAnswers() {
        #expect(
            Philox4x32(counter: [0, 0, 0, 0], key: [0, 0]).words
                == [0x6627_E8D5, 0xE169_C58D, 0xBC57_AC4C, 0x9B00_DBD8])
        #expect(
            Philox4x32(
                counter: [0xFFFF_FFFF, 0xFFFF_FFFF, 0xFFFF_FFFF, 0xFFFF_FFFF], key: [0xFFFF_FFFF, 0xFFFF_FFFF]
            ).words == [0x408F_276D, 0x41C8_3B0E, 0xA20B_C7C6, 0x6D54_51FD])
        #expect(
            Philox4x32(
                counter: [0x243F_6A88, 0x85A3_08D3, 0x1319_8A2E, 0x0370_7344], key: [0xA409_3822, 0x299F_31D0]
            ).words == [0xD16C_FE09, 0x94FD_CCEB, 0x5001_E420, 0x2412_6EA1])
    }

    @Test func seedsStepsAndStreamsAllCount() {
        let base = Philox4x32(seed: 1, step: 2)
        #expect(base == Philox4x32(seed: 1, step: 2, stream: 0))
        #expect(base == Philox4x32(counter: [2, 0, 0, 0], key: [1, 0]))
        for other in [
            Philox4x32(seed: 1 << 32 | 1, step: 2), Philox4x32(seed: 1, step: 1 << 32 | 2),
            Philox4x32(seed: 1, step: 2, stream: 1), Philox4x32(seed: 2, step: 1),
        ] { #expect(base != other) }
    }

    @Test func uniformsAreUniform() {
        let count = 40_000
        var (sum, squares) = (0.0, 0.0)
        for step in 0..<count {
            let value = Philox4x32(seed: 7, step: UInt64(step)).uniform()
            #expect(value > 0 && value <= 1)
            sum += value
            squares += value * value
        }
        // Five standard deviations of the mean and of the mean square.
        #expect(abs(sum / Double(count) - 0.5) < 5 * 0.2887 / Double(count).squareRoot())
        #expect(abs(squares / Double(count) - 1.0 / 3) < 5 * 0.2981 / Double(count).squareRoot())
    }

    @Test func parametersOutOfRangeAreNamed() throws {
        try SamplingParameters.greedy.validate()
        try SamplingParameters(temperature: 0.8, topK: 40, topP: 0.95, minP: 0.05, repetitionPenalty: 1.1, seed: 1)
            .validate()
        for wrong in [
            SamplingParameters(temperature: -1), SamplingParameters(temperature: .nan),
            SamplingParameters(temperature: .infinity), SamplingParameters(topK: -1), SamplingParameters(topP: -0.1),
            SamplingParameters(topP: 1.5), SamplingParameters(topP: .nan), SamplingParameters(minP: -0.1),
            SamplingParameters(minP: 1.1), SamplingParameters(repetitionPenalty: 0),
            SamplingParameters(repetitionPenalty: .nan),
        ] {
            #expect(throws: FlashInferError.self) { try wrong.validate() }
        }
        #expect(throws: FlashInferError.invalidArgument("topP", found: "1.5", expected: "in 0 ... 1")) {
            try SamplingParameters(topP: 1.5).validate()
        }
    }
}
