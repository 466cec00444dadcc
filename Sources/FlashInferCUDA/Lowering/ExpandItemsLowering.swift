internal import CUDAKernels
internal import FlashInferCore

/// The kernel that writes a plan's items from its row tiles.
enum ExpandItemsKernel {
    static let spec = KernelSpec(
        file: "portable/expand_items.cuh", entry: "expand_items", threads: 256, label: "expand-items")

    /// All there are.
    @Sendable static func shipped() -> [KernelSpec] { [spec] }

    /// The parameters for a plan in a workspace, and the blocks of the launch.
    static func lower(
        _ sections: HeadSections, lists: Int, layout: PlanLayout, workspace: UInt
    ) -> (params: fi_expand_params, blocks: Int) {
        let params = fi_expand_params(
            items: UInt64(workspace) + UInt64(layout.items), tiles: UInt64(workspace) + UInt64(layout.rowTiles),
            lists: UInt32(lists), row_tiles: UInt32(sections.rowTileCount), heads: UInt32(sections.headCount),
            section_heads: UInt32(sections.headsOfSection), last_section: UInt32(sections.lastSection), unused: 0)
        let threads = (lists + sections.itemCount) * (MemoryLayout<fi_attention_item>.stride / 16)
        return (params, (threads + spec.threads - 1) / spec.threads)
    }
}
