import FlashInfer
import FlashInferCore
import Testing

/// What the articles on tensors and on sampling show, run.
@Suite struct ArticleTests {
    private let device = CPUDevice(threads: 2)

    @Test func tensorsAndOperations() throws {
        let hidden = try DeviceBuffer(on: device, dtype: .bfloat16, shape: [16, 4096])
        let weight = try DeviceBuffer(on: device, [Float](repeating: 1, count: 4096), shape: [4096])
        try hidden.write((0..<16 * 4096).map { BFloat16(Float($0 % 7)) })
        try device.run(.rmsNorm(RMSNormOperation(input: hidden.view, weight: weight.view, output: hidden.view)))

        let numbers: [BFloat16] = try hidden.read()
        let first: [BFloat16] = try device.read(hidden.view.select(0).slice(0..<8))
        #expect(first == Array(numbers[..<8]))
        // The mean of 0², 1², … 6² is 13.
        #expect(abs(Float(first[1]) - 1 / Float(13).squareRoot()) < 0x1p-9)

        let region = MemoryRegion(address: hidden.region.address, byteCount: 2 * 4096 * 2, device: device.id)
        let borrowed = try TensorView(region, dtype: .bfloat16, shape: [2, 4096])
        #expect(try device.read(borrowed, as: BFloat16.self) == Array(numbers[..<8192]))
    }

    @Test func sampling() throws {
        let (rows, vocabulary) = (2, 1000)
        let logits = try DeviceBuffer(
            on: device, (0..<rows * vocabulary).map { Float($0 % 17) / 4 }, shape: [rows, vocabulary])
        let tokens = try DeviceBuffer(on: device, dtype: .int32, shape: [rows])
        let status = try DeviceBuffer(on: device, dtype: .uint8, shape: [rows])
        let careful = SamplingParameters(temperature: 0.7, topK: 50, topP: 0.9)
        let parameters = [
            SampleOperation.Row(careful, seed: 42, step: 17), SampleOperation.Row(temperature: 0, seed: 0, step: 0),
        ]
        try device.run(
            .sample(
                SampleOperation(logits: logits.view, tokens: tokens.view, status: status.view, rows: parameters)))
        let ids: [Int32] = try tokens.read()
        #expect(try status.read(as: UInt8.self) == [RowStatus.ok.rawValue, RowStatus.ok.rawValue])
        // 16, the greatest of each 17; the second row starts at 1000, which is 14 more than a multiple.
        #expect(ids[0] % 17 == 16 || ids[0] % 17 == 15)
        #expect(ids[1] == 2)

        // The pipeline that says the same draws the same.
        let sampler = LogitsPipeline.fromLogits.temperature().topK().softmax().topP().minP().sample()
        #expect(sampler.kernelCount == 1)
        for operation in try sampler.operations(
            logits.view, tokens: tokens.view, status: status.view, rows: parameters)
        {
            try device.run(operation)
        }
        #expect(try tokens.read() == ids)
    }
}
