import CUDAKernels
import FlashInfer
import FlashInferCUDA
import FlashInferCore
import TestSupport
import Testing

/// The launches of a run whose requests need several kernels, on a driver that only writes them down.
@Suite struct SideBySideTests {
    private enum Place {
        static let (alone, first, beside) = (Int32(0), Int32(1), Int32(2))
    }

    private static let capped = AttentionVariant(mask: .causal, logitsSoftCap: 30)

    /// Chunks and decodes in one launch, on every processor, whose blocks have the decodes' lists too.
    @Test func chunksAndDecodesAreOneLaunch() throws {
        let launches = try launches(queryLengths: [1, 100, 1])
        #expect(launches.map(\.place) == [Place.alone])
        #expect(launches[0].threads == 512 && launches[0].lists > 0)
    }

    /// Few decodes are not worth a kernel in which chunks take a tenth longer.
    @Test func fewDecodesRunBesideManyChunks() throws {
        let launches = try launches(queryLengths: [1] + [Int](repeating: 100, count: 20))
        #expect(launches.map(\.place) == [Place.first, Place.beside] && launches.allSatisfy { $0.lists == 0 })
    }

    /// The lists beside a queue look up one page for 16 keys, which pages of 8 do not have; the queue's boxes may have 8 rows.
    @Test(arguments: [8, 24]) func pagesOfEightsHaveNoListsBesideAQueue(_ pageSize: Int) throws {
        let launches = try launches(queryLengths: [1, 100, 1], pageSize: pageSize)
        #expect(launches.map(\.place) == [Place.first, Place.beside] && launches.allSatisfy { $0.lists == 0 })
        #expect(launches.last?.threads == 384)
    }

    /// A chunk's kernel waits for the decodes' at its end, and so need not wait at its start: the decodes' waits for both.
    @Test func chunksThatAreCappedRunBesideDecodes() throws {
        let launches = try launches(queryLengths: [1, 100, 1], variant: Self.capped)
        #expect(launches.map(\.place) == [Place.first, Place.beside])
    }

    @Test func threeKernelsAreAChain() throws {
        let mixed = try launches(queryLengths: [1, 20, 100])
        #expect(mixed.map(\.place) == [Place.first, Place.beside] && mixed.map { $0.lists > 0 } == [false, true])
        let capped = try launches(queryLengths: [1, 20, 100], variant: Self.capped)
        #expect(capped.map(\.place) == [Place.first, Place.beside, Place.beside])
    }

    @Test(arguments: [[1, 1], [20], [100, 90]]) func oneKernelFollowsAllBefore(_ lengths: [Int]) throws {
        let launches = try launches(queryLengths: lengths)
        #expect(launches.map(\.place) == [Place.alone] && launches[0].lists == 0)
    }

    private struct Launch {
        var threads: Int
        var place: Int32
        /// Lists that it runs beside a queue.
        var lists: Int32
    }

    /// Each launch, in order, of requests that have 128 keys or a few more.
    private func launches(
        queryLengths: [Int], pageSize: Int = 16, variant: AttentionVariant = .causal
    ) throws -> [Launch] {
        let folder = try TemporaryFolder()
        let source = try QuietDriver.source(in: folder)
        return try FakeDriver.with { fake in
            fake.change {
                $0.parameterByteCount = MemoryLayout<fi_attention_params>.size
                $0.parameterByteCounts = [
                    384: MemoryLayout<fi_hopper_attention_params>.size,
                    512: MemoryLayout<fi_hopper_attention_params>.size,
                ]
            }
            let device = try QuietDriver.device(source, writingTo: fake)
            let requests = queryLengths.count
            let queryIndptr = queryLengths.reduce(into: [Int32(0)]) { $0.append($0[$0.count - 1] + Int32($1)) }
            let (pages, rows) = ((128 + pageSize - 1) / pageSize, Int(queryIndptr[requests]))
            let geometry = try BatchGeometry.paged(
                queryIndptr: queryIndptr, pageIndptr: (0...Int32(requests)).map { $0 * Int32(pages) },
                pageIndices: (0..<Int32(pages * requests)).map { $0 },
                lastPageLengths: [Int32](repeating: Int32(pageSize), count: requests), pageSize: pageSize,
                pageCount: pages * requests)
            let attention = try PlannedAttention(
                AttentionProblem(
                    geometry: geometry, shape: AttentionShape(queryHeads: 2, kvHeads: 2, headDimQK: 128),
                    variant: variant, queryType: .bfloat16, kvType: .bfloat16), on: device)
            let cache = try DeviceBuffer(on: device, dtype: .bfloat16, shape: [pages * requests, 2, pageSize, 2, 128])
            let queries = try DeviceBuffer(on: device, dtype: .bfloat16, shape: [rows, 2, 128])
            let output = try DeviceBuffer(on: device, dtype: .bfloat16, shape: [rows, 2, 128])
            try attention.run(queries.view, .paged(combined: cache.view), into: output.view)
            return fake.read { state in
                state.launches.map { launch in
                    launch.parameter.withUnsafeBytes { bytes in
                        // Hopper's kernels have the same beside their maps.
                        guard launch.threads >= 384 else {
                            let place = bytes.loadUnaligned(as: fi_attention_params.self).place
                            return Launch(threads: Int(launch.threads), place: place, lists: 0)
                        }
                        let boxed = bytes.loadUnaligned(as: fi_hopper_attention_params.self)
                        return Launch(threads: Int(launch.threads), place: boxed.attention.place, lists: boxed.lists)
                    }
                }
            }
        }
    }
}
