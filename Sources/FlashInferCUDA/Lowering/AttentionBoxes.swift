internal import CCUDA
internal import CUDAKernels
internal import FlashInferCore

/// The boxes in which Hopper's copy engine brings keys and values: rows of one block of one head, 128 bytes of each, or all where
/// they are widened later, or lie in shared memory as 128 bytes by 128 bytes of eight rows.
enum AttentionBoxes {
    /// Rows of a box of blocks of so many: the largest power of two that divides them, up to 64; `nil` for fewer than 8, as a
    /// swizzle repeats after eight rows.
    ///
    /// Stages have a multiple of 16 rows, and of a box's, and start at a box's first, so a box lies within one block and one stage.
    static func rows(ofBlocks blockSize: Int) -> Int? {
        let rows = min(blockSize & -blockSize, 64)
        return rows >= 8 ? rows : nil
    }

    /// Whether the driver makes a map of a tensor: there are elements, the address and strides are multiples of 16 bytes, strides positive
    /// and below 2^40 bytes.
    static func allow(_ tensor: KVTensor) -> Bool {
        let bytes = tensor.dtype.byteCount
        func allows(_ stride: Int, of extent: Int) -> Bool {
            extent <= 1 || (stride > 0 && stride * bytes & 15 == 0 && stride * bytes < 1 << 40)
        }
        let address = Int(bitPattern: tensor.view.address)
        return address != 0 && tensor.view.elementCount > 0 && address & 15 == 0
            && allows(tensor.headStride, of: tensor.headCount)
            && allows(tensor.tokenStride, of: tensor.blockSize ?? tensor.blockCount)
            && (tensor.blockSize == nil || allows(tensor.blockStride, of: tensor.blockCount))
    }

    /// Whether boxes of blocks have whole rows of so many 16-bit elements: 128 bytes several times.
    static func haveWholeRows(_ dim: Int) -> Bool { dim > 64 && dim % 64 == 0 }

    /// How many heads' places a block is from the next, where places go on from block to block, as they do in all usual layouts; `nil` if not.
    static func headsApart(_ tensor: KVTensor) -> Int? {
        guard tensor.headCount > 1, tensor.blockCount > 1 else { return 1 }
        let (apart, rest) = tensor.blockStride.quotientAndRemainder(dividingBy: tensor.headStride)
        return rest == 0 && apart * tensor.blockCount <= Int32.max ? apart : nil
    }

    /// The map of a paged cache's keys or values whose boxes have whole rows: 64 elements, 8 rows, elements by 64, rows by 8, heads' places.
    private static func wideMap(
        _ tensor: KVTensor, headDim: Int, boxRows: Int, context: CUDAContext
    ) throws(FlashInferError) -> fi_tensor_map {
        let (columns, rows) = (headDim / 64, tensor.blockSize ?? 8)
        let place = tensor.headCount > 1 ? tensor.headStride : tensor.blockCount > 1 ? tensor.blockStride : 8
        let places = (tensor.blockCount - 1) * (headsApart(tensor) ?? 1) + tensor.headCount
        return try encode(
            tensor, extents: [64, 8, columns, rows / 8, places].map { UInt64($0) },
            strides: [tensor.tokenStride, 64, 8 * tensor.tokenStride, place].map { UInt64($0 * 2) },
            box: [64, 8, UInt32(columns), UInt32(boxRows / 8), 1], swizzle: .rows128, context: context)
    }

    /// The map of a cache's keys or values.
    static func map(
        _ tensor: KVTensor, headDim: Int, boxRows: Int, isWide: Bool, isFloat8: Bool, context: CUDAContext
    ) throws(FlashInferError) -> fi_tensor_map {
        if isWide { return try wideMap(tensor, headDim: headDim, boxRows: boxRows, context: context) }
        let bytes = tensor.dtype.byteCount
        // Element, head, row of a block, block; a ragged tensor is one block. A stride of a dimension of one is not used, but must be
        // one that is allowed.
        let rows = tensor.blockSize ?? tensor.blockCount, blocks = tensor.blockSize == nil ? 1 : tensor.blockCount
        let extents = [headDim, tensor.headCount, rows, blocks].map { UInt64(max($0, 1)) }
        let strides = [
            (tensor.headStride, tensor.headCount), (tensor.tokenStride, rows), (tensor.blockStride, blocks),
        ].map { stride, extent in extent > 1 ? UInt64(stride * bytes) : 16 }
        // Rows of 128 bytes, or of 64 where those divide the padded head, are swizzled as wgmma reads them.
        let width = isFloat8 && (headDim + 63) & ~63 & 127 != 0 ? 64 : 128
        let isSwizzled = bytes == 2 || isFloat8
        let box = [isSwizzled ? UInt32(width / bytes) : UInt32(headDim), 1, UInt32(boxRows), 1]
        return try encode(
            tensor, extents: extents, strides: strides, box: box,
            swizzle: !isSwizzled ? .none : width == 128 ? .rows128 : .rows64, context: context)
    }

    /// In which order chunks of 16 bytes lie in shared memory: CUtensorMapSwizzle.
    private enum Swizzle: Int32 {
        case none = 0
        /// Rows of 64 bytes.
        case rows64 = 2
        /// Rows of 128 bytes.
        case rows128 = 3
    }

    /// A map of four dimensions, or five.
    private static func encode(
        _ tensor: KVTensor, extents: [UInt64], strides: [UInt64], box: [UInt32], swizzle: Swizzle, context: CUDAContext
    ) throws(FlashInferError) -> fi_tensor_map {
        var map = fi_tensor_map()
        // CU_TENSOR_MAP_DATA_TYPE_UINT8, _FLOAT16 and _BFLOAT16.
        let type: Int32 = tensor.dtype.byteCount == 1 ? 0 : tensor.dtype == .float16 ? 6 : 9
        let steps: [UInt32] = [1, 1, 1, 1, 1]
        // The driver writes at multiples of 64 bytes only.
        let place = UnsafeMutableRawPointer(bitPattern: UInt(tensor.view.address))
        guard let place else { throw .invalidArgument("cache", found: "no memory", expected: "a device address") }
        try context.call("cuTensorMapEncodeTiled") { functions in
            withUnsafeTemporaryAllocation(byteCount: 128, alignment: 64) { words in
                // No interleaving; promoted to 128 bytes in the L2 cache; zeros outside.
                let status = functions.cuTensorMapEncodeTiled(
                    words.baseAddress!, type, UInt32(extents.count), place, extents, strides, box, steps, 0,
                    swizzle.rawValue, 2, 0)
                if status == 0 { map = words.loadUnaligned(as: fi_tensor_map.self) }
                return status
            }
        }
        return map
    }
}

extension AttentionBoxes {
    /// The map of a part of a latent cache of 16-bit elements: element, row of a page, tile of 64 elements, page. Tiles are swizzled; where
    /// a box has all rows of a stage, it has `boxTiles` tiles, one behind the other.
    static func latentMap(
        _ tensor: KVTensor, boxRows: Int, boxTiles: Int, context: CUDAContext
    ) throws(FlashInferError) -> fi_tensor_map {
        let extents = [64, tensor.blockSize ?? 1, tensor.headDim / 64, tensor.blockCount]
        let strides = [tensor.tokenStride * 2, 128, tensor.blockStride * 2]
        return try encode(
            tensor, extents: extents.map { UInt64(max($0, 1)) },
            strides: zip(strides, extents.dropFirst()).map { $1 > 1 ? UInt64($0) : 16 },
            box: [64, UInt32(boxRows), UInt32(boxTiles), 1], swizzle: .rows128, context: context)
    }
}

extension AttentionOperation {
    /// The portable kernel counts where ragged keys and values lie in 32 bits of 16 bytes each, from their tensor's start.
    func checkRaggedReach() throws(FlashInferError) {
        for (tensor, name) in [(cache.keys, "keys"), (cache.values, "values")] {
            let rows = Int(tensor.blockSize ?? 1) * tensor.blockCount
            guard rows * max(tensor.tokenStride, 0) * tensor.dtype.byteCount < 1 << 36 else {
                throw .overflow("ragged \(name) of 64 GiB and more")
            }
        }
    }

    /// Whether Hopper's kernel takes this run's tensors; the portable one takes all.
    func allowsBoxes(_ parameters: fi_attention_params, _ heads: AttentionHeads) -> Bool {
        func allowsWideBoxes(_ tensor: KVTensor, _ dim: Int) -> Bool {
            !heads.hasWideBoxes(dim) || AttentionBoxes.headsApart(tensor) != nil
        }
        return parameters.query_is_aligned != 0 && parameters.output_is_aligned != 0 && AttentionBoxes.allow(cache.keys)
            && AttentionBoxes.allow(latent?.keys ?? cache.values)
            && allowsWideBoxes(cache.keys, heads.dimQK) && allowsWideBoxes(cache.values, heads.dimVO)
            // Products of the rest of latent keys are scaled by the portable kernel only, and so are scores that may not be positive.
            && latent.map { $0.scale == 1 && scoreScale > 0 } ?? true
    }
}

extension fi_hopper_attention_params {
    /// The portable kernel's parameter with the maps of the run's cache.
    init(
        _ parameters: fi_attention_params, _ operation: AttentionOperation, tile: AttentionTile, heads: AttentionHeads,
        context: CUDAContext
    ) throws(FlashInferError) {
        let isFloat8 = operation.queries.dtype == .float8E4M3
        let shape = operation.plan.runForm.heads
        let (keys, values) = (operation.cache.keys, operation.latent?.keys ?? operation.cache.values)
        self.init()
        attention = parameters
        box_rows = 1
        let stageRows = tile.keys
        var boxRows = stageRows
        // Threads widen latent keys of 8 bits.
        if tile.cluster > 0, keys.dtype.byteCount == 1 { return }
        if let pageSize = keys.blockSize {
            // Threads copy the rows.
            guard !heads.gathersRows, let pageRows = AttentionBoxes.rows(ofBlocks: pageSize) else { return }
            // Boxes of a page's rows are whole within a stage, too.
            boxRows = min(pageRows, stageRows & -stageRows)
        }
        if tile.cluster > 0 {
            // A stage comes in two halves of its values' columns, of which the blocks of a cluster bring a part each.
            let tiles = shape.headDimVO / 64 / 2 / tile.cluster
            self.keys = try AttentionBoxes.latentMap(
                keys, boxRows: boxRows, boxTiles: boxRows == stageRows ? tiles : 1, context: context)
            self.values = try AttentionBoxes.latentMap(values, boxRows: boxRows, boxTiles: 1, context: context)
            box_rows = Int32(boxRows)
            return
        }
        let (isWideKeys, isWideValues) = (heads.hasWideBoxes(shape.headDimQK), heads.hasWideBoxes(shape.headDimVO))
        self.keys = try AttentionBoxes.map(
            keys, headDim: shape.headDimQK, boxRows: boxRows, isWide: isWideKeys, isFloat8: isFloat8, context: context)
        self.values = try AttentionBoxes.map(
            values, headDim: shape.headDimVO, boxRows: boxRows, isWide: isWideValues, isFloat8: isFloat8,
            context: context)
        box_rows = Int32(boxRows)
        if isWideKeys { keys_apart = Int32(AttentionBoxes.headsApart(keys) ?? 1) }
        if isWideValues { values_apart = Int32(AttentionBoxes.headsApart(values) ?? 1) }
    }
}
