// swift-format-ignore-file: AlwaysUseLowerCamelCase
// The functions of this file have the header's names.

public import CFlashInfer
internal import FlashInferCore

/// Makes an attention.
@c @implementation
public func fi_attention_create(
    _ device: OpaquePointer?, _ options: UnsafePointer<fi_attention_options>?,
    _ attention: UnsafeMutablePointer<OpaquePointer?>?
) -> fi_status {
    perform {
        guard let attention else {
            throw FlashInferError.invalidArgument("attention", found: "NULL", expected: "a pointer")
        }
        let device = try object(device, "device", as: DeviceHandle.self)
        attention.pointee = handle(AttentionHandle(try AttentionSettings(options, on: device.base), on: device))
    }
}

/// Frees an attention.
@c @implementation
public func fi_attention_destroy(_ attention: OpaquePointer?) { release(attention, as: AttentionHandle.self) }

/// Gives an attention other options.
@c @implementation
public func fi_attention_configure(
    _ attention: OpaquePointer?, _ options: UnsafePointer<fi_attention_options>?
) -> fi_status {
    perform {
        let attention = try object(attention, "attention", as: AttentionHandle.self)
        attention.configure(try AttentionSettings(options, on: attention.device.base))
    }
}

/// Plans over a paged cache.
@c @implementation
public func fi_attention_plan_paged(
    _ attention: OpaquePointer?, _ stream: UnsafeMutableRawPointer?, _ qo_indptr: UnsafePointer<fi_tensor>?,
    _ kv_indptr: UnsafePointer<fi_tensor>?, _ kv_indices: UnsafePointer<fi_tensor>?,
    _ last_page_len: UnsafePointer<fi_tensor>?, _ page_size: Int64, _ page_count: Int64
) -> fi_status {
    performPlan(attention, stream) { attention, stream, host in
        let geometry = try host.paged(
            qo_indptr, kv_indptr, kv_indices, lastPageLengths: last_page_len, page_size, page_count)
        try attention.plan(geometry, on: stream)
    }
}

/// Plans over a paged cache with a dense table.
@c @implementation
public func fi_attention_plan_block_tables(
    _ attention: OpaquePointer?, _ stream: UnsafeMutableRawPointer?, _ qo_indptr: UnsafePointer<fi_tensor>?,
    _ block_tables: UnsafePointer<fi_tensor>?, _ seq_lens: UnsafePointer<fi_tensor>?, _ page_size: Int64,
    _ page_count: Int64
) -> fi_status {
    performPlan(attention, stream) { attention, stream, host in
        let size = try int(page_size, "page_size")
        let table = try PageTable(host.matrix(block_tables, "block_tables"), host.int32(seq_lens, "seq_lens"), size)
        try attention.plan(
            .paged(
                queryIndptr: host.int32(optional: qo_indptr, "qo_indptr"), pageIndptr: table.indptr,
                pageIndices: table.indices, lastPageLengths: table.lastPageLengths, pageSize: size,
                pageCount: pages(page_count, table.indices)),
            on: stream)
    }
}

/// Plans over pages that are chosen on the device.
@c @implementation
public func fi_attention_plan_selected_pages(
    _ attention: OpaquePointer?, _ stream: UnsafeMutableRawPointer?, _ qo_indptr: UnsafePointer<fi_tensor>?,
    _ kv_len: UnsafePointer<fi_tensor>?, _ k: Int64, _ page_size: Int64, _ page_count: Int64
) -> fi_status {
    fi_attention_plan_selected_pages_with_options(
        attention, stream, qo_indptr, kv_len, k, page_size, page_count, nil)
}

/// Plans over pages that are chosen on the device, with their places or for each head.
@c @implementation
public func fi_attention_plan_selected_pages_with_options(
    _ attention: OpaquePointer?, _ stream: UnsafeMutableRawPointer?, _ qo_indptr: UnsafePointer<fi_tensor>?,
    _ kv_len: UnsafePointer<fi_tensor>?, _ k: Int64, _ page_size: Int64, _ page_count: Int64,
    _ selection: UnsafePointer<fi_selected_pages_options>?
) -> fi_status {
    performPlan(attention, stream) { attention, stream, host in
        let given =
            try selection == nil
            ? fi_selected_pages_options() : options(selection, "options", empty: fi_selected_pages_options())
        let hasPositions = try flag("has_positions", given.has_positions)
        let isPerHead = try flag("per_head", given.per_head)
        try attention.plan(
            .selectedPages(
                queryIndptr: host.int32(optional: qo_indptr, "qo_indptr"), kvLengths: host.int32(kv_len, "kv_len"),
                pagesPerRequest: int(k, "k"), pageSize: int(page_size, "page_size"),
                pageCount: int(page_count, "page_count"), keyPositions: hasPositions ? .places : .sequential,
                tableHeads: isPerHead ? attention.kvHeads() : nil),
            on: stream)
    }
}

/// Plans over ragged keys and values.
@c @implementation
public func fi_attention_plan_ragged(
    _ attention: OpaquePointer?, _ stream: UnsafeMutableRawPointer?, _ qo_indptr: UnsafePointer<fi_tensor>?,
    _ kv_indptr: UnsafePointer<fi_tensor>?
) -> fi_status {
    performPlan(attention, stream) { attention, stream, host in
        try attention.plan(
            .ragged(
                queryIndptr: host.int32(qo_indptr, "qo_indptr"), kvIndptr: host.int32(kv_indptr, "kv_indptr")),
            on: stream)
    }
}

/// Plans one request.
@c @implementation
public func fi_attention_plan_single(
    _ attention: OpaquePointer?, _ stream: UnsafeMutableRawPointer?, _ qo_len: Int64, _ kv_len: Int64
) -> fi_status {
    perform {
        let attention = try object(attention, "attention", as: AttentionHandle.self)
        try attention.plan(
            .contiguous(queryLength: int(qo_len, "qo_len"), kvLength: int(kv_len, "kv_len")),
            on: attention.device.on(stream))
    }
}

/// Plans a block-sparse matrix.
@c @implementation
public func fi_attention_plan_block_sparse(
    _ attention: OpaquePointer?, _ stream: UnsafeMutableRawPointer?, _ rows: Int64, _ columns: Int64,
    _ row_block: Int64, _ column_block: Int64, _ indptr: UnsafePointer<fi_tensor>?,
    _ indices: UnsafePointer<fi_tensor>?
) -> fi_status {
    performPlan(attention, stream) { attention, stream, host in
        let columnBlock = try int(column_block, "column_block")
        try attention.plan(
            .blockSparse(
                rows: int(rows, "rows"), columns: int(columns, "columns"), rowBlock: int(row_block, "row_block"),
                columnBlock: columnBlock, indptr: host.int32(indptr, "indptr"),
                indices: host.int32(indices, "indices")),
            columnBlock: columnBlock, on: stream)
    }
}

/// Runs a plan.
@c @implementation
public func fi_attention_run(
    _ attention: OpaquePointer?, _ stream: UnsafeMutableRawPointer?, _ args: UnsafePointer<fi_attention_run_args>?
) -> fi_status {
    perform {
        let attention = try object(attention, "attention", as: AttentionHandle.self)
        let args = try options(args, "args", empty: fi_attention_run_args())
        try attention.run(args, on: attention.device.on(stream))
    }
}

/// What a plan came to.
@c @implementation
public func fi_attention_get_plan_info(
    _ attention: OpaquePointer?, _ info: UnsafeMutablePointer<fi_attention_plan_info>?
) -> fi_status {
    perform {
        let attention = try object(attention, "attention", as: AttentionHandle.self)
        let found = try attention.withState { (state) throws(FlashInferError) -> fi_attention_plan_info in
            guard let plan = state.plan else {
                throw .planMismatch("the attention", planned: "nothing yet", found: "a question about its plan")
            }
            var found = fi_attention_plan_info()
            let geometry = plan.problem.geometry
            found.queries = Int64(geometry.queryCount)
            found.requests = Int64(geometry.requestCount)
            found.work_items = Int64(plan.size.itemCount)
            found.merge_items = Int64(plan.merges.count)
            found.workspace_bytes = Int64(state.workspace?.region.byteCount ?? 0)
            found.levels = Int64(geometry.levelCount)
            let mask = plan.problem.variant.form.mask
            if mask == .custom || mask == .customPacked {
                found.mask_bytes = Int64(
                    try AttentionOperation.maskIndptr(geometry, packed: mask == .customPacked).last ?? 0)
            }
            return found
        }
        try store(found, to: info, "info")
    }
}

/// A size of the caller's.
func int(_ value: Int64, _ name: String) throws(FlashInferError) -> Int {
    guard value >= 0, value <= Int64(Int32.max) else {
        throw .invalidArgument(name, found: "\(value)", expected: "in 0 ... \(Int32.max)")
    }
    return Int(value)
}

extension [Int32] {
    /// The ids that an indptr reaches: whatever a buffer holds past them is nobody's.
    func used(by indptr: [Int32]) -> [Int32] {
        guard let end = indptr.last, end >= 0, end < count else { return self }
        return Array(prefix(Int(end)))
    }
}

/// Pages of a cache; where 0, as many as the ids need.
func pages(_ count: Int64, _ ids: [Int32]) throws(FlashInferError) -> Int {
    if count != 0 { return try int(count, "page_count") }
    return ids.reduce(0) { max($0, Int($1) + 1) }
}
