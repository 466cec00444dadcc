internal import CUDAKernels
internal import FlashInferCore

extension Plan {
    /// Writes the items as kernels read them: each with what its request and its merge say of it.
    ///
    /// - Parameter memory: room for `items.count` of `fi_attention_item`, aligned for them.
    func writeItems(to memory: UnsafeMutableRawPointer) {
        let geometry = problem.geometry
        let out = memory.bindMemory(to: fi_attention_item.self, capacity: items.count)
        items.withUnsafeBufferPointer { items in
            merges.withUnsafeBufferPointer { merges in
                geometry.queryIndptr.withUnsafeBufferPointer { queryIndptr in
                    geometry.blocks.indptr.withUnsafeBufferPointer { blockIndptr in
                        geometry.blocks.lengths.withUnsafeBufferPointer { lengths in
                            geometry.blocks.indices.withUnsafeBufferPointer { indices in
                                for index in items.indices {
                                    let item = items[index]
                                    let request = Int(item.request)
                                    let firstBlock = blockIndptr[request]
                                    var entry = fi_attention_item(
                                        request: item.request, tile: item.tile, head: item.headStart,
                                        row: item.rowStart, row_count: item.rowCount, key: item.keyStart,
                                        key_count: item.keyCount, partial_row: item.partialRow, merge: item.merge,
                                        parts: 1, merge_row: 0, first_query: queryIndptr[request],
                                        query_count: queryIndptr[request + 1] - queryIndptr[request],
                                        key_total: lengths[request], first_block: firstBlock, only_block: -1)
                                    if item.merge >= 0 {
                                        entry.parts = merges[Int(item.merge)].partCount
                                        entry.merge_row = merges[Int(item.merge)].partialRow
                                    }
                                    if geometry.blocks.blocksAreRows { entry.only_block = indices[Int(firstBlock)] }
                                    out[index] = entry
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}
