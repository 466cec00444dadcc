import FlashInferCUDA
import FlashInferCore
import TestSupport
import Testing

/// What the GPU refuses: counted, printed, and none of it on the list of what it must have.
@Suite(.enabled(if: GPU.isPresent, GPU.absence)) struct CUDAAttentionSupportTests {
    private static let dims: [(Int, Int)] =
        stride(from: 8, through: 256, by: 8).map { ($0, $0) }
        + [(192, 128), (72, 40), (128, 64), (64, 128), (512, 512), (12, 12), (1, 1)]

    @Test func refusesNothingThatIsRequired() throws {
        let device = try GPU.device
        var refused: [String: Int] = [:]
        var failures: [String] = []
        var total = 0
        for query in [DType.bfloat16, .float16, .float8E4M3, .float32] {
            for cache in [DType.bfloat16, .float16, .float8E4M3, .float8E5M2, .int8, .float32] {
                for (qk, vo) in Self.dims {
                    for feature in AttentionCase.Feature.allCases {
                        // In-kernel rotation of 8 dims, and of halves, needs that many.
                        if qk % 8 != 0, [.ropeHalf, .ropeInterleaved, .ropeLlama3, .everything].contains(feature) {
                            continue
                        }
                        for layout in [AttentionCase.Layout.combinedNHD, .raggedNHD] {
                            let test = AttentionCase(
                                queryType: query, cacheType: cache, layout: layout, feature: feature, dimQK: qk,
                                dimVO: vo, kvHeads: 1, group: 5, pageSize: 16)
                            total += 1
                            guard let what = try refusal(test, on: device) else { continue }
                            refused["\(query) over \(cache): \(what)", default: 0] += 1
                            if test.isRequiredOfGPU { failures.append("\(test): \(what)") }
                        }
                    }
                }
            }
        }
        print("\(device.name) refuses \(refused.values.reduce(0, +)) of \(total) combinations")
        for (what, count) in refused.sorted(by: { $0.key < $1.key }).prefix(60) { print("  \(count)\t\(what)") }
        #expect(failures.isEmpty, "\(failures.count) that are required, such as \(failures.first ?? "")")
    }

    /// What the device says it lacks for a case; `nil` where it lacks nothing.
    private func refusal(_ test: AttentionCase, on device: CUDADevice) throws -> String? {
        do {
            _ = try device.kernelTraits(for: problem(test))
            return nil
        } catch {
            guard case .unsupported(let what, _, let nearest) = error else { throw error }
            return "\(what) (nearest \(nearest))"
        }
    }

    /// Traits depend on lengths little enough that a batch of three stands for all.
    private func problem(_ test: AttentionCase) throws(FlashInferError) -> AttentionProblem {
        let shape = try AttentionShape(
            queryHeads: test.kvHeads * test.group, kvHeads: test.kvHeads, headDimQK: test.dimQK, headDimVO: test.dimVO)
        let geometry =
            test.isRagged
            ? try BatchGeometry.ragged(queryIndptr: [0, 1, 20], kvIndptr: [0, 40, 70])
            : try BatchGeometry.paged(
                queryIndptr: [0, 1, 20], pageIndptr: [0, 3, 5], pageIndices: [0, 1, 2, 3, 4],
                lastPageLengths: [8, 14], pageSize: 16, pageCount: 5)
        return try AttentionProblem(
            geometry: geometry, shape: shape, variant: test.variant, queryType: test.queryType,
            kvType: test.cacheType)
    }

    /// The error names the nearest that there is, and comes from planning.
    @Test func refusalsComeWhenPlanning() throws {
        let device = try GPU.device
        let test = AttentionCase(queryType: .float32, cacheType: .float32)
        let problem = try problem(test)
        #expect { try device.kernelTraits(for: problem) } throws: { error in
            guard case .unsupported(_, let name, let nearest)? = error as? FlashInferError else { return false }
            return name == device.name && !nearest.isEmpty
        }
    }
}
