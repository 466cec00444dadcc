internal import CFlashInferCPU
internal import FlashInferCore

/// Cosines and sines of every position of a batch, computed in double and rounded once; kept while they suffice.
struct AttentionRoPETable: ~Copyable {
    /// What the run reads: row `position − first` has the cosines of all pairs, then their sines.
    struct Rows {
        var base: UnsafeMutablePointer<Float>
        var first: Int
        /// Elements that turn, and elements of a row.
        var rotaryDim: Int

        func cosine(_ position: Int) -> UnsafePointer<Float> {
            UnsafePointer(base + (position - first) * rotaryDim)
        }
        func sine(_ position: Int) -> UnsafePointer<Float> { cosine(position) + rotaryDim / 2 }
    }

    private(set) var rows: Rows?
    private var parameters: RoPEParameters?
    private var headDim = 0
    private var range = 0..<0

    /// Makes sure that all positions of a problem are there.
    mutating func prepare(_ parameters: RoPEParameters, _ problem: AttentionProblem, _ pool: ThreadPool) {
        var needed = Self.positions(problem.geometry)
        if let known = self.parameters, known == parameters, headDim == problem.shape.headDimQK {
            if range.lowerBound <= needed.lowerBound, needed.upperBound <= range.upperBound { return }
            // Sequences grow a token at a time: double, so that tables are rarely made.
            needed = min(needed.lowerBound, range.lowerBound)..<max(needed.upperBound, 2 * range.upperBound)
        }
        (self.parameters, headDim, range) = (parameters, problem.shape.headDimQK, needed)
        let frequencies = parameters.frequencies(headDim: headDim)
        let dim = 2 * frequencies.count
        rows?.base.deallocate()
        let base = UnsafeMutablePointer<Float>.allocate(capacity: max(needed.count * dim, 1))
        rows = Rows(base: base, first: needed.lowerBound, rotaryDim: dim)
        let positions = needed.map { Int32(truncatingIfNeeded: $0) }
        positions.withUnsafeBufferPointer { positions in
            frequencies.withUnsafeBufferPointer { frequencies in
                guard let list = positions.baseAddress else { return }
                pool.run { worker in
                    let (from, to) = (
                        positions.count * worker / pool.threads, positions.count * (worker + 1) / pool.threads
                    )
                    fi_rope_table(
                        base + from * dim, list + from, Int64(to - from), frequencies.baseAddress,
                        Int64(frequencies.count))
                }
            }
        }
    }

    /// Every position that a query or key of the batch has. Queries before the first key have negative ones.
    private static func positions(_ geometry: BatchGeometry) -> Range<Int> {
        var (low, high) = (0, 1)
        for request in 0..<geometry.requestCount where geometry.queryLength(request) > 0 {
            low = min(low, geometry.sequenceLength(request) - geometry.queryLength(request))
            high = max(high, geometry.sequenceLength(request))
        }
        if geometry.blocks.keyPositions == .columns {
            let columns = geometry.blocks.blockLimit * geometry.blocks.blockSize
            low = min(low, columns - geometry.queryCount)
            high = max(high, columns)
        }
        return low..<high
    }

    deinit { rows?.base.deallocate() }
}
