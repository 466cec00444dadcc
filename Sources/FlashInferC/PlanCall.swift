internal import CFlashInfer
internal import FlashInferCore

/// Runs the body of a function that plans: with the attention, the stream's device, and what reads the host's arrays there.
@inline(__always)
func performPlan(
    _ attention: OpaquePointer?, _ stream: UnsafeMutableRawPointer?,
    _ body: (AttentionHandle, StreamState, HostArrays) throws -> Void
) -> fi_status {
    perform {
        let attention = try object(attention, "attention", as: AttentionHandle.self)
        let stream = try attention.device.on(stream)
        try body(attention, stream, HostArrays(device: stream.device))
    }
}

extension HostArrays {
    /// The batch of a paged cache, as the ABI has it: every request's pages, and the tokens on its last one.
    func paged(
        _ queryIndptr: UnsafePointer<fi_tensor>?, _ pageIndptr: UnsafePointer<fi_tensor>?,
        _ pageIndices: UnsafePointer<fi_tensor>?, lastPageLengths: UnsafePointer<fi_tensor>?, _ pageSize: Int64,
        _ pageCount: Int64
    ) throws(FlashInferError) -> BatchGeometry {
        let indptr = try int32(pageIndptr, "kv_indptr")
        let indices = try int32(pageIndices, "kv_indices").used(by: indptr)
        return try .paged(
            queryIndptr: int32(optional: queryIndptr, "qo_indptr"), pageIndptr: indptr, pageIndices: indices,
            lastPageLengths: int32(lastPageLengths, "last_page_len"), pageSize: int(pageSize, "page_size"),
            pageCount: pages(pageCount, indices))
    }
}
