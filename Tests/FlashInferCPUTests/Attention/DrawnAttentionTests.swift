import FlashInferCPU
import FlashInferCore
import TestSupport
import Testing

/// Batches of everything at once, drawn from seeds, against the float64 oracle. `FLASHINFER_TEST_SEEDS=1000-5000` takes others.
@Suite struct DrawnAttentionTests {
    private static let devices = InstructionSet.allCases.filter(\.isAvailable).map { ($0, SeparateDevice($0)) }
    private static let modes = [Planner.Mode.balanced, .unsplit, .batchInvariant(splitSize: 128)]

    @Test func batches() throws {
        // The last two have narrow scores, whose weights are all off to the same side where 2^x is.
        for seed in Array(TestEnvironment.seeds(0..<60)) + [1443, 1695] {
            let test = AttentionCase.drawn(from: seed)
            let fixture = try AttentionFixture(test)
            let (set, device) = Self.devices[Int(seed) % Self.devices.count]
            guard (try? device.kernelTraits(for: fixture.problem)) != nil else { continue }
            let isNarrow =
                set == .avx512BF16 && [.bfloat16, .float8E4M3].contains(test.queryType) && test.cacheType != .float32
                && test.cacheType != .float16
            let check = DrawnCheck(fixture, AttentionTolerance(products: isNarrow ? .bfloat16 : .float32))
            do {
                for problem in try check.problems(on: device, processors: 12) {
                    Issue.record("seed \(seed) \(set): \(problem): \(test)")
                }
            } catch {
                Issue.record("seed \(seed) \(set): \(error): \(test)")
            }
        }
    }

    @Test func trees() throws {
        for seed in TestEnvironment.seeds(0..<20) {
            let fixture = try CascadeFixture(.drawn(from: seed, types: AttentionCase.types))
            let device = AttentionConformanceTests.devices[Int(seed / 3) % AttentionConformanceTests.devices.count]
            let expected = fixture.oracle.evaluate()
            for mode in Self.modes {
                let found = try fixture.upload(to: device).run(
                    fixture.composed, mode: mode, processors: 1 + Int(seed % 7))
                expectClose(found.result, expected, fixture.plain, device)
            }
        }
    }

    @Test func blockSparseMatrices() throws {
        for seed in TestEnvironment.seeds(0..<20) {
            let fixture = try BlockSparseFixture(.drawn(from: seed, types: [.float32, .bfloat16, .float16]))
            let device = AttentionConformanceTests.devices[Int(seed) % AttentionConformanceTests.devices.count]
            let expected = fixture.oracle.evaluate()
            for mode in Self.modes {
                let found = try fixture.run(on: device, mode: mode, processors: 1 + Int(seed % 5))
                expectClose(found, expected, fixture.problem, device)
            }
        }
    }

    @Test func latentBatches() throws {
        for seed in TestEnvironment.seeds(0..<10) {
            let fixture = try MLAFixture(.drawn(from: seed))
            let device = AttentionConformanceTests.devices[Int(seed) % AttentionConformanceTests.devices.count]
            let expected = fixture.oracle.evaluate()
            for mode in Self.modes {
                let found = try fixture.run(on: device, mode: mode, processors: 1 + Int(seed % 5))
                expectClose(found, expected, fixture.problem, device)
            }
        }
    }

    @Test func selectedPages() throws {
        for seed in TestEnvironment.seeds(0..<10) {
            let test = SelectedPlacesFixture.Case.drawn(from: seed, types: [.float32, .bfloat16, .float16])
            for device in AttentionConformanceTests.devices.suffix(1) {
                #expect(try SelectedPlacesFixture(test, on: device).mismatches { run in run } == [])
            }
        }
    }
}
