internal import CUDAKernels
internal import FlashInferCore

/// Where the parts of a plan lie in its workspace, by the size that the workspace was allocated for.
///
/// Kernels write partial states and arrival counters; all from `items` on, or from `rowTiles` on, is copied there by `prepare`, in one
/// piece that ends after the block ids in use.
struct PlanLayout: Hashable {
    let partialOutput: Int
    let partialLSE: Int
    let arrivals: Int
    let queueCursors: Int
    let items: Int
    /// Items of one head, from which the device writes those of all.
    let rowTiles: Int
    let itemIndptr: Int
    let queueIndptr: Int
    let maskIndptr: Int
    let listCount: Int
    let segmentIndptr: Int
    let listIndptr: Int
    let states: Int
    let blockIndices: Int
    /// Bytes of the whole workspace.
    let byteCount: Int

    /// More tiles than any traits have.
    static let maximumTiles = 8

    /// - Parameter maximumWorkers: the most workers that a plan can have lists for.
    init(_ size: PlanSize, maximumWorkers: Int) {
        var end = 0
        func take(_ byteCount: Int) -> Int {
            defer { end = (end + byteCount + 63) & ~63 }
            return end
        }
        partialOutput = take(size.partialRowCount * size.headDimVO * 4)
        partialLSE = take(size.partialRowCount * 4)
        arrivals = take(size.partialRowCount * AttentionHeads.slices(ofHeadDim: size.headDimVO) * 4)
        queueCursors = take(Self.maximumTiles * AttentionHeads.slices(ofHeadDim: size.headDimVO) * 8)
        items = take((size.itemCount + maximumWorkers) * MemoryLayout<fi_attention_item>.stride)
        rowTiles = take(size.rowTileCount * MemoryLayout<fi_attention_item>.stride)
        itemIndptr = take((maximumWorkers + 1) * 4)
        queueIndptr = take((Self.maximumTiles + 1) * 4)
        maskIndptr = take((size.requestCount + 1) * 8)
        listCount = take(4)
        // Segments are no more than lists.
        segmentIndptr = take(size.stateListCount == 0 ? 0 : (size.stateListCount + 1) * 4)
        listIndptr = take(size.stateListCount == 0 ? 0 : (size.stateListCount + 1) * 4)
        states = take(size.stateCount * 4)
        blockIndices = take(size.blockCount * 4)
        byteCount = end
    }
}
