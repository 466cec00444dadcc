// swift-format-ignore-file: AlwaysUseLowerCamelCase
// The functions of this file have the header's names.

public import CFlashInfer
internal import FlashInferCore

/// The request and position of each appended token.
@c @implementation
public func fi_batch_indices_positions(
    _ device: OpaquePointer?, _ stream: UnsafeMutableRawPointer?, _ append_indptr: UnsafePointer<fi_tensor>?,
    _ seq_lens: UnsafePointer<fi_tensor>?, _ batch_indices: UnsafePointer<fi_tensor>?,
    _ positions: UnsafePointer<fi_tensor>?
) -> fi_status {
    perform {
        let host = HostArrays(device: try call(device, stream).device)
        let output = try host.view(required(batch_indices, "batch_indices"), "batch_indices", .index)
        let result = try KVPositions.batchIndicesPositions(
            appendIndptr: host.int32(append_indptr, "append_indptr"),
            sequenceLengths: host.int32(seq_lens, "seq_lens"), count: output.elementCount)
        // Both are checked before either is written.
        let first = try host.output(batch_indices, "batch_indices", count: result.batchIndices.count)
        let second = try host.output(positions, "positions", count: result.positions.count)
        try host.copy(result.batchIndices, to: first)
        try host.copy(result.positions, to: second)
    }
}

/// Keys of each request.
@c @implementation
public func fi_seq_lens(
    _ device: OpaquePointer?, _ stream: UnsafeMutableRawPointer?, _ kv_indptr: UnsafePointer<fi_tensor>?,
    _ last_page_len: UnsafePointer<fi_tensor>?, _ page_size: Int64, _ seq_lens: UnsafePointer<fi_tensor>?
) -> fi_status {
    perform {
        let host = HostArrays(device: try call(device, stream).device)
        let lengths = try KVPositions.sequenceLengths(
            pageIndptr: host.int32(kv_indptr, "kv_indptr"),
            lastPageLengths: host.int32(last_page_len, "last_page_len"), pageSize: int(page_size, "page_size"))
        try host.write(lengths, to: seq_lens, "seq_lens")
    }
}

/// The slots of tokens as a tensor that appends read when they run.
@c @implementation
public func fi_slot_table(
    _ device: OpaquePointer?, _ stream: UnsafeMutableRawPointer?, _ kv_indptr: UnsafePointer<fi_tensor>?,
    _ kv_indices: UnsafePointer<fi_tensor>?, _ last_page_len: UnsafePointer<fi_tensor>?, _ page_size: Int64,
    _ batch_indices: UnsafePointer<fi_tensor>?, _ positions: UnsafePointer<fi_tensor>?,
    _ slot_table: UnsafePointer<fi_tensor>?
) -> fi_status {
    perform {
        let host = HostArrays(device: try call(device, stream).device)
        let size = try int(page_size, "page_size")
        let table = try PageList(kv_indptr, kv_indices, last_page_len, size, host)
        let slots = try KVSlots(
            table: table.geometry().blocks, batchIndices: host.int32(batch_indices, "batch_indices"),
            positions: host.int32(positions, "positions"))
        try host.write(slots.blocks + slots.rows, to: slot_table, "slot_table")
    }
}

/// Positions that count up from each request's offset.
@c @implementation
public func fi_rope_positions(
    _ device: OpaquePointer?, _ stream: UnsafeMutableRawPointer?, _ indptr: UnsafePointer<fi_tensor>?,
    _ offsets: UnsafePointer<fi_tensor>?, _ positions: UnsafePointer<fi_tensor>?
) -> fi_status {
    perform {
        let host = HostArrays(device: try call(device, stream).device)
        let indptr = try host.int32(indptr, "indptr")
        let offsets = try host.int32(offsets, "offsets")
        // The length of a request's text after its new tokens is its offset and their number.
        guard indptr.count == offsets.count + 1 else {
            throw FlashInferError.lengthMismatch("indptr", found: indptr.count, expected: offsets.count + 1)
        }
        var lengths: [Int32] = []
        for (request, offset) in offsets.enumerated() {
            let length = Int64(offset) + Int64(indptr[request + 1]) - Int64(indptr[request])
            guard offset >= 0, let end = Int32(exactly: length) else {
                throw FlashInferError.invalidRequest(
                    request, argument: "offsets", found: Int(offset),
                    expected: "0 or more, with positions of at most \(Int32.max)")
            }
            lengths.append(end)
        }
        let result = try KVPositions.batchIndicesPositions(appendIndptr: indptr, sequenceLengths: lengths)
        try host.write(result.positions, to: positions, "positions")
    }
}
