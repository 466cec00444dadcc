/// Stores new tokens' keys and values in a cache, converting to its type.
///
/// A stored number is the nearest to `value / scale`, ties to even, the scales being the cache's; float8 and int8 saturate.
/// Moves the new keys and values once in, once out.
public struct AppendKVOperation: Sendable, Equatable {
    /// `[tokens, kvHeads, headDimQK]`, float32, float16 or bfloat16; stride 1 within a head.
    public var keys: TensorView

    /// `[tokens, kvHeads, headDimVO]`, the type of the keys or another of the three.
    public var values: TensorView

    /// Paged or ragged keys and values of any cache type.
    public var cache: KVCacheView

    /// Where each token goes; tokens without a slot are skipped.
    public var slots: KVSlots

    /// An operation; call ``validate()`` before it is executed.
    public init(keys: TensorView, values: TensorView, cache: KVCacheView, slots: KVSlots) {
        self.keys = keys
        self.values = values
        self.cache = cache
        self.slots = slots
    }

    /// Checks every tensor, scale and slot.
    ///
    /// - Throws: ``FlashInferError`` that names the tensor or the token, what it is, and what it must be.
    /// - Complexity: O(tokens).
    public func validate() throws(FlashInferError) {
        let checks = TensorChecks(device: keys.device)
        try validate(keys, "keys", into: cache.keys, checks)
        try validate(values, "values", into: cache.values, checks)
        let scales = cache.scales
        for (name, scale, perHead) in [
            ("key scale", scales.key, scales.keyPerHead), ("value scale", scales.value, scales.valuePerHead),
        ] {
            guard scale > 0, scale.isFinite else {
                throw .invalidArgument(name, found: "\(scale)", expected: "finite and above 0")
            }
            guard let perHead else { continue }
            try checks.vector(perHead, name, .float32, cache.keys.headCount)
            try validate(perHead, name)
        }
        try Self.validate(slots, in: cache, checks)
    }

    /// Slots that the host knows lie in the cache.
    static func validate(
        _ slots: KVSlots, in cache: KVCacheView, _ checks: TensorChecks
    ) throws(FlashInferError) {
        if let table = slots.table {
            try checks.here(table, "slot table")
            guard table.device == .cpu else { return }
        }
        let slots = slots.onHost
        for token in 0..<slots.count where slots.blocks[token] >= 0 {
            try validate(Int(slots.blocks[token]), Int(slots.rows[token]), token, in: cache)
        }
    }

    private func validate(
        _ source: TensorView, _ name: String, into cache: KVTensor, _ checks: TensorChecks
    ) throws(FlashInferError) {
        try checks.rows(source, name)
        try checks.shape(source, name, [slots.count, cache.headCount, cache.headDim])
        try checks.here(cache.view, "\(name) of the cache")
        try checks.writable(cache.view, "\(name) of the cache")
        try checks.distinct(cache.view, "\(name) of the cache", from: source, name)
    }

    /// Per-head scales, where the host can read them.
    private func validate(_ perHead: TensorView, _ name: String) throws(FlashInferError) {
        guard perHead.device == .cpu, let pointer = perHead.pointer else { return }
        let scales = UnsafeBufferPointer(start: pointer.assumingMemoryBound(to: Float.self), count: perHead.shape[0])
        for (head, scale) in scales.enumerated() where !(scale > 0 && scale.isFinite) {
            throw .invalidArgument("\(name) of head \(head)", found: "\(scale)", expected: "finite and above 0")
        }
    }

    private static func validate(
        _ block: Int, _ row: Int, _ token: Int, in cache: KVCacheView
    ) throws(FlashInferError) {
        let count = cache.keys.blockCount
        if let size = cache.keys.blockSize {
            guard block < count else {
                throw .invalidArgument("page of token \(token)", found: "\(block)", expected: "in 0 ..< \(count)")
            }
            guard row < size else {
                throw .invalidArgument("row of token \(token)", found: "\(row)", expected: "in 0 ..< \(size)")
            }
        } else if block + row >= count {
            throw .invalidArgument("row of token \(token)", found: "\(block + row)", expected: "in 0 ..< \(count)")
        }
    }
}
