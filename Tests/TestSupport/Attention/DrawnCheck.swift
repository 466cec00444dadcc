package import FlashInferCore

/// A drawn batch in every way that it may be run: cut anew, in a workspace of a capacity that others have used, and without an LSE.
package struct DrawnCheck {
    private let fixture: AttentionFixture
    private let tolerance: AttentionTolerance
    private let expected: AttentionOracle.Result

    /// What `fixture` must come to, within `tolerance`.
    package init(_ fixture: AttentionFixture, _ tolerance: AttentionTolerance) {
        (self.fixture, self.tolerance, expected) = (fixture, tolerance, fixture.oracle.evaluate())
    }

    /// What is wrong on a device, in words, where work is cut for any number of processors up to `most`.
    package func problems(on device: any Device, processors most: Int) throws -> [String] {
        var g = SeededGenerator(seed: fixture.test.seed &+ 77)
        var problems: [String] = []
        let buffers = try AttentionBuffers(fixture, on: device)
        let traits = try device.kernelTraits(for: fixture.problem)
        let (geometry, granularity) = (fixture.problem.geometry, traits.kvGranularity)
        let modes: [Planner.Mode] = [
            .balanced, .unsplit, .batchInvariant(splitSize: granularity * Int.random(in: 1...4, using: &g)),
        ]
        for mode in modes {
            let processors = Int.random(in: 1...most, using: &g)
            let way = "\(mode) on \(processors)"
            let plan = try buffers.plan(mode: mode, processors: processors)
            // Bounds by chance, not below what there is.
            func loose(_ least: Int) -> Int {
                least + (Bool.random(using: &g) ? 0 : Int.random(in: 0...least + 5, using: &g))
            }
            let longest = (0..<geometry.requestCount).map { geometry.queryLength($0) }.max() ?? 0
            let keys = (0..<geometry.requestCount).map { geometry.kvLength($0) }.max() ?? 0
            let capacity = try Planner.capacity(
                maximumRequests: loose(geometry.requestCount), maximumQueries: loose(geometry.queryCount),
                maximumRequestQueries: loose(longest), maximumKeys: loose(keys),
                maximumBlocks: loose(geometry.blocks.indices.count), shape: fixture.problem.shape, traits: traits,
                processors: processors, mode: mode)
            guard capacity.covers(plan.size) else {
                problems.append("\(way): the capacity \(capacity) does not cover \(plan.size)")
                continue
            }
            let measured = try Planner.measure(fixture.problem, traits: traits, processors: processors, mode: mode)
            if measured != plan.size { problems.append("\(way): measured \(measured), planned \(plan.size)") }
            var first: AttentionResult?
            for (bound, hasLSE) in [(nil, true), (capacity, true), (capacity, false)] {
                let workspace = try buffers.workspace(for: bound ?? plan.size)
                var operation = try buffers.operation(plan, in: workspace, capacity: bound)
                if !hasLSE { operation.logSumExp = nil }
                for _ in 0..<2 {
                    try buffers.poisonResults()
                    try operation.validate()
                    try device.execute(.attention(operation))
                }
                try workspace.download()
                let found = try buffers.results()
                guard hasLSE else {
                    if found.output != first?.output { problems.append("\(way): without an LSE the output differs") }
                    continue
                }
                if let mismatch = tolerance.mismatch(found, expected, fixture.problem) {
                    problems.append("\(way)\(bound == nil ? "" : ", capacity"): \(mismatch)")
                }
                if let first, first != found { problems.append("\(way): another result in another workspace") }
                first = found
            }
        }
        return problems
    }
}
