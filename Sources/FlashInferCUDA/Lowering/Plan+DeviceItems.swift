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
                                    var entry = fi_attention_item()
                                    entry.request = item.request
                                    entry.tile = item.tile
                                    entry.head = item.headStart
                                    entry.heads = item.headCount
                                    entry.row = item.rowStart
                                    entry.row_count = item.rowCount
                                    entry.key = item.keyStart
                                    entry.key_count = item.keyCount
                                    entry.partial_row = item.partialRow
                                    entry.first_query = queryIndptr[request]
                                    entry.query_count = queryIndptr[request + 1] - queryIndptr[request]
                                    entry.key_total = lengths[request]
                                    entry.first_block = firstBlock
                                    if item.merge >= 0 {
                                        entry.parts = merges[Int(item.merge)].partCount
                                        entry.merge_row = merges[Int(item.merge)].partialRow
                                    }
                                    entry.only_block = geometry.blocks.blocksAreRows ? indices[Int(firstBlock)] : -1
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
