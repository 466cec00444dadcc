/// How long a batch takes, by the traits' costs, if its work is shared out evenly: for choosing between ways to plan it.
struct PlanTime {
    /// In the traits' unit of time.
    let total: Double

    init(_ problem: AttentionProblem, _ traits: KernelTraits, processors: Int) throws(FlashInferError) {
        let survey = try Survey(problem, traits, problem.restAnalysis)
        let prices = Prices(problem, traits, processors: processors)
        var costs = [Double](repeating: 0, count: traits.tiles.count)
        for tiles in [survey.lists, survey.queued] {
            for tile in tiles {
                let heads = survey.heads[Int(tile.tile)]
                let cost = Float(heads.count) * tile.fixedCost + Float(tile.keyCount * heads.total) * tile.keyCost
                costs[Int(tile.tile)] += Double(cost)
            }
        }
        var sum = 0.0
        for (index, cost) in costs.enumerated() where cost > 0 {
            sum += cost * prices.tileTimes[index] + Double(traits.launchTime)
        }
        let geometry = problem.geometry
        if geometry.levelCount > 1 {
            sum += Double(traits.launchTime)
            // Rows that only one level has need none; they are few where levels pay.
            for request in 0..<geometry.requestCount where geometry.kvLength(request) > 0 {
                sum += prices.states(rows: geometry.queryLength(request))
            }
        }
        total = sum
    }

    /// What parts of a batch cost, of the time that all workers together take.
    struct Prices {
        /// By tile: the time of a unit of cost over the workers that share it.
        let tileTimes: [Double]
        private let traits: KernelTraits
        private let shape: AttentionShape
        private let stateTime: Double
        /// See ``KernelTraits/rereadShare``.
        let rereadShare: Double

        init(_ problem: AttentionProblem, _ traits: KernelTraits, processors: Int) {
            self.traits = traits
            shape = problem.shape
            rereadShare = Double(traits.rereadShare)
            tileTimes = traits.tiles.indices.map { index in
                let tile = traits.tiles[index]
                let workers =
                    tile.schedule == .lists
                    ? traits.listCount(processors) : traits.queueWorkers(tile: index, processors)
                return Double(tile.unitTime) / Double(workers)
            }
            stateTime = Double(traits.stateTime) / Double(max(processors * traits.workersPerProcessor, 1))
        }

        /// One more key for all heads of a request of so many query rows.
        func key(rows: Int) -> Double {
            let packed = rows * shape.group
            let index = traits.tileIndex(rows: packed)
            let tile = traits.tiles[index]
            let tiles = (packed + tile.queryRows - 1) / tile.queryRows
            let cost = Float(tiles) * tile.keyCost + Float(packed) * tile.pairCost
            return Double(cost * Float(shape.kvHeads)) * tileTimes[index]
        }

        /// Starting the items of such a request.
        func start(rows: Int) -> Double {
            let packed = rows * shape.group
            let index = traits.tileIndex(rows: packed)
            let tile = traits.tiles[index]
            let items = (packed + tile.queryRows - 1) / tile.queryRows * HeadSteps(tile, shape).count
            return Double(Float(items) * tile.fixedCost) * tileTimes[index]
        }

        /// A state more for each of its rows and heads, written, read and merged.
        func states(rows: Int) -> Double { Double(rows * shape.queryHeads) * stateTime }
    }
}
