import FlashInferCore
import Testing

@Suite struct GeometryTests {
    @Test func pagedLengths() throws {
        let geometry = try BatchGeometry.paged(
            queryIndptr: [0, 2, 2, 5], pageIndptr: [0, 2, 2, 3], pageIndices: [7, 0, 3, .max],
            lastPageLengths: [1, 0, 16],
            pageSize: 16, pageCount: 8)
        #expect((0..<3).map { geometry.kvLength($0) } == [17, 0, 16])
        #expect((0..<3).map { geometry.queryLength($0) } == [2, 0, 3])
        #expect(geometry.queryCount == 5)
    }

    @Test func pageSizesOneAnd512() throws {
        for size in [1, 512] {
            let geometry = try BatchGeometry.paged(
                pageIndptr: [0, 3], pageIndices: [2, 0, 1], lastPageLengths: [1], pageSize: size, pageCount: 3)
            #expect(geometry.kvLength(0) == 2 * size + 1 && geometry.queryIndptr == [0, 1])
        }
    }

    @Test func aWrongLastPageLengthNamesTheRequest() {
        for (length, size) in [(0, 16), (17, 16), (-1, 16), (2, 1)] {
            #expect(throws: FlashInferError.lastPageLengthOutOfRange(request: 1, length: length, pageSize: size)) {
                try BatchGeometry.paged(
                    pageIndptr: [0, 1, 2], pageIndices: [0, 1], lastPageLengths: [1, Int32(length)], pageSize: size,
                    pageCount: 2)
            }
        }
    }

    @Test func aWrongPageNamesItsPlace() {
        for page in [-1, 4, Int(Int32.max), Int(Int32.min)] {
            #expect(throws: FlashInferError.pageOutOfRange(request: 1, position: 1, page: page, pageCount: 4)) {
                try BatchGeometry.paged(
                    pageIndptr: [0, 1, 3], pageIndices: [0, 1, Int32(page)], lastPageLengths: [1, 1], pageSize: 4,
                    pageCount: 4)
            }
        }
    }

    @Test func anIndptrMustBeARunningSum() {
        #expect(throws: FlashInferError.indptrNotMonotone("page indptr", request: 1, value: 2, next: 1)) {
            try BatchGeometry.paged(
                pageIndptr: [0, 2, 1], pageIndices: [0, 1], lastPageLengths: [1, 1], pageSize: 4, pageCount: 4)
        }
        #expect(throws: FlashInferError.invalidArgument("kv indptr[0]", found: "1", expected: "0")) {
            try BatchGeometry.ragged(queryIndptr: [0, 1], kvIndptr: [1, 2])
        }
        #expect(throws: FlashInferError.lengthMismatch("kv indptr", found: 3, expected: 2)) {
            try BatchGeometry.ragged(queryIndptr: [0, 1], kvIndptr: [0, 2, 3])
        }
        #expect(throws: FlashInferError.lengthMismatch("query indptr", found: 0, expected: 1)) {
            try BatchGeometry.ragged(queryIndptr: [], kvIndptr: [])
        }
        #expect(throws: FlashInferError.lengthMismatch("page indices", found: 1, expected: 2)) {
            try BatchGeometry.paged(
                pageIndptr: [0, 2], pageIndices: [0], lastPageLengths: [1], pageSize: 4, pageCount: 4)
        }
    }

    @Test func lengthsThatDoNotFitAreErrors() {
        #expect(throws: FlashInferError.overflow("key count of request 0")) {
            try BatchGeometry.paged(
                pageIndptr: [0, 3], pageIndices: [0, 0, 0], lastPageLengths: [1], pageSize: Int(Int32.max), pageCount: 1
            )
        }
        #expect(throws: FlashInferError.overflow("kv length")) {
            try BatchGeometry.contiguous(queryLength: 1, kvLength: .max)
        }
    }

    @Test func blockSparseIsTheSameForm() throws {
        let geometry = try BatchGeometry.blockSparse(
            rows: 10, columns: 12, rowBlock: 4, columnBlock: 3, indptr: [0, 2, 2, 3], indices: [3, 0, 2])
        #expect(geometry.queryIndptr == [0, 4, 8, 10])
        #expect((0..<3).map { geometry.kvLength($0) } == [6, 0, 3])
        #expect(geometry.blocks.keyPositions == .columns)
        #expect(throws: FlashInferError.pageOutOfRange(request: 0, position: 0, page: 4, pageCount: 4)) {
            try BatchGeometry.blockSparse(
                rows: 4, columns: 12, rowBlock: 4, columnBlock: 3, indptr: [0, 1], indices: [4])
        }
        #expect(
            throws: FlashInferError.invalidArgument(
                "columns", found: "13", expected: "a multiple of 3 in 0 ... 2147483647")
        ) {
            try BatchGeometry.blockSparse(
                rows: 4, columns: 13, rowBlock: 4, columnBlock: 3, indptr: [0, 0], indices: [])
        }
    }

    @Test func headsMustDivide() {
        for (query, kv) in [(7, 2), (0, 1), (4, 0), (-4, -2), (2, 4)] {
            #expect(throws: FlashInferError.headsNotDivisible(queryHeads: query, kvHeads: kv)) {
                try AttentionShape(queryHeads: query, kvHeads: kv, headDimQK: 64)
            }
        }
    }
}
