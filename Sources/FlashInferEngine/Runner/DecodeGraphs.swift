internal import FlashInfer

/// Decode steps recorded once for each batch size and replayed: on a GPU the host's part of a step is then a few uploads and one
/// launch, whatever the number of layers.
///
/// A step of one token for each of `n` requests runs in the smallest bucket that holds `n` rows; the rows over have no keys and
/// store nothing. What differs from step to step (ids, positions, slots, plans) is read from memory that stays in place.
package struct DecodeGraphs {
    /// A bucket's recorded step.
    private final class Bucket {
        let capacity: StepPlans.Capacity
        let plans: StepPlans
        /// `nil` until the bucket has run once: that run compiles and allocates what a recording must find there.
        var graph: (any DeviceGraph)?
        var hasRun = false

        init(_ capacity: StepPlans.Capacity, _ plans: StepPlans) {
            self.capacity = capacity
            self.plans = plans
        }
    }

    /// Steps that share prefixes launch more kernels than others, and have graphs of their own.
    private struct Key: Hashable {
        var rows: Int
        var isShared: Bool
    }

    private var buckets: [Key: Bucket] = [:]
    /// Steps whose sequences' shared prefixes were read once.
    private(set) var sharedSteps = 0

    /// Whether any step has been captured.
    var hasCaptures: Bool { buckets.values.contains { $0.graph != nil } }

    /// Beyond this many rows a step computes for longer than the host takes to launch it.
    package static let maximumRows = 256

    /// Rows of the smallest bucket for a step of `rows` rows where the largest may have `limit`; `nil` where that has none.
    ///
    /// Padding costs at most the half of the rows up to 4, then a third, and less the larger the batch.
    package static func bucket(for rows: Int, limit: Int) -> Int? {
        guard rows >= 1, rows <= min(limit, maximumRows) else { return nil }
        let step =
            switch rows {
            case ...2: 1
            case ...4: 4
            case ...32: 8
            case ...128: 16
            default: 32
            }
        return min((rows + step - 1) / step * step, limit)
    }

    /// Computes the logits and the most likely tokens of a decode step; see ``DecoderModel/decode(rows:slots:plans:)``.
    ///
    /// - Returns: the number of rows computed, the batch's first; `nil`, with nothing done, where the step must run directly.
    mutating func run(_ batch: StepBatch, on model: DecoderModel) throws -> Int? {
        let entries = batch.entries.count
        let limit = min(model.buffers.maximumRows, model.buffers.maximumSamples)
        guard model.device.recordsGraphs, model.spread?.ranks.isCapturable ?? true, batch.rowCount == entries,
            batch.sampledRows.count == entries,
            let rows = Self.bucket(for: entries, limit: limit)
        else { return nil }
        let geometry = try SharedGeometry(
            model.geometry(of: batch, paddedTo: rows), of: model, isPadded: true)
        let bucket = try bucket(rows, batch, geometry, model)
        if geometry.isShared { sharedSteps += 1 }
        let slots = try model.stage(batch, paddedTo: rows)
        if let graph = bucket.graph {
            try graph.replay()
        } else if bucket.hasRun,
            let graph = try model.device.capture({ () throws(FlashInferError) in
                try model.decode(rows: rows, slots: slots, plans: bucket.plans)
            })
        {
            bucket.graph = graph
            try graph.replay()
        } else {
            try model.decode(rows: rows, slots: slots, plans: bucket.plans)
            bucket.hasRun = true
        }
        return rows
    }

    /// The bucket, its plans made for the batch; a new one where the batch has outgrown it.
    private mutating func bucket(
        _ rows: Int, _ batch: StepBatch, _ geometry: SharedGeometry, _ model: DecoderModel
    ) throws -> Bucket {
        let key = Key(rows: rows, isShared: geometry.isShared)
        let pages =
            batch.kvIndptr.indices.dropLast().map { Int(batch.kvIndptr[$0 + 1] - batch.kvIndptr[$0]) }.max() ?? 0
        if let bucket = buckets[key], pages <= bucket.capacity.pagesPerRequest {
            try bucket.plans.replan(geometry)
            return bucket
        }
        // The old bucket's memory is free for the new one's.
        buckets[key] = nil
        var room = Self.firstPages
        while room < pages { room *= 2 }
        let capacity = StepPlans.Capacity(
            requests: rows, pagesPerRequest: min(room, model.cache.pageCount),
            levels: geometry.shared.levelCount)
        let bucket = Bucket(capacity, try StepPlans(geometry, of: model, capacity: capacity))
        buckets[key] = bucket
        return bucket
    }

    /// Pages of a request that a bucket first has room for; each time one outgrows it, twice as many.
    private static let firstPages = 64
}
