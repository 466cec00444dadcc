package import CUDAKernels
package import FlashInferCore

/// The moves of a copy of pages, arranged so that as many as possible go on at once.
package struct PageMoves: Equatable {
    /// Source and destination of each move, chain after chain; −1 is the spare page.
    package var moves: [Int32] = []
    /// `[chains + 1]`: where each chain's moves start. Chains share no page that one of them writes.
    package var indptr: [Int32] = [0]

    /// The number of chains.
    package var chainCount: Int { indptr.count - 1 }

    /// Bytes of both lists one after another.
    package var byteCount: Int { 4 * (moves.count + indptr.count) }

    /// The moves of an operation.
    ///
    /// Two moves depend on each other where one reads the page that the other writes; those go in one chain, in the order of
    /// ``CopyPagesOperation/schedule()``. Copies to fresh pages, the usual kind, are a chain each.
    ///
    /// - Complexity: O(moves · log moves).
    package init(_ operation: CopyPagesOperation) {
        let schedule = operation.schedule()
        if schedule.isEmpty { return }
        // A set of pages for each destination, joined with that of the source where that is a destination as well.
        var parents: [Int32: Int32] = [:]
        for (source, destination) in zip(operation.sources, operation.destinations) where source != destination {
            parents[destination] = destination
        }
        func root(_ page: Int32) -> Int32 {
            var page = page
            while let parent = parents[page], parent != page {
                parents[page] = parents[parent]
                page = parent
            }
            return page
        }
        for (source, destination) in zip(operation.sources, operation.destinations)
        where source != destination && parents[source] != nil {
            parents[root(destination)] = root(source)
        }
        var chains: [Int32: [Int32]] = [:]
        var order: [Int32] = []
        for move in schedule {
            let (page, pair): (Int32, [Int32]) =
                switch move {
                case .copy(let source, let destination): (destination, [source, destination])
                // A saved page is the destination of a later move of its cycle.
                case .save(let source): (source, [source, -1])
                case .restore(let destination): (destination, [-1, destination])
                }
            let chain = root(page)
            if chains[chain] == nil { order.append(chain) }
            chains[chain, default: []] += pair
        }
        for chain in order {
            moves += chains[chain] ?? []
            indptr.append(Int32(moves.count / 2))
        }
    }
}

/// The kernel that copies pages, of any type.
package enum CopyPagesKernel {
    private static let threads = 256
    private static let spec = KernelSpec(
        file: "portable/copy_pages.cuh", entry: "copy_pages", threads: threads, label: "copy-pages")

    /// The specialisations that ship: the one.
    package static func shipped() -> [KernelSpec] { [spec] }

    /// The launch of an operation.
    ///
    /// - Parameter lists: the address of the moves' list, with the chains' behind it.
    package static func lower(
        _ operation: CopyPagesOperation, _ moves: PageMoves, lists: UInt
    ) throws(FlashInferError) -> KernelLaunch<fi_copy_pages_params>? {
        let (keys, values) = (operation.cache.keys, operation.cache.values)
        let size = keys.dtype.byteCount
        try keys.view.checkAlignment("keys of the cache")
        try values.view.checkAlignment("values of the cache")
        let isAligned =
            keys.view.hasAlignedRows && values.view.hasAlignedRows && keys.headDim * size % 16 == 0
            && values.headDim * size % 16 == 0
        let piece = isAligned ? 16 : size
        let (keyPages, valuePages) = (pages(of: keys, piece: piece), pages(of: values, piece: piece))
        guard let keyPages, let valuePages else { throw .overflow("elements of a page") }
        let pieces = keyPages.count + valuePages.count
        let chainBlocks = (pieces + threads - 1) / threads
        let (blocks, overflow) = moves.chainCount.multipliedReportingOverflow(by: chainBlocks)
        guard !overflow, blocks <= Int(Int32.max) else { throw .overflow("pages to copy") }
        if blocks == 0 { return nil }
        return KernelLaunch(
            spec, blocks: blocks,
            fi_copy_pages_params(
                keys: keyPages.tensor, values: valuePages.tensor, moves: UInt64(lists),
                chains: UInt64(lists) + UInt64(4 * moves.moves.count), chain_blocks: UInt32(chainBlocks),
                piece_bytes: UInt32(piece)))
    }

    /// A tensor's pages, and the pieces of one; `nil` where they are too many to count.
    private static func pages(of tensor: KVTensor, piece: Int) -> (tensor: fi_page_tensor, count: Int)? {
        let size = tensor.dtype.byteCount
        let (tokens, heads, pieces) = (tensor.blockSize ?? 1, tensor.headCount, tensor.headDim * size / piece)
        guard UInt32(exactly: tokens) != nil, UInt32(exactly: heads) != nil, UInt32(exactly: pieces) != nil,
            UInt32(exactly: tokens * heads) != nil
        else { return nil }
        let pages = fi_page_tensor(
            address: UInt64(tensor.view.address), page: Int64(tensor.blockStride * size),
            token: Int64(tensor.tokenStride * size), head: Int64(tensor.headStride * size), tokens: UInt32(tokens),
            heads: UInt32(heads), pieces: UInt32(pieces))
        return (pages, tokens * heads * pieces)
    }
}
