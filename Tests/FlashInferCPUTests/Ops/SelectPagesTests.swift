import FlashInferCPU
import FlashInferCore
import TestSupport
import Testing

@Suite struct SelectPagesTests {
    @Test(arguments: SelectPagesCase.all) func matchesASort(test: SelectPagesCase) throws {
        let tensors = try test.tensors()
        let pages = try OpsTensor(.int32, [test.rows, test.k], padding: 2)
        let operation = test.operation(
            scores: tensors.scores.view, lengths: tensors.lengths.view, table: tensors.table.view,
            offsets: tensors.offsets.view, requests: tensors.requests.view, pages: pages.view)
        try operation.validate()
        makeOps(.detected).execute(operation)
        #expect(pages.values.map { Int($0) } == test.expected(tensors))
        #expect(pages.paddingIsIntact)
    }

    @Test func badArgumentsAreNamed() throws {
        let scores = try OpsTensor(.float32, [2, 8])
        let lengths = try OpsTensor(.int32, [2], values: [8, 3])
        let table = try OpsTensor(.int32, [2, 8])
        let pages = try OpsTensor(.int32, [2, 4])
        let good = SelectPagesOperation(
            scores: scores.view, lengths: lengths.view, transform: .table(table.view), pages: pages.view)
        try good.validate()
        func expect(_ name: String, _ change: (inout SelectPagesOperation) throws -> Void) throws {
            var operation = good
            try change(&operation)
            let error = #expect(throws: FlashInferError.self) { try operation.validate() }
            #expect(error.map { "\($0)".contains(name) } ?? false, "\(name): \(String(describing: error))")
        }
        try expect("lengths[1]") { $0.lengths = try OpsTensor(.int32, [2], values: [8, 9]).view }
        try expect("lengths") { $0.lengths = try OpsTensor(.int32, [3]).view }
        try expect("table") { $0.transform = .table(try OpsTensor(.int32, [2, 7]).view) }
        try expect("table") { $0.transform = .table(try OpsTensor(.int32, [3, 8]).view) }
        try expect("requests[0]") { $0.requests = try OpsTensor(.int32, [2], values: [2, 0]).view }
        try expect("requests") {
            $0.transform = .offsets(lengths.view)
            $0.requests = lengths.view
        }
        try expect("pages") { $0.pages = try OpsTensor(.float32, [2, 4]).view }
        try expect("pages") { $0.pages = try OpsTensor(.int32, [3, 4]).view }
        try expect("recent") { $0.recent = -1 }
        try expect("positions") { $0.positions = try OpsTensor(.int32, [2, 3]).view }
        try expect("positions") { $0.positions = pages.view }
        try expect("pages") { $0.scores = try OpsTensor(.float32, [2, 3, 8]).view }
        try expect("scores") { $0.scores = lengths.view }
    }
}
