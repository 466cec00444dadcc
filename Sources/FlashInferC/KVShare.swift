// swift-format-ignore-file: AlwaysUseLowerCamelCase
// The functions of this file have the header's names.

public import CFlashInfer
internal import FlashInferCore

extension KVShare {
    /// A share as a caller in C has it.
    init(_ given: UnsafePointer<fi_kv_share>?, _ name: String = "share") throws {
        let given = try options(given, name, empty: fi_kv_share())
        let pages = given.run_pages == 0 ? 1 : try int(given.run_pages, "\(name).run_pages")
        let split = try choice(
            "\(name).split", given.split,
            [
                (FI_SHARE_CHUNKS, KVSplit.chunks(pages: pages)), (FI_SHARE_INTERLEAVED, .interleaved(pages: pages)),
                (FI_SHARE_ZIGZAG, .zigzag(pages: pages)),
            ])
        try self.init(
            split, pageSize: int(given.page_size, "\(name).page_size"), rank: Int(given.rank),
            worldSize: Int(given.world_size))
    }
}

/// Writes an output that may be left out.
private func write<Value>(_ value: Value, to pointer: UnsafeMutablePointer<Value>?) { pointer?.pointee = value }

/// A position, which is not negative.
private func position(_ value: Int64, _ name: String) throws(FlashInferError) -> Int {
    guard value >= 0, value <= Int64(Int32.max) else {
        throw .invalidArgument(name, found: "\(value)", expected: "in 0 ... \(Int32.max)")
    }
    return Int(value)
}

/// How many keys before a position are a rank's.
@c @implementation
public func fi_kv_share_key_count(
    _ share: UnsafePointer<fi_kv_share>?, _ given: Int64, _ count: UnsafeMutablePointer<Int64>?
) -> fi_status {
    perform { write(Int64(try KVShare(share).keyCount(before: position(given, "position"))), to: count) }
}

/// The rank that has a key.
@c @implementation
public func fi_kv_share_owner(
    _ share: UnsafePointer<fi_kv_share>?, _ given: Int64, _ rank: UnsafeMutablePointer<Int32>?,
    _ local_position: UnsafeMutablePointer<Int64>?
) -> fi_status {
    perform {
        let (share, place) = try (KVShare(share), position(given, "position"))
        let owner = share.owner(of: place)
        write(Int32(owner), to: rank)
        write(Int64(share.ofRank(owner).keyCount(before: place)), to: local_position)
    }
}

/// Which of the request's pages a rank's page is.
@c @implementation
public func fi_kv_share_page(
    _ share: UnsafePointer<fi_kv_share>?, _ local_page: Int64, _ page: UnsafeMutablePointer<Int64>?
) -> fi_status {
    perform { write(Int64(try KVShare(share).globalPage(position(local_page, "local_page"))), to: page) }
}

/// Plans over a rank's part of a paged cache.
@c @implementation
public func fi_attention_plan_kv_share(
    _ attention: OpaquePointer?, _ stream: UnsafeMutableRawPointer?, _ shares: UnsafePointer<fi_kv_share>?,
    _ share_count: UInt64, _ qo_indptr: UnsafePointer<fi_tensor>?, _ kv_lens: UnsafePointer<fi_tensor>?,
    _ kv_indptr: UnsafePointer<fi_tensor>?, _ kv_indices: UnsafePointer<fi_tensor>?, _ page_count: Int64
) -> fi_status {
    performPlan(attention, stream) { attention, stream, host in
        let lengths = try host.int32(kv_lens, "kv_lens")
        guard let shares, share_count == 1 || share_count == UInt64(lengths.count) else {
            throw FlashInferError.invalidArgument(
                "shares", found: shares == nil ? "NULL" : "\(share_count)",
                expected: "1 for all requests, or one for each of the \(lengths.count)")
        }
        let given = try (0..<Int(share_count)).map { try KVShare(shares + $0, "shares[\($0)]") }
        let indptr = try host.int32(kv_indptr, "kv_indptr")
        let indices = try host.int32(kv_indices, "kv_indices").used(by: indptr)
        let variant = try attention.withState { state in state.settings.variant }
        try attention.plan(
            .paged(
                shares: share_count == 1 ? .init(repeating: given[0], count: lengths.count) : given,
                queryIndptr: host.int32(optional: qo_indptr, "qo_indptr"), kvLengths: lengths, pageIndptr: indptr,
                pageIndices: indices, pageCount: pages(page_count, indices),
                isCausal: variant.form.mask == .causal),
            on: stream)
    }
}

/// The heads of a rank.
@c @implementation
public func fi_head_share(
    _ num_qo_heads: Int64, _ num_kv_heads: Int64, _ rank: Int32, _ world_size: Int32,
    _ qo_heads: UnsafeMutablePointer<Int64>?, _ kv_heads: UnsafeMutablePointer<Int64>?
) -> fi_status {
    perform {
        let share = try HeadShare(
            queryHeads: int(num_qo_heads, "num_qo_heads"), kvHeads: int(num_kv_heads, "num_kv_heads"), rank: Int(rank),
            worldSize: Int(world_size))
        for (range, pointer) in [(share.queryHeads, qo_heads), (share.kvHeads, kv_heads)] {
            pointer?[0] = Int64(range.lowerBound)
            pointer?[1] = Int64(range.count)
        }
    }
}
