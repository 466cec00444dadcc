// swift-format-ignore-file: AlwaysUseLowerCamelCase
// The functions of this file have the header's names.

public import CFlashInfer
internal import FlashInferCore

/// Plans several levels of requests.
@c @implementation
public func fi_attention_plan_cascade(
    _ attention: OpaquePointer?, _ stream: UnsafeMutableRawPointer?, _ levels: UnsafePointer<fi_cascade_level>?,
    _ level_count: UInt64, _ page_size: Int64, _ page_count: Int64
) -> fi_status {
    perform {
        let attention = try object(attention, "attention", as: AttentionHandle.self)
        let stream = try attention.device.on(stream)
        guard let levels, level_count >= 1, level_count <= 64 else {
            throw FlashInferError.invalidArgument(
                "levels", found: levels == nil ? "NULL" : "\(level_count)", expected: "1 to 64 levels")
        }
        let host = HostArrays(device: stream.device)
        let size = try int(page_size, "page_size")
        let given = UnsafeBufferPointer(start: levels, count: Int(level_count))
        let tables = try given.enumerated().map { index, level in
            let indptr = try host.int32(level.kv_indptr, "levels[\(index)].kv_indptr")
            return (
                indptr: indptr,
                indices: try host.int32(level.kv_indices, "levels[\(index)].kv_indices").used(by: indptr)
            )
        }
        let pageCount = try tables.reduce(0) { max($0, try pages(page_count, $1.indices)) }
        let geometries = try zip(given, tables).enumerated().map { index, level in
            try BatchGeometry.paged(
                queryIndptr: host.int32(optional: level.0.qo_indptr, "levels[\(index)].qo_indptr"),
                pageIndptr: level.1.indptr, pageIndices: level.1.indices,
                lastPageLengths: host.int32(level.0.last_page_len, "levels[\(index)].last_page_len"), pageSize: size,
                pageCount: pageCount)
        }
        try attention.plan(.composed(geometries), on: stream)
    }
}

/// Plans over a paged cache, with what is shared read once.
@c @implementation
public func fi_attention_plan_shared_prefixes(
    _ attention: OpaquePointer?, _ stream: UnsafeMutableRawPointer?, _ qo_indptr: UnsafePointer<fi_tensor>?,
    _ kv_indptr: UnsafePointer<fi_tensor>?, _ kv_indices: UnsafePointer<fi_tensor>?,
    _ last_page_len: UnsafePointer<fi_tensor>?, _ page_size: Int64, _ page_count: Int64, _ max_levels: Int64
) -> fi_status {
    performPlan(attention, stream) { attention, stream, host in
        let geometry = try host.paged(
            qo_indptr, kv_indptr, kv_indices, lastPageLengths: last_page_len, page_size, page_count)
        let levels = try int(max_levels, "max_levels")
        try attention.planSharing(geometry, maximumLevels: levels == 0 ? 4 : levels, on: stream)
    }
}
