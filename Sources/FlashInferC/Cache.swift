// swift-format-ignore-file: AlwaysUseLowerCamelCase
// The functions of this file have the header's names.

public import CFlashInfer
internal import FlashInferCore

/// Appends keys and values to a paged cache.
@c @implementation
public func fi_append_paged_kv(
    _ device: OpaquePointer?, _ stream: UnsafeMutableRawPointer?, _ args: UnsafePointer<fi_append_args>?
) -> fi_status {
    perform {
        let stream = try call(device, stream)
        let (keys, values, cache, slots) = try stream.append(args, "args")
        try stream.run(.appendKV(AppendKVOperation(keys: keys, values: values, cache: cache, slots: slots)))
    }
}

/// Rotary position embedding of queries and keys, and the keys and values appended to a paged cache.
@c @implementation
public func fi_rope_append(
    _ device: OpaquePointer?, _ stream: UnsafeMutableRawPointer?, _ q: UnsafePointer<fi_tensor>?,
    _ q_out: UnsafePointer<fi_tensor>?, _ q_scale: Float, _ positions: UnsafePointer<fi_tensor>?,
    _ append: UnsafePointer<fi_append_args>?, _ rope: UnsafePointer<fi_rope_options>?
) -> fi_status {
    perform {
        let stream = try call(device, stream)
        let id = stream.id
        let queries = try TensorView(q, "q", on: id)
        let queryOutput = try TensorView(optional: q_out, "q_out", on: id)
        let positions = try TensorView(positions, "positions", on: id, .index)
        let extras = try RoPEExtras(rope, on: id)
        let (keys, values, cache, slots) = try stream.append(append, "append")
        try stream.run(
            .ropeAppendKV(
                RoPEAppendKVOperation(
                    queries: queries, keys: keys, values: values, queryOutput: queryOutput,
                    queryScale: q_scale == 0 ? 1 : q_scale, positions: positions, parameters: RoPEParameters(rope),
                    table: extras.table, normalization: extras.normalization, cache: cache, slots: slots)))
    }
}

extension StreamState {
    /// What a caller appends, to what, and where.
    fileprivate func append(
        _ args: UnsafePointer<fi_append_args>?, _ name: String
    ) throws -> (keys: TensorView, values: TensorView, cache: KVCacheView, slots: KVSlots) {
        let args = try options(args, name, empty: fi_append_args())
        let (cache, isLatent, slots) = try destination(args, name)
        var keys = try TensorView(args.k, "k", on: id)
        var values = try TensorView(args.v, "v", on: id)
        if isLatent { (keys, values) = (try keys.withHeads, try values.withHeads) }
        // A count that fits nothing would be told of the keys' shape only.
        guard keys.rank >= 1, slots.count == keys.shape[0] else {
            throw FlashInferError.lengthMismatch(
                "slots", found: slots.count, expected: keys.rank >= 1 ? keys.shape[0] : 0)
        }
        return (keys, values, cache, slots)
    }

    /// A caller's cache, whether it is one of latent attention, and where in it tokens go; keys and values must not be given.
    func destination(
        _ args: UnsafePointer<fi_append_args>?, _ name: String
    ) throws -> (cache: KVCacheView, isLatent: Bool, slots: KVSlots) {
        let args = try options(args, name, empty: fi_append_args())
        guard args.k == nil, args.v == nil else {
            throw FlashInferError.invalidArgument(
                "\(name)->k and v", found: "tensors", expected: "NULL, as keys and values are given otherwise")
        }
        return try destination(args, name)
    }

    private func destination(
        _ args: fi_append_args, _ name: String
    ) throws -> (cache: KVCacheView, isLatent: Bool, slots: KVSlots) {
        let isLatent = args.kv_cache == nil && args.k_cache?.pointee.ndim == 3
        var cache =
            isLatent
            ? try .paged(
                keys: TensorView(args.k_cache, "k_cache", on: id).withCacheHeads,
                values: TensorView(args.v_cache, "v_cache", on: id).withCacheHeads)
            : try KVCacheView(split: args.k_cache, args.v_cache, combined: args.kv_cache, args.kv_layout, on: id)
        let heads = cache.keys.headCount
        cache.scales = try KVScales(
            key: args.k_scale == 0 ? 1 : args.k_scale, value: args.v_scale == 0 ? 1 : args.v_scale,
            keyPerHead: TensorView(optional: args.k_scales, "k_scales", on: id).map { (view) throws(FlashInferError) in
                try perHead(view, "k_scales", heads)
            },
            valuePerHead: TensorView(optional: args.v_scales, "v_scales", on: id).map {
                (view) throws(FlashInferError) in
                try perHead(view, "v_scales", heads)
            })
        let slots = try KVSlots(args, name, pageSize: cache.keys.blockSize ?? 1, HostArrays(device: device))
        return (cache, isLatent, slots)
    }
}

/// Copies whole pages.
@c @implementation
public func fi_copy_pages(
    _ device: OpaquePointer?, _ stream: UnsafeMutableRawPointer?, _ k_cache: UnsafePointer<fi_tensor>?,
    _ v_cache: UnsafePointer<fi_tensor>?, _ kv_cache: UnsafePointer<fi_tensor>?, _ kv_layout: Int32,
    _ sources: UnsafePointer<fi_tensor>?, _ destinations: UnsafePointer<fi_tensor>?
) -> fi_status {
    perform {
        let stream = try call(device, stream)
        let host = HostArrays(device: stream.device)
        try stream.run(
            .copyPages(
                CopyPagesOperation(
                    cache: KVCacheView(split: k_cache, v_cache, combined: kv_cache, kv_layout, on: stream.id),
                    sources: host.int32(sources, "sources"), destinations: host.int32(destinations, "destinations"))))
    }
}

extension KVCacheView {
    /// A paged cache of two tensors or of one.
    init(
        split keys: UnsafePointer<fi_tensor>?, _ values: UnsafePointer<fi_tensor>?,
        combined: UnsafePointer<fi_tensor>?, _ layout: Int32, on id: DeviceID
    ) throws(FlashInferError) {
        let layout = try KVLayout(layout)
        guard let combined else {
            self = try .paged(
                keys: TensorView(keys, "k_cache", on: id), values: TensorView(values, "v_cache", on: id),
                layout: layout)
            return
        }
        guard keys == nil, values == nil else {
            throw .invalidArgument(
                "kv_cache", found: "given besides k_cache or v_cache", expected: "NULL, or k_cache and v_cache NULL")
        }
        self = try .paged(combined: TensorView(combined, "kv_cache", on: id), layout: layout)
    }
}

extension KVSlots {
    /// Slots in whichever way the caller says them.
    fileprivate init(
        _ args: fi_append_args, _ name: String, pageSize: Int, _ host: HostArrays
    ) throws(FlashInferError) {
        let ways = [args.batch_indices, args.append_indptr, args.slot_mapping, args.slot_table].filter { $0 != nil }
        guard ways.count == 1 else {
            throw .invalidArgument(
                name, found: "\(ways.count) of batch_indices, append_indptr, slot_mapping and slot_table",
                expected: "exactly one")
        }
        if args.slot_table != nil {
            try self.init(table: host.view(required(args.slot_table, "slot_table"), "slot_table", .index))
        } else if args.slot_mapping != nil {
            try self.init(slots: host.slots(args.slot_mapping), pageSize: pageSize)
        } else if args.append_indptr != nil {
            let table = try PageList(args.kv_indptr, args.kv_indices, args.last_page_len, pageSize, host)
            try self.init(table.geometry(queryIndptr: host.int32(args.append_indptr, "append_indptr")))
        } else {
            let table = try PageList(args.kv_indptr, args.kv_indices, args.last_page_len, pageSize, host)
            try self.init(
                table: table.geometry().blocks, batchIndices: host.int32(args.batch_indices, "batch_indices"),
                positions: host.int32(args.positions, "positions"))
        }
    }
}

/// A page table in CSR form, as the caller gives it.
struct PageList {
    private let indptr: [Int32]
    private let indices: [Int32]
    private let lastPageLengths: [Int32]
    private let pageSize: Int

    init(
        _ indptr: UnsafePointer<fi_tensor>?, _ indices: UnsafePointer<fi_tensor>?,
        _ lastPageLengths: UnsafePointer<fi_tensor>?, _ pageSize: Int, _ host: HostArrays
    ) throws(FlashInferError) {
        self.indptr = try host.int32(indptr, "kv_indptr")
        self.indices = try host.int32(indices, "kv_indices").used(by: self.indptr)
        self.lastPageLengths = try host.int32(lastPageLengths, "last_page_len")
        self.pageSize = pageSize
    }

    /// The table, whose ids an operation checks against its cache.
    func geometry(queryIndptr: [Int32]? = nil) throws(FlashInferError) -> BatchGeometry {
        try .paged(
            queryIndptr: queryIndptr, pageIndptr: indptr, pageIndices: indices, lastPageLengths: lastPageLengths,
            pageSize: pageSize, pageCount: Int(Int32.max))
    }
}
