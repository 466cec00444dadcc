import CFlashInfer
import FlashInferCore
import TestSupport
import Testing

/// Levels of shared prefixes through the C ABI: the same results as the plain batch.
@Suite struct CascadeTests {
    private struct Batch {
        let q: OpsTensor
        let cache: OpsTensor
        let out: OpsTensor
        let lse: OpsTensor

        init(sequences: Int, pages: Int) throws {
            var random = OpsRandom(3)
            cache = try OpsTensor(.float32, [pages, 2, 4, 2, 16], values: random.normals(pages * 2 * 4 * 2 * 16))
            q = try OpsTensor(.float32, [sequences, 4, 16], values: random.normals(sequences * 64))
            out = try OpsTensor(.float32, [sequences, 4, 16])
            lse = try OpsTensor(.float32, [sequences, 4])
        }

        func run(_ attention: CAttention) throws -> [Float] {
            var args = fi_attention_run_args()
            args.q = UnsafePointer(q.c)
            args.kv = UnsafePointer(cache.c)
            args.out = UnsafePointer(out.c)
            args.lse = UnsafePointer(lse.c)
            try ok(attention.run(args))
            return (out.values + lse.values).map { Float($0) }
        }
    }

    private func close(_ a: [Float], _ b: [Float]) -> Bool {
        a.count == b.count && zip(a, b).allSatisfy { abs($0 - $1) <= 1e-5 * max(1, abs($1)) }
    }

    private func levels(_ attention: CAttention) throws -> Int64 {
        var info = fi_attention_plan_info.sized
        try ok(fi_attention_get_plan_info(attention.handle, &info))
        return info.levels
    }

    @Test func levelsAndFoundPrefixesEqualThePlainBatch() throws {
        let device = try CDevice.cpu()
        let attention = try CAttention(AttentionTests.plain, on: device)
        // Sixteen sequences with forty pages in common, and one of their own each.
        let shared = (0..<Int32(40)).map { ($0 * 7 + 3) % 56 }
        let own = (0..<Int32(56)).filter { !shared.contains($0) }
        let batch = try Batch(sequences: 16, pages: 56)
        let indptr = (0...Int32(16)).map { $0 * 41 }
        let indices = (0..<16).flatMap { shared + [own[$0]] }
        let last = (0..<Int32(16)).map { $0 % 4 + 1 }
        try ok(fi_attention_plan_paged(attention.handle, nil, nil, indptr.c, indices.c, last.c, 4, 56))
        #expect(try levels(attention) == 1)
        let plain = try batch.run(attention)

        try ok(
            fi_attention_plan_shared_prefixes(
                attention.handle, nil, nil, indptr.c, indices.c, last.c, 4, 56, 0))
        #expect(try levels(attention) == 2)
        #expect(close(try batch.run(attention), plain))

        let (rows, pageIndptr, lastShared) = ([Int32](arrayLiteral: 0, 16), [Int32](arrayLiteral: 0, 40), [Int32(4)])
        let (ownRows, ownLast) = ((0...Int32(16)).map { $0 }, last)
        // The tensors live as long as the array's.
        let tensors = [rows, pageIndptr, shared, lastShared, ownRows, ownRows, own, ownLast].map { UnsafePointer($0.c) }
        let given = (0..<2).map { level in
            fi_cascade_level(
                qo_indptr: tensors[4 * level], kv_indptr: tensors[4 * level + 1], kv_indices: tensors[4 * level + 2],
                last_page_len: tensors[4 * level + 3])
        }
        try ok(fi_attention_plan_cascade(attention.handle, nil, given, 2, 4, 56))
        #expect(try levels(attention) == 2)
        #expect(close(try batch.run(attention), plain))
        expect(
            fi_attention_plan_cascade(attention.handle, nil, given, 0, 4, 56), FI_INVALID_ARGUMENT, "levels is 0")
    }
}
