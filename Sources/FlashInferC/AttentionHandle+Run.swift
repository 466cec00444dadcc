internal import CFlashInfer
internal import FlashInferCore

extension AttentionHandle {
    /// Runs the plan on one layer's tensors.
    func run(_ args: fi_attention_run_args, on stream: StreamState) throws(FlashInferError) {
        try withState { (state) throws(FlashInferError) in
            guard let plan = state.plan, let region = state.workspace?.region, let allocated = state.allocated else {
                throw .planMismatch("the attention", planned: "nothing yet", found: "tensors")
            }
            let id = stream.id
            var cache = try Self.cache(args, state.settings.layout, columnBlock: state.columnBlock, plan, on: id)
            cache.scales = try Self.scales(args, state.settings, on: id)
            let lse = try TensorView(optional: args.lse, "lse", on: id)
            let isNatural = try flag("lse_natural", args.lse_natural)
            let operation = try AttentionOperation(
                queries: TensorView(args.q, "q", on: id),
                queryScalePerHead: Self.heads(args.q_scales, "q_scales", state.settings.shape.queryHeads, on: id),
                cache: cache, output: TensorView(args.out, "out", on: id),
                logSumExp: lse, mask: TensorView(optional: args.mask, "mask", on: id, .bits),
                alibiSlopes: TensorView(optional: args.alibi_slopes, "alibi_slopes", on: id),
                sinks: TensorView(optional: args.sinks, "sinks", on: id),
                parameters: Self.parameters(args, on: id),
                pageIndices: TensorView(optional: args.page_indices, "page_indices", on: id, .index)?.flattened,
                pagePositions: TensorView(optional: args.page_positions, "page_positions", on: id, .index)?.flattened,
                plan: plan, workspace: region, capacity: allocated)
            try operation.validate()
            try stream.device.execute(.attention(operation))
            state.use(stream)
            if isNatural, let lse { try stream.makeNatural(lse) }
        }
    }

    private static func cache(
        _ args: fi_attention_run_args, _ layout: KVLayout, columnBlock: Int?, _ plan: Plan, on id: DeviceID
    ) throws(FlashInferError) -> KVCacheView {
        if args.k == nil, args.v == nil, args.kv != nil {
            return try .paged(combined: TensorView(args.kv, "kv", on: id), layout: layout)
        }
        guard args.kv == nil else {
            throw .invalidArgument("kv", found: "given besides k or v", expected: "NULL, or k and v NULL")
        }
        var keys = try TensorView(args.k, "k", on: id)
        var values = try TensorView(args.v, "v", on: id)
        if plan.problem.geometry.blocks.blocksAreRows {
            return try .ragged(keys: keys, values: values, layout: layout)
        }
        if let columnBlock {
            keys = try keys.inBlocks(of: columnBlock, layout, "k")
            values = try values.inBlocks(of: columnBlock, layout, "v")
        }
        return try .paged(keys: keys, values: values, layout: layout)
    }

    /// The variant's parameters, by name.
    private static func parameters(
        _ args: fi_attention_run_args, on id: DeviceID
    ) throws(FlashInferError) -> [String: TensorView] {
        if args.parameter_count == 0 { return [:] }
        guard let list = args.parameters, let count = Int(exactly: args.parameter_count), count <= 64 else {
            throw .invalidArgument(
                "parameters", found: args.parameters == nil ? "NULL" : "\(args.parameter_count) of them",
                expected: "parameter_count parameters, 64 at most")
        }
        var result: [String: TensorView] = [:]
        for index in 0..<count {
            guard let name = list[index].name else {
                throw .invalidArgument("parameters[\(index)].name", found: "NULL", expected: "a name")
            }
            let text = String(cString: name)
            result[text] = try TensorView(list[index].tensor, text, on: id)
        }
        return result
    }

    private static func scales(
        _ args: fi_attention_run_args, _ settings: AttentionSettings, on id: DeviceID
    ) throws(FlashInferError) -> KVScales {
        func factor(_ name: String, _ number: Float) throws(FlashInferError) -> Float {
            guard number.isFinite else { throw .invalidArgument(name, found: "\(number)", expected: "finite") }
            return number == 0 ? 1 : number
        }
        var key = try factor("q_scale", args.q_scale) * factor("k_scale", args.k_scale)
        if args.sm_scale != 0 { key *= try factor("sm_scale", args.sm_scale) / settings.scale }
        let value = try factor("v_scale", args.v_scale) * factor("o_scale", args.o_scale)
        return try KVScales(
            key: key, value: value,
            keyPerHead: heads(args.k_scales, "k_scales", settings.shape.kvHeads, on: id),
            valuePerHead: heads(args.v_scales, "v_scales", settings.shape.kvHeads, on: id))
    }

    private static func heads(
        _ tensor: UnsafePointer<fi_tensor>?, _ name: String, _ heads: Int, on id: DeviceID
    ) throws(FlashInferError) -> TensorView? {
        guard let view = try TensorView(optional: tensor, name, on: id) else { return nil }
        return try perHead(view, name, heads)
    }
}

/// Checks that `view` is a contiguous float32 vector with a number for each of `heads` heads.
func perHead(_ view: TensorView, _ name: String, _ heads: Int) throws(FlashInferError) -> TensorView {
    guard view.dtype == .float32, view.shape == [heads], view.isContiguous else {
        throw .invalidArgument(name, found: "\(view.dtype) \(view.shape)", expected: "contiguous float32 [\(heads)]")
    }
    return view
}

extension TensorView {
    /// A contiguous table's entries as one vector; anything else as it is.
    fileprivate var flattened: TensorView {
        guard rank == 2 || rank == 3, isContiguous,
            let flat = try? TensorView(region, byteOffset: byteOffset, dtype: dtype, shape: [elementCount])
        else { return self }
        return flat
    }

    /// `[columns, heads, dim]` as blocks of `size` columns (`hnd`: `[heads, columns, dim]`); blocks stay as they are.
    fileprivate func inBlocks(of size: Int, _ layout: KVLayout, _ name: String) throws(FlashInferError) -> TensorView {
        guard rank == 3 else { return self }
        let (column, head) = layout == .nhd ? (0, 1) : (1, 0)
        guard shape[column] % size == 0 else {
            throw .invalidArgument(
                "\(name) columns", found: "\(shape[column])", expected: "a multiple of the column block, \(size)")
        }
        let (blockStride, overflow) = strides[column].multipliedReportingOverflow(by: size)
        guard !overflow else { throw .overflow("\(name) strides") }
        let blocks = shape[column] / size
        let (heads, headStride) = (shape[head], strides[head])
        return try TensorView(
            region, byteOffset: byteOffset, dtype: dtype,
            shape: layout == .nhd ? [blocks, size, heads, shape[2]] : [blocks, heads, size, shape[2]],
            strides: layout == .nhd
                ? [blockStride, strides[column], headStride, strides[2]]
                : [blockStride, headStride, strides[column], strides[2]],
            name: name)
    }
}
