import FlashInferCUDA
import FlashInferCore
import TestSupport
import Testing

/// Batches of everything at once, drawn from seeds, on the GPU. `FLASHINFER_TEST_SEEDS=1000-5000` takes others.
@Suite(.enabled(if: GPU.isPresent, GPU.absence)) struct DrawnCUDAAttentionTests {
    @Test func batches() throws {
        let device = try GPU.device
        for seed in TestEnvironment.seeds(0..<32) {
            let test = AttentionCase.drawnForGPU(from: seed)
            let fixture = try AttentionFixture(test)
            guard (try? device.kernelTraits(for: fixture.problem)) != nil else { continue }
            let areWidened = test.queryType == .float8E4M3 && test.cacheType != .float8E4M3
            let tolerance = AttentionTolerance(
                products: !areWidened ? test.queryType : test.cacheType == .float16 ? .float16 : .bfloat16)
            do {
                let processors = min(device.limits.processors, 12)
                for problem in try DrawnCheck(fixture, tolerance).problems(on: device, processors: processors) {
                    Issue.record("seed \(seed): \(problem): \(test)")
                }
            } catch {
                Issue.record("seed \(seed): \(error): \(test)")
            }
        }
    }

    @Test func trees() throws {
        for seed in TestEnvironment.seeds(0..<8) {
            let test = CascadeFixture.Case.drawn(from: seed, types: AttentionCase.gpuTypes)
            let plain = try CascadeFixture(test).plain
            guard (try? GPU.device.kernelTraits(for: plain)) != nil else { continue }
            try checkCascade(test, on: GPU.device, modes: [.balanced, .batchInvariant(splitSize: 128)])
        }
    }

    @Test func blockSparseMatrices() throws {
        let device = try GPU.device
        for seed in TestEnvironment.seeds(0..<8) {
            let test = BlockSparseFixture.Case.drawn(from: seed, types: [.bfloat16, .float16])
            let fixture = try BlockSparseFixture(test)
            guard (try? device.kernelTraits(for: fixture.problem)) != nil else { continue }
            let (tolerance, expected) = (AttentionTolerance(products: test.type), fixture.oracle.evaluate())
            for mode in [Planner.Mode.balanced, .batchInvariant(splitSize: 128)] {
                let found = try fixture.run(on: device, mode: mode)
                #expect(
                    tolerance.mismatch(found, expected, fixture.problem) == nil, "seed \(seed) \(mode): \(test)")
            }
        }
    }

    @Test func latentBatches() throws {
        let device = try GPU.device
        for seed in TestEnvironment.seeds(0..<8) {
            let test = MLACase.drawn(from: seed)
            let fixture = try MLAFixture(test)
            guard (try? device.kernelTraits(for: fixture.problem)) != nil else { continue }
            let (tolerance, expected) = (AttentionTolerance(products: test.type), fixture.oracle.evaluate())
            for mode in [Planner.Mode.balanced, .batchInvariant(splitSize: 256)] {
                let found = try fixture.run(on: device, mode: mode, processors: 1 + Int(seed % 8))
                #expect(
                    tolerance.mismatch(found, expected, fixture.problem) == nil, "seed \(seed) \(mode): \(test)")
            }
        }
    }

    @Test func selectedPages() throws {
        for seed in TestEnvironment.seeds(0..<6) {
            let test = SelectedPlacesFixture.Case.drawn(from: seed, types: [.bfloat16, .float16])
            #expect(try SelectedPlacesFixture(test, on: GPU.device).mismatches { run in run } == [])
        }
    }
}
