internal import CUDAKernels
internal import FlashInferCore

extension fi_attention_params {
    /// Everything that a plan in a workspace settles.
    ///
    /// - Parameters:
    ///   - slopes: the address of ALiBi's own slopes; 0 where there is no ALiBi.
    ///   - turns: the address of RoPE's turns; 0 where there is no RoPE.
    ///   - sinks: the address of the variant's own sinks; 0 where it has none.
    init(_ plan: Plan, layout: PlanLayout, workspace: UInt, slopes: UInt, turns: UInt, sinks: UInt) {
        self.init()
        let (problem, base) = (plan.problem, UInt64(workspace))
        let (shape, variant, blocks) = (problem.shape, problem.variant, problem.geometry.blocks)
        items = base + UInt64(layout.items)
        item_indptr = base + UInt64(layout.itemIndptr)
        arrivals = base + UInt64(layout.arrivals)
        queue_cursors = base + UInt64(layout.queueCursors)
        list_count = base + UInt64(layout.listCount)
        segment_indptr = base + UInt64(layout.segmentIndptr)
        list_indptr = base + UInt64(layout.listIndptr)
        states = base + UInt64(layout.states)
        block_indices = base + UInt64(layout.blockIndices)
        partial_output = base + UInt64(layout.partialOutput)
        partial_lse = base + UInt64(layout.partialLSE)
        mask_indptr = base + UInt64(layout.maskIndptr)
        alibi_slopes = UInt64(slopes)
        rope_turns = UInt64(turns)
        self.sinks = UInt64(sinks)
        let division = FastDivision(by: blocks.blockSize)
        block_size = UInt32(blocks.blockSize)
        block_size_multiplier = division.multiplier
        block_size_shift = division.shift
        let groupDivision = FastDivision(by: shape.group)
        group = UInt32(shape.group)
        group_multiplier = groupDivision.multiplier
        group_shift = groupDivision.shift
        list_heads = UInt32(plan.traits.concurrentHeads)
        query_heads = Int32(shape.queryHeads)
        kv_heads = Int32(shape.kvHeads)
        query_count = Int32(problem.geometry.queryCount)
        head_entries = Int32(blocks.headStride)
        column_count = Int64(blocks.blockLimit) * Int64(blocks.blockSize)
        is_causal = variant.form.mask == .causal ? 1 : 0
        window_left = variant.windowLeft.map { Int64(min($0, Int(Int32.max))) } ?? -1
        if let cap = variant.logitsSoftCap { (self.cap, inverse_cap) = (cap, 1 / cap) }
        if case .rope(let rope) = variant.positionEncoding { rotary_dim = Int32(rope.rotaryDim ?? shape.headDimQK) }
    }

    /// Adds what one run's tensors settle.
    mutating func set(_ operation: AttentionOperation) {
        let form = operation.plan.runForm
        self.queries = UInt64(operation.queries.address)
        query_token = Int64(operation.queries.strides[0])
        query_head = Int64(operation.queries.strides[1])
        self.output = UInt64(operation.output.address)
        output_token = Int64(operation.output.strides[0])
        output_head = Int64(operation.output.strides[1])
        if let lse = operation.logSumExp {
            self.lse = UInt64(lse.address)
            lse_token = Int64(lse.strides[0])
            lse_head = Int64(lse.strides[1])
        }
        keys = fi_kv_tensor(operation.cache.keys)
        values = fi_kv_tensor(operation.cache.values)
        if let latent = operation.latent { set(latent) }
        if let pages = operation.pageIndices { block_indices = UInt64(pages.address) }
        if let places = operation.pagePositions { block_places = UInt64(places.address) }
        if let mask = operation.mask { self.mask = UInt64(mask.address) }
        if let slopes = operation.alibiSlopes { alibi_slopes = UInt64(slopes.address) }
        if let sinks = operation.sinks { self.sinks = UInt64(sinks.address) }
        if let scales = operation.queryScalePerHead { query_scales = UInt64(scales.address) }
        if let scales = operation.cache.scales.keyPerHead { key_scales = UInt64(scales.address) }
        if let scales = operation.cache.scales.valuePerHead { value_scales = UInt64(scales.address) }
        // Widening to float16 gives e4m3 values short of this factor; see primitives/convert.cuh. To bfloat16, and for products of 8
        // bits, there is none.
        let isFloat16 = AttentionKernel.halfType(query: form.queryType, cache: form.kvType) == .float16
        let deficit: Float = isFloat16 && form.kvType == .float8E4M3 ? 256 : 1
        let queryDeficit: Float = isFloat16 && form.queryType == .float8E4M3 ? 256 : 1
        score_scale = operation.scoreScale * deficit * queryDeficit
        value_scale = operation.cache.scales.value * deficit
        if form.hasParameters { set(operation.parameters, of: operation.plan.problem.variant) }
        let restAlignment = operation.latent.map { Self.alignment($0.queries) } ?? 0
        query_is_aligned = (Self.alignment(operation.queries) | restAlignment) & 15 == 0 ? 1 : 0
        output_is_aligned = Self.alignment(operation.output) & 15 == 0 ? 1 : 0
    }

    /// The rest of latent attention's queries and keys.
    private mutating func set(_ latent: LatentPart) {
        rope_queries = UInt64(latent.queries.address)
        rope_query_token = Int64(latent.queries.strides[0])
        rope_query_head = Int64(latent.queries.strides[1])
        rope_scale = latent.scale
        values = fi_kv_tensor(latent.keys)
    }

    /// The tensors of a variant's parameters.
    private mutating func set(_ tensors: [String: TensorView], of variant: AttentionVariant) {
        let declared = variant.form.parameters
        withUnsafeMutableBytes(of: &self.variant) { bytes in
            let places = bytes.bindMemory(to: fi_variant_tensor.self)
            for (parameter, place) in zip(declared, places.indices) {
                guard let view = tensors[parameter.name] else { continue }
                places[place] = fi_variant_tensor(
                    address: UInt64(view.address), rows: Int32(view.rank == 2 ? view.shape[0] : 1),
                    columns: Int32(view.shape[-1]))
            }
        }
    }

    /// An address and the strides of a row, in bytes, ORed.
    private static func alignment(_ view: TensorView) -> Int {
        Int(bitPattern: view.address) | (view.strides[0] | view.strides[1]) * view.dtype.byteCount
    }
}

extension fi_kv_tensor {
    init(_ tensor: KVTensor) {
        self.init(
            address: UInt64(tensor.view.address), block: Int64(tensor.blockStride), token: Int64(tensor.tokenStride),
            head: Int64(tensor.headStride))
    }
}

extension AttentionOperation {
    /// What scores are multiplied by: the variant's scale, the queries', and the cache's for its keys.
    var scoreScale: Float { plan.runForm.scale * cache.scales.key * queryScale }

    /// Bytes that all addresses and strides of keys and values are multiples of, at most what the heads allow.
    func chunk(_ heads: AttentionHeads) -> Int {
        min(
            AttentionKernel.chunk(
                dividing: cache.keys.alignment | cache.values.alignment | (latent?.keys.alignment ?? 0)),
            AttentionKernel.largestChunk(heads))
    }
}

extension KVTensor {
    /// Its address and strides in bytes, ORed.
    fileprivate var alignment: Int {
        Int(bitPattern: view.address) | (blockStride | tokenStride | headStride) * dtype.byteCount
    }
}
