import CCUDA
import FlashInferCUDA
import FlashInferCore
import TestSupport
import Testing

/// Products on a driver and a library made of Swift functions: what is asked of the library, and what comes out.
@Suite struct ProductTests {
    /// A device whose products are the fake library's.
    private func withDevice(
        _ body: (FakeDriver, FakeCUBLASLt, CUDADevice, CUDALinear) throws -> Void
    ) throws {
        try FakeDriver.with { driver in
            let device = try driver.device()
            let (fake, library) = FakeCUBLASLt.start()
            let products = try device.linear.get { () throws(FlashInferError) in
                try CUDALinear(library, on: device.queue, name: device.name)
            }
            try body(driver, fake, device, products)
        }
    }

    /// A product of small integers, which every order of summation gives exactly.
    private func check(
        _ rows: Int, _ outputs: Int, _ inputs: Int, outputStride: Int? = nil, outputOffset: Int = 0,
        hasBias: Bool = false, accumulates: Bool = false, on device: CUDADevice, _ weights: any DeviceWeights
    ) throws {
        let stride = outputStride ?? outputs
        func weight(_ n: Int, _ k: Int) -> Int { (n * 7 + k * 3) % 11 - 5 }
        func activation(_ m: Int, _ k: Int) -> Int { (m * 5 + k * 13) % 7 - 3 }
        let padded = (inputs + 7) / 8 * 8
        var x = [Float16](repeating: .nan, count: rows * padded)
        for m in 0..<rows { for k in 0..<inputs { x[m * padded + k] = Float16(activation(m, k)) } }
        let input = try DeviceBuffer(on: device, x, shape: [rows, padded])
        let old = (0..<rows * stride + outputOffset).map { accumulates ? Float($0 % 5) : .nan }
        let output = try DeviceBuffer(on: device, old, shape: [old.count])
        let bias = try DeviceBuffer(on: device, (0..<outputs).map { Float($0 % 3) }, shape: [outputs])
        let view = try TensorView(
            output.region, byteOffset: 4 * outputOffset, dtype: .float32, shape: [rows, outputs], strides: [stride, 1])
        let operation = LinearOperation(
            input: input.view.slice(0..<inputs, along: 1), weights: weights, output: view,
            bias: hasBias ? bias.view : nil, accumulates: accumulates)
        try operation.validate()
        try device.execute(.linear(operation))
        let found: [Float] = try output.read()
        for place in found.indices {
            let (m, n) = ((place - outputOffset) / stride, (place - outputOffset) % stride)
            guard place >= outputOffset, m < rows, n < outputs else {
                #expect(found[place].bitPattern == old[place].bitPattern, "written outside of the output")
                continue
            }
            var sum = (0..<inputs).reduce(0) { $0 + weight(n, $1) * activation(m, $1) }
            if hasBias { sum += n % 3 }
            if accumulates { sum += place % 5 }
            #expect(found[place] == Float(sum), "[\(m), \(n)]")
        }
    }

    private func weights(_ outputs: Int, _ inputs: Int, on device: CUDADevice) throws -> any DeviceWeights {
        var values: [Float] = []
        for n in 0..<outputs { for k in 0..<inputs { values.append(Float((n * 7 + k * 3) % 11 - 5)) } }
        return try values.withUnsafeBytes { bytes in
            try device.makeWeights([WeightRows(bytes, format: .float32, rows: outputs, columns: inputs)])
        }
    }

    @Test func rowsColumnsStridesBiasAndSumsAreWhatTheLibraryIsTold() throws {
        try withDevice { _, fake, device, _ in
            for (outputs, inputs) in [(24, 32), (7, 13), (1, 1), (33, 64)] {
                let weights = try weights(outputs, inputs, on: device)
                for rows in [1, 2, 5, 17] {
                    for (hasBias, accumulates) in [(false, false), (true, false), (false, true), (true, true)] {
                        try check(
                            rows, outputs, inputs, hasBias: hasBias, accumulates: accumulates, on: device, weights)
                    }
                    try check(rows, outputs, inputs, outputStride: outputs + 5, outputOffset: 3, on: device, weights)
                }
            }
            #expect(fake.read { $0.workspaces.count } == 1)
        }
    }

    @Test func theLibraryIsAskedOnceForEachShape() throws {
        try withDevice { _, fake, device, products in
            let weights = try weights(16, 16, on: device)
            for _ in 0..<3 { for rows in [1, 2, 3] { try check(rows, 16, 16, on: device, weights) } }
            #expect(fake.read { $0.questions.count } == 3)
            // Prompts of 129 to 256 rows are one question.
            for rows in [129, 200, 256, 130, 256] { try check(rows, 16, 16, on: device, weights) }
            #expect(fake.read { $0.questions.count } == 4)
            #expect(products.planCount == 4)
            #expect(fake.read { $0.runs } == 14)
            // Another bias of the same alignment is no question either.
            for _ in 0..<3 { try check(2, 16, 16, hasBias: true, on: device, weights) }
            #expect(fake.read { $0.questions.count } == 5)
        }
    }

    @Test func algorithmsThatTakeNoOtherNumberOfRowsAreAskedForExactly() throws {
        try withDevice { _, fake, device, _ in
            fake.change { $0.isExact = true }
            let weights = try weights(8, 8, on: device)
            for rows in [200, 256, 200] { try check(rows, 8, 8, on: device, weights) }
            // For 256 rows and for 200.
            #expect(fake.read { $0.questions.count } == 2)
        }
    }

    @Test func alignmentsAreToldAsTheyAre() throws {
        try withDevice { _, fake, device, _ in
            let weights = try weights(16, 16, on: device)
            func alignment(_ attribute: Int) -> UInt64? {
                fake.read { $0.questions.last?[Int32(attribute)] }
            }
            for (stride, offset, expected) in [(16, 0, 16), (18, 0, 8), (17, 0, 4), (16, 2, 8), (16, 1, 4)] {
                try check(4, 16, 16, outputStride: stride, outputOffset: offset, on: device, weights)
                #expect(alignment(FI_CUBLAS_PREFERENCE_ALIGNMENT_D) == UInt64(expected))
                #expect(alignment(FI_CUBLAS_PREFERENCE_ALIGNMENT_C) == UInt64(expected))
                #expect(alignment(FI_CUBLAS_PREFERENCE_ALIGNMENT_A) == 16)
                #expect(alignment(FI_CUBLAS_PREFERENCE_ALIGNMENT_B) == 16)
            }
            #expect(alignment(FI_CUBLAS_PREFERENCE_WORKSPACE_BYTES) == 32 << 20)
            #expect(alignment(FI_CUBLAS_PREFERENCE_REDUCTIONS) == 6)
        }
    }

    @Test func aRefusedBiasIsSaidAndNothingIsRun() throws {
        try withDevice { _, fake, device, products in
            fake.change { $0.refusesBias = true }
            let made = try weights(8, 8, on: device)
            let weights = try #require(made as? CUDAWeights)
            let input = try DeviceBuffer(on: device, dtype: .float16, shape: [2, 8])
            let output = try DeviceBuffer(on: device, dtype: .float32, shape: [2, 8])
            let bias = try DeviceBuffer(on: device, dtype: .float32, shape: [8])
            for _ in 0..<2 {
                let isRun = try products.multiply(
                    input.view, weights, into: output.view, bias: bias.view, accumulates: false)
                #expect(!isRun)
            }
            #expect(fake.read { $0.runs } == 0)
            #expect(fake.read { $0.questions.count } == 1)
        }
    }

    @Test func nothingIsEnqueuedForNoRows() throws {
        try withDevice { _, fake, device, _ in
            let weights = try weights(8, 8, on: device)
            let input = try DeviceBuffer(on: device, dtype: .float32, shape: [0, 8])
            let output = try DeviceBuffer(on: device, dtype: .float32, shape: [0, 8])
            let operation = LinearOperation(input: input.view, weights: weights, output: output.view)
            try operation.validate()
            try device.execute(.linear(operation))
            #expect(fake.read { $0.questions.isEmpty && $0.runs == 0 })
        }
    }

    @Test func scratchGrowsOutsideOfCapturesAndStaysForGraphs() throws {
        try withDevice { driver, _, _, products in
            let small = try products.scratch(.float16, 4, 100)
            #expect(small.shape == [4, 100] && small.strides == [104, 1] && small.address % 256 == 0)
            #expect(try products.scratch(.bfloat16, 4, 90).address == small.address)
            let large = try products.scratch(.float16, 4096, 4096)
            #expect(large.address != small.address)
            #expect(driver.read { $0.deviceBytes[UInt64(small.address)] != nil }, "a graph may still write there")
            #expect(try products.scratch(.float16, 4, 100).address == large.address)
        }
        try FakeDriver.with { driver in
            let device = try driver.device()
            let products = try CUDALinear(FakeCUBLASLt.start().library, on: device.queue, name: "fake")
            #expect(throws: FlashInferError.self) {
                _ = try device.capture { () throws(FlashInferError) in _ = try products.scratch(.float16, 1, 8) }
            }
        }
    }

    @Test func foreignWeightsAndForeignTypesAreErrorsWithTheirNames() throws {
        try withDevice { driver, _, device, _ in
            let weights = try weights(8, 8, on: device)
            let input = try DeviceBuffer(on: device, dtype: .bfloat16, shape: [2, 8])
            let output = try DeviceBuffer(on: device, dtype: .float32, shape: [2, 8])
            #expect(
                throws: FlashInferError.invalidArgument(
                    "linear input", found: "bfloat16 [2, 8]", expected: "float32 or float16 [rows, 8]")
            ) { try LinearOperation(input: input.view, weights: weights, output: output.view).validate() }
            let other = try driver.device()
            #expect(throws: FlashInferError.self) {
                try other.execute(
                    .linear(LinearOperation(input: input.view, weights: weights, output: output.view)))
            }
        }
    }

    @Test func everythingMadeIsDestroyed() throws {
        try FakeDriver.with { driver in
            let (fake, library) = FakeCUBLASLt.start()
            do {
                let device = try driver.device()
                _ = try device.linear.get { () throws(FlashInferError) in
                    try CUDALinear(library, on: device.queue, name: device.name)
                }
                try check(3, 8, 8, hasBias: true, on: device, weights(8, 8, on: device))
                #expect(!fake.read { $0.live.isEmpty })
            }
            #expect(fake.read { $0.live.isEmpty })
        }
    }

    @Test func anAbsentLibraryNamesTheWheel() {
        for (version, wheel) in [(13_000, "nvidia-cublas'"), (12_040, "nvidia-cublas-cu12'")] {
            #expect {
                _ = try CUBLASLt.load(candidates: ["/nowhere/libcublasLt.so.13"], driverVersion: version)
            } throws: { error in
                "\(error)".contains(wheel) && "\(error)".contains("/nowhere/libcublasLt.so.13")
            }
        }
        #expect(CUBLASLt.candidates(driverVersion: 13_000).first == "libcublasLt.so.13")
        #expect(CUBLASLt.candidates(driverVersion: 12_080).first == "libcublasLt.so.12")
        #expect(!CUBLASLt.candidates(driverVersion: 12_080).contains { $0.hasSuffix(".13") })
    }
}
