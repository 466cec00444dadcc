import CCUDA
import FlashInfer
import FlashInferCUDA
import FlashInferCore
import TestSupport
import Testing

/// What Hopper's prefill asks of the copy engine, on a driver that only writes it down.
@Suite struct AttentionBoxTests {
    /// The largest power of two that divides a page, up to 64 rows.
    @Test(arguments: [(8, 8), (24, 8), (16, 16), (48, 16), (64, 64), (96, 32), (192, 64)])
    func boxesLieWithinPages(_ pageSize: Int, _ boxRows: UInt32) throws {
        let pages = 4
        let (maps, launches) = try run(pageSize: pageSize, pages: pages)
        // Element of 64, row of 8, 64 of 128 elements, 8 of a page's rows, place of a head: keys' pages are 4 · pageSize places apart.
        let token = UInt64(2 * 128 * 2)
        let map = FakeDriver.Map(
            extents: [64, 8, 2, UInt64(pageSize / 8), UInt64((pages - 1) * 4 * pageSize + 2)],
            strides: [token, 128, 8 * token, 256], box: [64, 8, 2, boxRows / 8, 1])
        #expect(maps == [map, map])
        #expect(launches == [384])
    }

    /// Rows of 64 elements are 128 bytes, which is a column of boxes; three warpgroups compute on them.
    @Test func narrowHeadsHaveColumns() throws {
        let (maps, launches) = try run(pageSize: 16, pages: 4, dim: 64)
        let map = FakeDriver.Map(
            extents: [64, 2, 16, 4], strides: [128, 256, 2 * 16 * 256], box: [64, 1, 16, 1])
        #expect(maps == [map, map])
        #expect(launches == [512])
    }

    /// Of 8 bits: 128 elements of each row, or 64 of heads that are not whole 128s. Three warpgroups compute on up to 128 elements.
    @Test(arguments: [(128, 128), (256, 128), (64, 64)])
    func float8BoxesAreAsWideAsSwizzles(_ dim: Int, _ width: UInt32) throws {
        let (maps, launches) = try run(pageSize: 16, pages: 4, dim: dim, type: .float8E4M3)
        let row = UInt64(dim)
        let map = FakeDriver.Map(
            extents: [row, 2, 16, 4], strides: [row, 2 * row, 2 * 16 * 2 * row], box: [width, 1, 16, 1])
        #expect(maps == [map, map])
        #expect(launches == [dim > 128 ? 384 : 512])
    }

    /// Queries of 8 bits over pages too small for boxes: the portable kernel, which widens them.
    @Test func float8OverSmallPagesIsWidened() throws {
        let (maps, launches) = try run(pageSize: 4, pages: 32, type: .float8E4M3)
        #expect(maps.isEmpty && launches == [256])
    }

    /// Threads of the same kernel copy the rows of pages that have fewer than 8 for a box, or 16 where a box has 128 bytes of each.
    @Test(arguments: [(1, 128), (4, 128), (12, 128), (8, 64), (24, 64)])
    func smallPagesNeedNoMaps(_ pageSize: Int, _ dim: Int) throws {
        let (maps, launches) = try run(pageSize: pageSize, pages: 8, dim: dim)
        #expect(maps.isEmpty && launches == [384])
    }

    /// The plan is the same: a run whose tensors the copy engine cannot bring, or whose outputs cannot leave in chunks, falls back.
    @Test func unalignedOutputsTakeThePortableKernel() throws {
        let (maps, launches) = try run(pageSize: 16, pages: 4, outputOffset: 1)
        #expect(maps.isEmpty && launches == [128])
    }

    /// The maps, and the threads of each launch, of one request of 100 rows and all keys of `pages` pages.
    private func run(
        pageSize: Int, pages: Int, dim: Int = 128, type: DType = .bfloat16, outputOffset: Int = 0
    ) throws -> ([FakeDriver.Map], [UInt32]) {
        let folder = try TemporaryFolder()
        let source = try QuietDriver.source(in: folder)
        return try FakeDriver.with { fake in
            let device = try QuietDriver.device(source, writingTo: fake)
            let geometry = try BatchGeometry.paged(
                queryIndptr: [0, 100], pageIndptr: [0, Int32(pages)], pageIndices: (0..<Int32(pages)).map { $0 },
                lastPageLengths: [Int32(pageSize)], pageSize: pageSize, pageCount: pages)
            let attention = try PlannedAttention(
                AttentionProblem(
                    geometry: geometry, shape: AttentionShape(queryHeads: 2, kvHeads: 2, headDimQK: dim),
                    variant: .causal, queryType: type, kvType: type), on: device)
            let cache = try DeviceBuffer(on: device, dtype: type, shape: [pages, 2, pageSize, 2, dim])
            let queries = try DeviceBuffer(on: device, dtype: type, shape: [100, 2, dim])
            let output = try DeviceBuffer(on: device, dtype: .bfloat16, shape: [100, 2, dim + outputOffset])
            try attention.run(
                queries.view, .paged(combined: cache.view),
                into: output.view.slice(outputOffset..<outputOffset + dim, along: 2))
            return fake.read { ($0.maps, $0.launches.map(\.threads)) }
        }
    }
}
