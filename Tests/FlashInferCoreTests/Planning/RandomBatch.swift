import FlashInferCore
import TestSupport

/// A random batch with bounds that it keeps, and what to plan it with.
struct RandomBatch {
    var batch: PlanCase
    var bounds: (requests: Int, queries: Int, requestQueries: Int, keys: Int)
    var traits: KernelTraits
    var processors: Int
    var mode: Planner.Mode

    init(using random: inout SeededGenerator) {
        traits = allTraits.randomElement(using: &random)!
        processors = [1, 2, 7, 66, 132].randomElement(using: &random)!
        mode =
            [
                .balanced, .balanced, .unsplit,
                .batchInvariant(splitSize: traits.kvGranularity * Int.random(in: 1...30, using: &random)),
            ].randomElement(using: &random)!
        let requests = Int.random(in: 1...40, using: &random)
        let queries = Int.random(in: 1...3000, using: &random)
        let requestQueries = Bool.random(using: &random) ? 1 : Int.random(in: 1...queries, using: &random)
        let keys = [3, 300, 5000, 60_000].randomElement(using: &random)!
        bounds = (requests, queries, requestQueries, keys)
        var left = queries
        let isUniform = Bool.random(using: &random)
        let length = Int.random(in: 0...keys, using: &random)
        var lengths: [Int] = []
        for _ in 0..<Int.random(in: 1...requests, using: &random) {
            lengths.append(Int.random(in: 0...min(left, requestQueries), using: &random))
            left -= lengths.last!
        }
        var variant = [AttentionVariant.causal, .full].randomElement(using: &random)!
        if Bool.random(using: &random) { variant.windowLeft = Int.random(in: 0...2000, using: &random) }
        batch = PlanCase(
            name: "random", queries: lengths,
            keys: lengths.map { _ in isUniform ? length : Int.random(in: 0...keys, using: &random) },
            variant: variant, shape: [(32, 8), (7, 7), (8, 1), (40, 8)].randomElement(using: &random)!)
    }
}
