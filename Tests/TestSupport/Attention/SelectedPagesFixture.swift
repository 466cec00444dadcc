package import FlashInferCore

/// A batch of attention over pages that are selected on the device, and the same batch planned over pages that the host selects by a sort.
package final class SelectedPagesFixture {
    /// What to make.
    package struct Case: Sendable, CustomStringConvertible {
        package var type: DType
        package var pageSize: Int
        package var queryLength: Int
        package var variant: AttentionVariant
        package var k = 3
        /// Keys of each whole sequence: more pages than k, as many, fewer, and none but one key.
        package var lengths = [61, 200, 24, 9, 130, 1]

        package var description: String {
            "\(k) pages of \(pageSize), \(queryLength) rows \(type) \(variant.name) mask \(variant.form.mask)"
        }

        package init(_ type: DType, pageSize: Int, queryLength: Int = 1, _ variant: AttentionVariant = .causal) {
            (self.type, self.pageSize, self.queryLength, self.variant) = (type, pageSize, queryLength, variant)
            if queryLength > 1 { lengths = lengths.map { max($0, queryLength) } }
        }

        /// Decode and short chunks, pages of boxes and of single rows.
        package static func all(_ type: DType) -> [Case] {
            [
                Case(type, pageSize: 8), Case(type, pageSize: 16, .full), Case(type, pageSize: 1),
                Case(type, pageSize: 5, queryLength: 4), Case(type, pageSize: 8, queryLength: 3),
                Case(type, pageSize: 8, AttentionVariant(mask: .causal, logitsSoftCap: 2)),
            ]
        }
    }

    private let test: Case
    private let device: any Device
    private let width: Int
    private let problem: AttentionProblem
    private let tensors: [DeviceTensor]
    private let pages, output, workspace: DeviceTensor
    private let plan: Plan
    private var random: SeededGenerator

    private static let (kvHeads, group, dim) = (2, 2, 64)

    /// Fills what does not change: queries, the cache but for the rows of no key, and the page table.
    package init(_ test: Case, on device: any Device) throws {
        (self.test, self.device) = (test, device)
        var random = SeededGenerator(seed: 5)
        let requests = test.lengths.count
        let pageCounts = test.lengths.map { ($0 + test.pageSize - 1) / test.pageSize }
        width = (pageCounts.max() ?? 0) + 2
        let poolPages = pageCounts.reduce(0, +)
        let heads = Self.kvHeads * Self.group
        problem = try Self.problem(
            test,
            .selectedPages(
                queryIndptr: (0...requests).map { Int32($0 * test.queryLength) },
                kvLengths: test.lengths.map { Int32($0) },
                pagesPerRequest: test.k, pageSize: test.pageSize, pageCount: poolPages))
        let queries = try AttentionTensor(test.type, [requests * test.queryLength, heads, Self.dim])
        let keys = try AttentionTensor(test.type, [poolPages, test.pageSize, Self.kvHeads, Self.dim])
        let values = try AttentionTensor(test.type, keys.view.shape)
        let table = try AttentionTensor(.int32, [requests, width])
        let lengths = try AttentionTensor(.int32, [requests])
        for element in 0..<queries.view.elementCount { queries.set(element, Double(random.normal())) }
        var ids = Array((0..<poolPages).shuffled(using: &random))
        for (request, count) in pageCounts.enumerated() {
            lengths.set(request, Double(count))
            for place in 0..<count {
                let page = ids.removeLast()
                table.set(request * width + place, Double(page))
                let rows = min(test.lengths[request] - place * test.pageSize, test.pageSize)
                for element in 0..<rows * Self.kvHeads * Self.dim {
                    let at = page * test.pageSize * Self.kvHeads * Self.dim + element
                    keys.set(at, Double(random.normal()))
                    values.set(at, Double(random.normal()))
                }
            }
        }
        let scores = try AttentionTensor(.float32, [requests, width])
        tensors = try [queries, keys, values, table, lengths, scores].map { try DeviceTensor($0, on: device) }
        pages = try DeviceTensor(AttentionTensor(.int32, [requests * test.k]), on: device)
        output = try DeviceTensor(AttentionTensor(test.type, queries.view.shape), on: device)
        plan = try Self.plan(problem, on: device)
        workspace = try Self.workspace(plan, on: device)
        self.random = random
    }

    private static func problem(_ test: Case, _ geometry: BatchGeometry) throws -> AttentionProblem {
        try AttentionProblem(
            geometry: geometry, shape: AttentionShape(queryHeads: kvHeads * group, kvHeads: kvHeads, headDimQK: dim),
            variant: test.variant, queryType: test.type, kvType: test.type)
    }

    private static func plan(_ problem: AttentionProblem, on device: any Device) throws -> Plan {
        try Planner.plan(
            problem, traits: device.kernelTraits(for: problem), processors: min(device.limits.processors, 8))
    }

    private static func workspace(_ plan: Plan, on device: any Device) throws -> DeviceTensor {
        try DeviceTensor(AttentionTensor(.uint8, [device.workspaceByteCount(for: plan.size)]), on: device)
    }

    private func attention(_ plan: Plan, _ workspace: DeviceTensor, pages: TensorView?) throws -> AttentionOperation {
        let operation = AttentionOperation(
            queries: tensors[0].view, cache: try .paged(keys: tensors[1].view, values: tensors[2].view),
            output: output.view, pageIndices: pages, plan: plan, workspace: workspace.view.region)
        try operation.validate()
        return operation
    }

    /// Selection and attention, enqueued by `capture` once, and run by what it returns for each of some scores; the results that differ
    /// from those of pages that the host selects.
    package func mismatches(_ capture: (@escaping () throws(FlashInferError) -> Void) throws -> () throws -> Void)
        throws -> [String]
    {
        let requests = test.lengths.count
        let select = SelectPagesOperation(
            scores: tensors[5].view, lengths: tensors[4].view, transform: .table(tensors[3].view),
            pages: try TensorView(pages.view.region, dtype: .int32, shape: [requests, test.k]))
        try draw()
        // A host's page ids are checked, so there must be some.
        try device.execute(.selectPages(select))
        let attention = try attention(plan, workspace, pages: pages.view)
        let device = device
        let run = try capture { () throws(FlashInferError) in
            try device.execute(.selectPages(select))
            try device.execute(.attention(attention))
        }
        var mismatches: [String] = []
        for round in 0..<3 {
            try draw()
            try output.poison()
            try run()
            try output.download()
            let found = output.host.elements
            let expected = try planned()
            if found != expected { mismatches.append("\(test), round \(round)") }
        }
        try workspace.download()
        return mismatches
    }

    /// New scores.
    private func draw() throws {
        let scores = tensors[5]
        for element in 0..<scores.host.view.elementCount { scores.host.set(element, Double(random.normal())) }
        try scores.upload(scores.host)
    }

    /// The result over pages that the host selects: the same plan but for its page ids.
    private func planned() throws -> [Double] {
        let (table, scores) = (tensors[3].host, tensors[5].host)
        var ids: [Int32] = []
        for (request, length) in test.lengths.enumerated() {
            let count = (length + test.pageSize - 1) / test.pageSize
            let order = (0..<count - 1).sorted {
                scores.get(request * width + $0) > scores.get(request * width + $1)
            }
            let places = order.prefix(test.k - 1).sorted() + [count - 1]
            ids += places.map { Int32(table.get(request * width + $0)) }
            ids += [Int32](repeating: 0, count: test.k - places.count)
        }
        let blocks = problem.geometry.blocks
        let plan = try Self.plan(
            Self.problem(
                test,
                .paged(
                    queryIndptr: problem.geometry.queryIndptr, pageIndptr: blocks.indptr, pageIndices: ids,
                    kvLengths: blocks.lengths, pageSize: test.pageSize, pageCount: blocks.blockLimit)), on: device)
        let workspace = try Self.workspace(plan, on: device)
        try output.poison()
        try device.execute(.attention(attention(plan, workspace, pages: nil)))
        try output.download()
        return output.host.elements
    }
}
