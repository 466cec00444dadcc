import FlashInfer
import FlashInferCUDA
import FlashInferCore
import TestSupport
import Testing

/// Softmax, argmax and log-probabilities on the GPU.
@Suite(.enabled(if: OpsGPU.isThere, "no CUDA device")) struct LogitsGPUTests {
    private let gpu = GPUScope()

    /// Rows shorter and longer than a block, with every kind of start and end; the last ones have a cluster of blocks, where the GPU has
    /// clusters.
    static let widths = [1, 7, 64, 111, 1_024, 4_099, 16_384, 20_003]

    @Test(arguments: GPUTypes.all, GPULayout.all)
    func softmax(types: GPUTypes, layout: GPULayout) throws {
        var random = OpsRandom(21)
        for width in Self.widths {
            for temperatures in [[Float(0.5), 1, 3], [2], []] {
                var values = random.normals(3 * width, scale: 4)
                if width > 1 { values[width + 1] = -.infinity }
                let input = try gpu.tensor(
                    types.first, [3, width], padding: layout.padding, lead: layout.lead, values: values)
                let output = try gpu.tensor(types.output, [3, width], padding: layout.padding)
                let status = try gpu.tensor(.uint8, [3])
                try runOnGPU(
                    .softmax(
                        SoftmaxOperation(
                            input: input.view, output: output.view, status: status.view, temperatures: temperatures)))
                let oracle = OpsOracle.softmax(
                    input.host.values, width: width,
                    temperatures: temperatures.count == 3
                        ? temperatures : [Float](repeating: temperatures.first ?? 1, count: 3), output: types.output)
                let found = try output.fetch()
                // float16 has no numbers below 2^-25; an error of half its least step is its own.
                let floored = zip(oracle.exact, found).map { abs($0 - $1) < 0x1p-24 ? $1 : $0 }
                #expect(
                    firstOutlier(
                        found, exact: types.output == .float32 ? oracle.exact : floored, reference: oracle.reference,
                        width: width, dtype: types.output, units: types.output == .float32 ? 6 : 1) == nil,
                    "width \(width)")
                #expect(try status.fetch() == [0, 0, 0])
                #expect(output.host.paddingIsIntact && status.host.paddingIsIntact)
            }
        }
    }

    @Test func rowsWithoutADistribution() throws {
        for width in [1, 9, 1_100, 5_003, 17_003] {
            for place in [0, width / 2, width - 1] {
                let image = try OpsTensor(
                    .float32, [4, width], padding: 3, values: [Double](repeating: 1, count: 4 * width))
                image[place] = .nan
                for index in 0..<width { image[width + index] = -.infinity }
                image[2 * width + place] = .infinity
                let input = try gpu.tensor(image)
                let output = try gpu.tensor(.float32, [4, width])
                let status = try gpu.tensor(.uint8, [4])
                try runOnGPU(
                    .softmax(SoftmaxOperation(input: input.view, output: output.view, status: status.view)))
                #expect(try status.fetch() == [1, 2, 3, 0])
                #expect(try output.fetch()[..<(3 * width)].allSatisfy { $0 == 0 })

                let tokens = try gpu.tensor(.int32, [4])
                try runOnGPU(.argmax(ArgmaxOperation(input: input.view, output: tokens.view, status: status.view)))
                #expect(try status.fetch() == [1, 2, 0, 0])
                #expect(try tokens.fetch() == [-1, -1, Double(place), 0])

                let ids = try gpu.tensor(.int32, [4], values: [0, 0, 0, 0])
                let logs = try gpu.tensor(.float32, [4])
                try runOnGPU(
                    .logProbability(
                        LogProbabilityOperation(
                            logits: input.view, ids: ids.view, output: logs.view, status: status.view)))
                #expect(try status.fetch() == [1, 2, 3, 0])
                let found = try logs.fetch()
                #expect(found[..<3].allSatisfy { $0.isNaN })
                #expect(abs(found[3] + ElementaryFunctions.log(Double(width))) < 1e-5)
            }
        }
    }

    @Test(arguments: GPUTypes.all, GPULayout.all)
    func argmaxIsTheCPUs(types: GPUTypes, layout: GPULayout) throws {
        var random = OpsRandom(22)
        let cpu = CPUDevice(threads: 1)
        for width in Self.widths {
            // Few distinct values, zeros of both signs, so that the greatest occurs many times.
            let values = (0..<4 * width).map { index in
                index >= 3 * width
                    ? (random.uniform() < 0.5 ? 0.0 : -0.0) : (random.uniform() * 5).rounded(.down) - 4
            }
            let input = try gpu.tensor(
                types.first, [2, 2, width], padding: layout.padding, lead: layout.lead, values: values)
            let (output, status) = (try gpu.tensor(.int32, [4]), try gpu.tensor(.uint8, [4]))
            let (expected, expectedStatus) = (try OpsTensor(.int32, [4]), try OpsTensor(.uint8, [4]))
            try cpu.execute(
                .argmax(
                    ArgmaxOperation(input: input.host.view, output: expected.view, status: expectedStatus.view)))
            try runOnGPU(.argmax(ArgmaxOperation(input: input.view, output: output.view, status: status.view)))
            #expect(try output.fetch() == expected.values, "width \(width)")
            #expect(try status.fetch() == expectedStatus.values)
            #expect(output.host.paddingIsIntact && status.host.paddingIsIntact)
        }
    }

    /// A row that a cluster holds in more memory, and one that is too long for it, in place and with strides of their own.
    @Test(arguments: [140_003, 210_001])
    func longRows(width: Int) throws {
        var random = OpsRandom(24)
        var values = random.normals(2 * width, scale: 4)
        (values[3], values[width + 5]) = (-.infinity, -.infinity)
        let cpu = CPUDevice(threads: 2)
        let input = try gpu.tensor(.float32, [2, width], padding: 1, lead: 1, values: values)
        let (tokens, logs) = (try gpu.tensor(.int32, [2]), try gpu.tensor(.float32, [2]))
        let ids = try gpu.tensor(.int32, [2], values: [0, Double(width - 1)])
        let status = try gpu.tensor(.uint8, [2])
        func operations(_ view: (GPUTensor) -> TensorView) -> [FlashInferCore.Operation] {
            [
                .argmax(ArgmaxOperation(input: view(input), output: view(tokens), status: view(status))),
                .logProbability(
                    LogProbabilityOperation(
                        logits: view(input), ids: view(ids), output: view(logs), status: view(status),
                        temperatures: [0.7])),
                .softmax(
                    SoftmaxOperation(
                        input: view(input), output: view(input), status: view(status), temperatures: [0.7])),
            ]
        }
        for operation in operations({ $0.view }) { try runOnGPU(operation) }
        let (foundTokens, foundLogs) = (try tokens.fetch(), try logs.fetch())
        let expected = try OpsTensor(.float32, [2, width], padding: 1, lead: 1, values: values)
        for operation in operations({ $0.view.address == input.view.address ? expected.view : $0.host.view }) {
            try cpu.execute(operation)
        }
        #expect(foundTokens == tokens.host.values)
        #expect(zip(foundLogs, logs.host.values).allSatisfy { abs($0 - $1) <= 1e-6 * abs($1) })
        let found = try input.fetch()
        #expect(zip(found, expected.values).allSatisfy { abs($0 - $1) <= 0x1p-22 * $1 })
        #expect(input.host.paddingIsIntact && logs.host.paddingIsIntact && tokens.host.paddingIsIntact)
    }

    @Test(arguments: GPUTypes.all)
    func logProbability(types: GPUTypes) throws {
        var random = OpsRandom(23)
        for width in Self.widths {
            let logits = try gpu.tensor(
                types.first, [5, width], padding: 1, values: random.normals(5 * width, scale: 4))
            // The last two ids are outside: in device memory nobody but the kernel can see that.
            let wanted = [0, width / 2, width - 1, width, -1]
            let ids = try gpu.tensor(.int32, [5], values: wanted.map(Double.init))
            let output = try gpu.tensor(.float32, [5])
            let status = try gpu.tensor(.uint8, [5])
            for temperatures in [[Float(2)], [1, 2, 3, 4, 5]] {
                try runOnGPU(
                    .logProbability(
                        LogProbabilityOperation(
                            logits: logits.view, ids: ids.view, output: output.view, status: status.view,
                            temperatures: temperatures)))
                let found = try output.fetch()
                for row in 0..<3 {
                    let temperature = Double(temperatures.count == 1 ? temperatures[0] : temperatures[row])
                    let x = (0..<width).map { logits.host[row * width + $0] / temperature }
                    let top = x.max() ?? 0
                    let sum = x.reduce(0) { $0 + ElementaryFunctions.exp($1 - top) }
                    let exact = x[wanted[row]] - top - ElementaryFunctions.log(sum)
                    #expect(abs(found[row] - exact) <= 1e-6 * max(1, abs(exact)), "width \(width)")
                }
                #expect(found[3].isNaN && found[4].isNaN)
                #expect(try status.fetch() == [0, 0, 0, 0, 0])
            }
        }
    }
}
