import FlashInferCUDA
import FlashInferCore
import TestSupport
import Testing

/// Matrix products on a real GPU, against plain loops in float64.
@Suite(.serialized, .enabled(if: TestMachine.hasGPU, TestMachine.needsGPU), .timeLimit(.minutes(3)))
struct CUDALinearTests {
    /// A device of the suite's own: a capture keeps other threads off.
    private static let device = Result { try CUDADevice() }

    /// Weights of a file, with what the GPU makes of each.
    private struct Matrix {
        var weights: any DeviceWeights
        var rounded: [Double]
    }

    private func matrix(
        _ format: WeightFormat, _ outputs: Int, _ inputs: Int, on device: CUDADevice, seed: UInt64 = 5
    ) throws -> Matrix {
        var random = SeededGenerator(seed: seed)
        let bytes = randomWeights(format, elements: outputs * inputs, using: &random)
        let weights = try bytes.withUnsafeBytes { bytes in
            try device.makeWeights([WeightRows(bytes, format: format, rows: outputs, columns: inputs)])
        }
        return Matrix(
            weights: weights,
            rounded: BlockOracle.decode(format, bytes).map { round($0.value, weights.inputType) })
    }

    private func round(_ value: Double, _ type: DType) -> Double {
        switch type {
        case .float16: Double(Float16(Float(value)))
        case .bfloat16: Double(Float(BFloat16(Float(value))))
        default: value
        }
    }

    /// How a product is asked for.
    struct Form: Sendable, CustomTestStringConvertible {
        var hasBias = false
        var accumulates = false
        /// Elements between rows of the output past the last column, and before the first.
        var padding = 0
        var offset = 0
        /// Whether the input comes in the weights' type, or as float32.
        var isNarrow = false
        /// Elements between rows of the input.
        var inputPadding = 0

        var testDescription: String { "\(self)" }

        static let all = [
            Form(), Form(hasBias: true), Form(accumulates: true), Form(hasBias: true, accumulates: true),
            Form(padding: 4, inputPadding: 8), Form(padding: 3, offset: 1, inputPadding: 3),
            Form(isNarrow: true), Form(hasBias: true, padding: 8, isNarrow: true, inputPadding: 8),
            Form(accumulates: true, isNarrow: true, inputPadding: 1),
        ]
    }

    private func check(_ matrix: Matrix, _ rows: Int, _ form: Form, on device: CUDADevice) throws {
        let (outputs, inputs) = (matrix.weights.rows, matrix.weights.columns)
        let type = matrix.weights.inputType
        var random = SeededGenerator(seed: UInt64(rows))
        // Between the rows is poison.
        let (inputStride, outputStride) = (inputs + form.inputPadding, outputs + form.padding)
        var x = [Float](repeating: .nan, count: rows * inputStride)
        for m in 0..<rows { for k in 0..<inputs { x[m * inputStride + k] = random.normal() } }
        let input: DeviceBuffer
        switch (form.isNarrow, type) {
        case (false, _): input = try DeviceBuffer(on: device, x, shape: [rows, inputStride])
        case (true, .float16): input = try DeviceBuffer(on: device, x.map { Float16($0) }, shape: [rows, inputStride])
        case (true, _): input = try DeviceBuffer(on: device, x.map { BFloat16($0) }, shape: [rows, inputStride])
        }
        let count = form.offset + rows * outputStride
        let old = (0..<count).map { _ in form.accumulates ? random.normal() : Float.nan }
        let output = try DeviceBuffer(on: device, old, shape: [count])
        let biases = (0..<outputs).map { _ in random.normal() }
        let bias = try DeviceBuffer(on: device, biases, shape: [outputs])
        let operation = LinearOperation(
            input: input.view.slice(0..<inputs, along: 1), weights: matrix.weights,
            output: try TensorView(
                output.region, byteOffset: 4 * form.offset, dtype: .float32, shape: [rows, outputs],
                strides: [outputStride, 1]),
            bias: form.hasBias ? bias.view : nil, accumulates: form.accumulates)
        try operation.validate()
        try device.execute(.linear(operation))
        let found: [Float] = try output.read()
        var worst = 0.0
        for place in 0..<count {
            let (m, n) = (place - form.offset).quotientAndRemainder(dividingBy: outputStride)
            guard place >= form.offset, n < outputs else {
                #expect(found[place].bitPattern == old[place].bitPattern, "written between the rows")
                continue
            }
            var (exact, size) = (0.0, 0.0)
            for k in 0..<inputs {
                let term = matrix.rounded[n * inputs + k] * round(Double(x[m * inputStride + k]), type)
                exact += term
                size += term.magnitude
            }
            if form.hasBias { exact += Double(biases[n]) }
            if form.accumulates { exact += Double(old[place]) }
            size += Double(biases[n].magnitude) + (form.accumulates ? Double(old[place].magnitude) : 0)
            // Products of two 16-bit numbers are exact in float32. Tensor cores cut sums off at 2^-23 of the largest term
            // where float32 arithmetic rounds to 2^-24, once for each instruction's worth of terms at most.
            let bound = (Double(inputs) + 4) * 0x1p-23 * size
            worst = max(worst, (Double(found[place]) - exact).magnitude / bound)
        }
        #expect(worst <= 1, "rows \(rows), \(outputs) x \(inputs) of \(type), \(form): \(worst) of the bound")
    }

    @Test(arguments: WeightFormat.allCases)
    func everyFormatMatchesFloat64(_ format: WeightFormat) throws {
        let device = try Self.device.get()
        let matrix = try matrix(format, 96, 512, on: device)
        for rows in [1, 3, 8, 33] { try check(matrix, rows, Form(), on: device) }
    }

    @Test(arguments: Form.all)
    func everyFormMatchesFloat64(_ form: Form) throws {
        let device = try Self.device.get()
        for format in [WeightFormat.q41, .bfloat16] {
            for (outputs, inputs) in [(576, 576), (48, 1536), (192, 64)] {
                let matrix = try matrix(format, outputs, inputs, on: device)
                for rows in [1, 2, 16, 65] { try check(matrix, rows, form, on: device) }
            }
        }
    }

    /// Sizes that fill no vector, tile or wave.
    @Test func oddSizesMatchFloat64() throws {
        let device = try Self.device.get()
        for format in [WeightFormat.float16, .bfloat16, .float32] {
            for (outputs, inputs) in [(1, 1), (7, 13), (33, 77), (129, 255), (257, 8), (1000, 96)] {
                let matrix = try matrix(format, outputs, inputs, on: device)
                for rows in [1, 5, 31] {
                    for form in [Form(), Form(hasBias: true, accumulates: true), Form(isNarrow: true)] {
                        try check(matrix, rows, form, on: device)
                    }
                }
            }
        }
    }

    /// One algorithm for a bucket of rows serves every number of them.
    @Test func promptsOfEveryLengthMatchFloat64() throws {
        let device = try Self.device.get()
        let matrix = try matrix(.q80, 160, 320, on: device)
        for rows in [128, 129, 200, 255, 256, 257, 300, 511, 700] {
            try check(matrix, rows, Form(accumulates: true), on: device)
        }
    }

    @Test func weightsPastHalfPrecisionAreMultipliedAsBFloat16() throws {
        let device = try Self.device.get()
        var values = [Float](repeating: 0.25, count: 16 * 32)
        values[100] = 1e6
        let weights = try values.withUnsafeBytes { bytes in
            try device.makeWeights([WeightRows(bytes, format: .float32, rows: 16, columns: 32)])
        }
        #expect(weights.inputType == .bfloat16)
        try check(
            Matrix(weights: weights, rounded: values.map { round(Double($0), .bfloat16) }), 3, Form(), on: device)
    }

    /// Inputs that are not finite stay in their row.
    @Test func poisonStaysInItsRow() throws {
        let device = try Self.device.get()
        let matrix = try matrix(.q41, 64, 128, on: device)
        for poison in [Float.nan, .infinity] {
            var x = [Float](repeating: 0.5, count: 5 * 128)
            x[2 * 128 + 17] = poison
            let input = try DeviceBuffer(on: device, x, shape: [5, 128])
            let output = try DeviceBuffer(on: device, dtype: .float32, shape: [5, 64])
            try device.execute(
                .linear(LinearOperation(input: input.view, weights: matrix.weights, output: output.view)))
            let found: [Float] = try output.read()
            for (place, value) in found.enumerated() { #expect(value.isFinite == (place / 64 != 2)) }
        }
    }

    @Test func aCapturedProductReadsWhatIsThereAtEachReplay() throws {
        let device = try Self.device.get()
        let matrix = try matrix(.q41, 64, 128, on: device)
        let input = try DeviceBuffer(on: device, dtype: .float32, shape: [4, 128])
        let output = try DeviceBuffer(on: device, dtype: .float32, shape: [4, 64])
        let operation = Operation.linear(
            LinearOperation(input: input.view, weights: matrix.weights, output: output.view))
        func expected(_ scale: Float) throws -> [Float] {
            try input.write((0..<4 * 128).map { scale * Float($0 % 9 - 4) })
            try device.execute(operation)
            return try output.read()
        }
        // Run once before, as products are planned then.
        let results = try [1, 2, -3].map { try expected($0) }
        let graph = try #require(
            try device.capture { () throws(FlashInferError) in try device.execute(operation) })
        // A larger product in between moves the memory for converted inputs.
        let large = try self.matrix(.q80, 64, 4096, on: device)
        try check(large, 512, Form(), on: device)
        for (scale, result) in zip([1, 2, -3] as [Float], results) {
            try input.write((0..<4 * 128).map { scale * Float($0 % 9 - 4) })
            try device.fill(output.region, with: 0xFF)
            try graph.replay()
            let found: [Float] = try output.read()
            #expect(found == result)
        }
    }

    @Test func theSameProductGivesTheSameBits() throws {
        let device = try Self.device.get()
        let matrix = try matrix(.q41, 576, 1536, on: device)
        let input = try DeviceBuffer(
            on: device, (0..<16 * 1536).map { Float($0 % 101 - 50) / 37 }, shape: [16, 1536])
        let output = try DeviceBuffer(on: device, dtype: .float32, shape: [16, 576])
        var first: [Float]?
        for _ in 0..<20 {
            try device.execute(
                .linear(LinearOperation(input: input.view, weights: matrix.weights, output: output.view)))
            let found: [Float] = try output.read()
            #expect(first == nil || found == first)
            first = found
        }
    }
}
