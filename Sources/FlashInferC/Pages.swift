// swift-format-ignore-file: AlwaysUseLowerCamelCase
// The functions of this file have the header's names.

public import CFlashInfer
internal import FlashInferCore

/// The bounds of pages' keys after an append.
@c @implementation
public func fi_update_page_bounds(
    _ device: OpaquePointer?, _ stream: UnsafeMutableRawPointer?, _ k_cache: UnsafePointer<fi_tensor>?,
    _ kv_layout: Int32, _ bounds: UnsafePointer<fi_tensor>?, _ block_tables: UnsafePointer<fi_tensor>?,
    _ seq_lens: UnsafePointer<fi_tensor>?, _ append_lens: UnsafePointer<fi_tensor>?, _ max_append: Int64
) -> fi_status {
    perform {
        let stream = try call(device, stream)
        let id = stream.id
        try stream.run(
            .updatePageBounds(
                UpdatePageBoundsOperation(
                    keys: .paged(TensorView(k_cache, "k_cache", on: id), layout: KVLayout(kv_layout), name: "k_cache"),
                    bounds: TensorView(bounds, "bounds", on: id),
                    table: TensorView(block_tables, "block_tables", on: id, .index),
                    lengths: TensorView(seq_lens, "seq_lens", on: id, .index),
                    appended: TensorView(append_lens, "append_lens", on: id, .index),
                    maximumAppended: int(max_append, "max_append"))))
    }
}

/// Scores of pages by their bounds.
@c @implementation
public func fi_score_pages(
    _ device: OpaquePointer?, _ stream: UnsafeMutableRawPointer?, _ q: UnsafePointer<fi_tensor>?,
    _ bounds: UnsafePointer<fi_tensor>?, _ block_tables: UnsafePointer<fi_tensor>?,
    _ page_counts: UnsafePointer<fi_tensor>?, _ reduction: Int32, _ scores: UnsafePointer<fi_tensor>?
) -> fi_status {
    perform {
        let stream = try call(device, stream)
        let id = stream.id
        try stream.run(
            .scorePages(
                ScorePagesOperation(
                    queries: TensorView(q, "q", on: id), bounds: TensorView(bounds, "bounds", on: id),
                    table: TensorView(block_tables, "block_tables", on: id, .index),
                    lengths: TensorView(page_counts, "page_counts", on: id, .index),
                    reduction: choice("reduction", reduction, [(FI_REDUCE_MAX, .maximum), (FI_REDUCE_SUM, .sum)]),
                    scores: TensorView(scores, "scores", on: id))))
    }
}

/// The pages of the greatest scores of rows.
@c @implementation
public func fi_select_pages(
    _ device: OpaquePointer?, _ stream: UnsafeMutableRawPointer?, _ scores: UnsafePointer<fi_tensor>?,
    _ lengths: UnsafePointer<fi_tensor>?, _ table: UnsafePointer<fi_tensor>?, _ offsets: UnsafePointer<fi_tensor>?,
    _ requests: UnsafePointer<fi_tensor>?, _ recent: Int32, _ ties: Int32, _ pages: UnsafePointer<fi_tensor>?
) -> fi_status {
    fi_select_pages_with_positions(
        device, stream, scores, lengths, table, offsets, requests, recent, ties, pages, nil)
}

/// The pages of the greatest scores of rows, and their places.
@c @implementation
public func fi_select_pages_with_positions(
    _ device: OpaquePointer?, _ stream: UnsafeMutableRawPointer?, _ scores: UnsafePointer<fi_tensor>?,
    _ lengths: UnsafePointer<fi_tensor>?, _ table: UnsafePointer<fi_tensor>?, _ offsets: UnsafePointer<fi_tensor>?,
    _ requests: UnsafePointer<fi_tensor>?, _ recent: Int32, _ ties: Int32, _ pages: UnsafePointer<fi_tensor>?,
    _ positions: UnsafePointer<fi_tensor>?
) -> fi_status {
    perform {
        let stream = try call(device, stream)
        let id = stream.id
        let transform: SelectPagesOperation.Transform
        switch (
            try TensorView(optional: table, "table", on: id, .index),
            try TensorView(optional: offsets, "offsets", on: id, .index)
        ) {
        case (let table?, nil): transform = .table(table)
        case (nil, let offsets?): transform = .offsets(offsets)
        case (_?, _?):
            throw FlashInferError.invalidArgument("offsets", found: "given besides a table", expected: "NULL")
        case (nil, nil): throw FlashInferError.invalidArgument("table", found: "NULL", expected: "a table, or offsets")
        }
        try stream.run(
            .selectPages(
                SelectPagesOperation(
                    scores: TensorView(scores, "scores", on: id),
                    lengths: TensorView(lengths, "lengths", on: id, .index),
                    transform: transform, requests: TensorView(optional: requests, "requests", on: id, .index),
                    recent: int(Int64(recent), "recent"),
                    ties: choice("ties", ties, [(FI_TIES_LOWEST, .lowest), (FI_TIES_HIGHEST, .highest)]),
                    pages: TensorView(pages, "pages", on: id, .index),
                    positions: TensorView(optional: positions, "positions", on: id, .index))))
    }
}
