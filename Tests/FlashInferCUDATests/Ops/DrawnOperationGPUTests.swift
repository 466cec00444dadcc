import FlashInfer
import FlashInferCUDA
import FlashInferCore
import TestSupport
import Testing

/// Operations on rows drawn from seeds, on the GPU. `FLASHINFER_TEST_SEEDS=1000-5000` takes others.
@Suite(.enabled(if: OpsGPU.isThere, "no CUDA device")) struct DrawnOperationGPUTests {
    @Test func draws() throws {
        for seed in TestEnvironment.seeds(0..<24) {
            let gpu = GPUScope()
            let test = try DrawnRows(from: seed, widest: 30_000)
            let count = test.rows.count
            let input = try gpu.tensor(test.input)
            let (tokens, status) = (try gpu.tensor(.int32, [count]), try gpu.tensor(.uint8, [count]))
            try runOnGPU(
                .sample(
                    SampleOperation(
                        input.view, as: test.form, tokens: tokens.view, status: status.view, rows: test.rows,
                        order: test.order)))
            let (found, statuses) = (try tokens.fetch(), try status.fetch())
            for row in 0..<count {
                if let problem = test.problem(row, token: Int(found[row]), status: Int(statuses[row])) {
                    Issue.record("seed \(seed): \(problem): \(test)")
                }
            }
            #expect(tokens.host.paddingIsIntact && status.host.paddingIsIntact)
        }
    }

    @Test func filters() throws {
        let cpu = CPUDevice(threads: 1)
        for seed in TestEnvironment.seeds(0..<16) {
            let gpu = GPUScope()
            let test = try DrawnRows(from: seed &+ 1 << 40, widest: 20_000)
            let (count, width) = (test.rows.count, test.input.view.shape[1])
            let input = try gpu.tensor(test.input), status = try gpu.tensor(.uint8, [count])
            let output = try gpu.tensor(test.input.view.dtype, [count, width], padding: Int(seed % 4))
            func operation(_ view: (GPUTensor) -> TensorView) -> FlashInferCore.Operation {
                .filter(
                    FilterOperation(
                        view(input), as: test.form, output: view(output), status: view(status), rows: test.filters,
                        order: test.order))
            }
            try runOnGPU(operation { $0.view })
            let (found, statuses) = (try output.fetch(), try status.fetch())
            #expect(output.host.paddingIsIntact && status.host.paddingIsIntact)
            try cpu.execute(operation { $0.host.view })
            #expect(statuses == status.host.values, "seed \(seed): \(test)")
            let expected = output.host.values
            if let place = found.indices.first(where: {
                let (a, b) = (found[$0], expected[$0])
                return !(a == b || (a.isNaN && b.isNaN) || abs(a - b) <= 0x1p-21 * abs(b))
            }) {
                Issue.record(
                    "seed \(seed), row \(place / width), place \(place % width): \(found[place]), on the CPU \(expected[place]), \(test.filters[place / width]): \(test)"
                )
            }
        }
    }

    @Test func rowsOfEverything() throws {
        for seed in TestEnvironment.seeds(0..<24) {
            if let problem = try DrawnOperation.problem(from: seed, on: .gpu(GPUScope())) {
                Issue.record("seed \(seed): \(problem)")
            }
        }
    }
}
