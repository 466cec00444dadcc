public import FlashInferCore

extension CPUAttention {
    /// Requests of at most this many packed rows read the cache in place; longer ones pack tiles of keys and values first.
    ///
    /// By estimate, not yet measured: packing costs about 16 cycles a key and head once, reading in place about 3 cycles a row
    /// more than a packed tile, but it keeps one thread near the memory's bandwidth, which short queries are bound by.
    static let streamRows = 16

    /// Keys of a packed tile. 128 keys of 128 dims are 32 KiB of bfloat16: a group of panels stays in L1, the tile in L2.
    static let tileKeys = 128

    /// Tokens of a streamed block, which is also the distance of the prefetch. 16 cost more instructions a token, 64 push the
    /// prefetched block out of L2's reach (measured: 16, 32 and 64 tokens of bfloat16 give 21, 24 and 18 GB/s a thread).
    static let blockKeys = 32

    /// Longest head: a row of queries, output and two rows of cache then fit a small part of L1.
    static let maximumHeadDim = 512

    /// The tiles and costs of these kernels.
    ///
    /// - Throws: ``FlashInferError/unsupported(_:device:nearest:)`` for head dims that are not multiples of 8 up to 512.
    public func kernelTraits(for problem: AttentionProblem) throws(FlashInferError) -> KernelTraits {
        if problem.shape.isLatent { return try Self.latentTraits(problem) }
        for dim in [problem.shape.headDimQK, problem.shape.headDimVO] where dim % 8 != 0 || dim > Self.maximumHeadDim {
            throw .unsupported(
                "head dim \(dim)", device: "cpu",
                nearest: "\(min((dim + 7) / 8 * 8, Self.maximumHeadDim)), with zero padding")
        }
        return KernelTraits(
            tiles: [
                // Decode: all heads of a token together, so that pages are read from end to end. Costs in units of one row
                // and key: reading a key of one head takes as long as computing about 12 rows.
                .init(
                    maximumRows: Self.streamRows, queryRows: Self.streamRows, kvHeads: 65_536, fixedCost: 256,
                    keyCost: 12,
                    pairCost: 1),
                // Prefill: 256 rows halve packing's share against 128, and queries, scores, weights and output are still
                // 384 KiB of L2.
                .init(maximumRows: .max, queryRows: 256, kvHeads: 1, fixedCost: 2048, keyCost: 4, pairCost: 1),
            ], kvGranularity: Self.tileKeys, minimumSplit: 2 * Self.tileKeys,
            // A state is written, read, and added to its row: about what a row and six keys take.
            stateTime: 6)
    }

    /// Those of latent attention, which packs tiles of keys whatever the request's rows: 16 heads and more share each. 128 rows'
    /// queries and outputs of 576 and 512 elements are 512 KiB, and each more tile would pack all keys once more.
    private static func latentTraits(_ problem: AttentionProblem) throws(FlashInferError) -> KernelTraits {
        try problem.requireLatentSupport(deviceName: "cpu")
        for dim in [problem.shape.headDimVO, problem.shape.latentRopeDim] where dim % 8 != 0 || dim > maximumHeadDim {
            throw .unsupported(
                "latent attention of \(dim) elements", device: "cpu",
                nearest: "\(min((dim + 7) / 8 * 8, maximumHeadDim)), with zero padding")
        }
        return KernelTraits(
            tiles: [
                .init(maximumRows: .max, queryRows: 128, kvHeads: 1, fixedCost: 2048, keyCost: 16, pairCost: 1)
            ], kvGranularity: tileKeys, minimumSplit: 2 * tileKeys)
    }
}
