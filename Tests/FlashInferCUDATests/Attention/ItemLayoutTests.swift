import CUDAKernels
import FlashInferCore
import Testing

/// Items are written and compared by words of several fields, so their fields must lie in the order that those words have.
@Suite struct ItemLayoutTests {
    /// `WorkWriter` writes words of four and two fields, and the queues' neighbours are compared by words of two.
    @Test func plansItemsAreTenWords() {
        let fields: [PartialKeyPath<WorkItem>] = [
            \.request, \.tile, \.headStart, \.headCount, \.rowStart, \.rowCount, \.keyStart, \.keyCount, \.partialRow,
            \.merge,
        ]
        for (place, field) in fields.enumerated() {
            #expect(MemoryLayout<WorkItem>.offset(of: field) == 4 * place, "\(field)")
        }
        #expect(MemoryLayout<WorkItem>.stride == 4 * fields.count)
    }

    /// Items go to the device's memory by words of four fields.
    @Test func deviceItemsAreTwentyWords() {
        let fields: [PartialKeyPath<fi_attention_item>] = [
            \.request, \.tile, \.head, \.row, \.row_count, \.key, \.key_count, \.partial_row, \.parts, \.merge_row,
            \.first_query, \.query_count, \.key_total, \.first_block, \.heads, \.only_block, \.hole, \.hole_count,
            \.full, \.full_count,
        ]
        for (place, field) in fields.enumerated() {
            #expect(MemoryLayout<fi_attention_item>.offset(of: field) == 4 * place, "\(field)")
        }
        #expect(MemoryLayout<fi_attention_item>.stride == 4 * fields.count)
    }
}
