import FlashInferCore
import Testing

/// Page ids are checked many at a time; every place among the many must count.
@Suite struct PageTableTests {
    private func geometry(_ pages: [Int32], used: Int, pageCount: Int) throws -> BatchGeometry {
        // Two requests, so that the position within the request differs from the place in the table.
        let first = Int32(used / 3)
        return try .paged(
            pageIndptr: [0, first, Int32(used)], pageIndices: pages, lastPageLengths: [first > 0 ? 1 : 0, 1],
            pageSize: 4,
            pageCount: pageCount)
    }

    @Test(arguments: [1, 2, 15, 16, 17, 31, 32, 33, 50, 64])
    func aWrongIdIsFoundAtEveryPlace(used: Int) throws {
        let pageCount = 100
        let good = (0..<used).map { Int32($0 % pageCount) }
        _ = try geometry(good, used: used, pageCount: pageCount)
        for place in 0..<used {
            for wrong in [Int32(pageCount), -1, .min, .max] {
                var pages = good
                pages[place] = wrong
                let request = place < used / 3 ? 0 : 1
                let position = request == 0 ? place : place - used / 3
                #expect(
                    throws: FlashInferError.pageOutOfRange(
                        request: request, position: position, page: Int(wrong), pageCount: pageCount)
                ) { try geometry(pages, used: used, pageCount: pageCount) }
            }
        }
    }

    @Test func idsPastTheLastRequestAreNotRead() throws {
        for used in [1, 15, 16, 17] {
            let pages = (0..<used).map { Int32($0) } + .init(repeating: 2_147_480_000, count: 40)
            _ = try geometry(pages, used: used, pageCount: used)
        }
    }

    @Test func limitsAtTheEndsOfTheirRange() throws {
        let most = [Int32](repeating: .max, count: 17)
        _ = try geometry(most, used: 17, pageCount: .max)
        _ = try geometry(most, used: 17, pageCount: 1 << 31)
        for pageCount in [0, -1, Int.min, Int(Int32.max)] {
            #expect(
                throws: FlashInferError.pageOutOfRange(
                    request: 0, position: 0, page: Int(Int32.max), pageCount: pageCount)
            ) { try geometry(most, used: 17, pageCount: pageCount) }
        }
    }
}
