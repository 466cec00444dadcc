import CFlashInfer
import FlashInferCore
import TestSupport
import Testing

/// Merges of states, and everything that writes a cache or says where in it things are.
@Suite struct StateAndCacheTests {
    let device: CDevice

    init() throws { device = try .cpu() }

    /// Values and LSEs of `states` states of 6 rows and 2 heads of 16; row 1 of the first is empty, row 2 of all.
    private func states(_ count: Int, dtype: DType) throws -> (v: OpsTensor, lse: OpsTensor) {
        var random = OpsRandom(1)
        let v = try OpsTensor(dtype, [6, count, 2, 16], values: random.normals(6 * count * 32))
        let lse = try OpsTensor(.float32, [6, count, 2], values: random.normals(12 * count))
        for state in 0..<count {
            for head in 0..<2 {
                if state == 0 { lse[(1 * count + state) * 2 + head] = -.infinity }
                lse[(2 * count + state) * 2 + head] = -.infinity
            }
        }
        return (v, lse)
    }

    /// The definition, in float64.
    private func merged(_ v: OpsTensor, _ lse: OpsTensor, _ count: Int) -> (v: [Double], lse: [Double]) {
        var result = (v: [Double](), lse: [Double]())
        for row in 0..<6 {
            for head in 0..<2 {
                let lses = (0..<count).map { lse[(row * count + $0) * 2 + head] }
                let weights = lses.map { $0 == -.infinity ? 0 : ElementaryFunctions.pow(2, $0) }
                let sum = weights.reduce(0, +)
                for d in 0..<16 {
                    let total = (0..<count).reduce(0.0) {
                        $0 + weights[$1] * v[((row * count + $1) * 2 + head) * 16 + d]
                    }
                    result.v.append(sum == 0 ? 0 : total / sum)
                }
                result.lse.append(sum == 0 ? -.infinity : ElementaryFunctions.log(sum) / ElementaryFunctions.log(2))
            }
        }
        return result
    }

    private func expectClose(
        _ found: [Double], _ exact: [Double], _ tolerance: Double, sourceLocation: SourceLocation = #_sourceLocation
    ) {
        for (a, b) in zip(found, exact) {
            #expect(a == b || abs(a - b) <= tolerance * max(abs(b), 1), sourceLocation: sourceLocation)
        }
    }

    @Test func manyStates() throws {
        for dtype in [DType.float32, .bfloat16] {
            let (v, lse) = try states(3, dtype: dtype)
            let (out, lseOut) = try (OpsTensor(.float32, [6, 2, 16]), OpsTensor(.float32, [6, 2]))
            try ok(fi_merge_states(device.handle, nil, v.c, lse.c, out.c, lseOut.c))
            let exact = merged(v, lse, 3)
            expectClose(out.values, exact.v, 1e-5)
            expectClose(lseOut.values, exact.lse, 1e-5)
            try ok(fi_merge_states(device.handle, nil, v.c, lse.c, out.c, nil))
        }
    }

    @Test func twoStatesWhereverTheyLie() throws {
        let (v, lse) = try states(2, dtype: .float32)
        let exact = merged(v, lse, 2)
        // Copies of their own, of equal and of other strides, and the two halves of one tensor.
        for paddings in [(0, 0), (8, 8), (0, 8)] {
            for isSwapped in [false, true] {
                func part(_ state: Int, _ padding: Int) throws -> (v: OpsTensor, lse: OpsTensor) {
                    let rows = v.view.select(state, along: 1)
                    let values = (0..<6).flatMap { row in (0..<32).map { v[(row * 2 + state) * 32 + $0] } }
                    let lses = (0..<6).flatMap { row in (0..<2).map { lse[(row * 2 + state) * 2 + $0] } }
                    #expect(rows.shape == [6, 2, 16])
                    return (
                        try OpsTensor(.float32, [6, 2, 16], padding: padding, values: values),
                        try OpsTensor(.float32, [6, 2], padding: padding / 8, values: lses)
                    )
                }
                let order = isSwapped ? (1, 0) : (0, 1)
                let (a, b) = try (part(order.0, paddings.0), part(order.1, paddings.1))
                let (out, lseOut) = try (OpsTensor(.float32, [6, 2, 16]), OpsTensor(.float32, [6, 2]))
                try ok(fi_merge_state(device.handle, nil, a.v.c, a.lse.c, b.v.c, b.lse.c, out.c, lseOut.c))
                expectClose(out.values, exact.v, 1e-5)
                expectClose(lseOut.values, exact.lse, 1e-5)
                // In place, in some of the rows.
                let mask = try OpsTensor(.uint8, [6], values: [1, 1, 0, 1, 0, 0])
                let before = a.v.values
                try ok(fi_merge_state_in_place(device.handle, nil, a.v.c, a.lse.c, b.v.c, b.lse.c, mask.c))
                for row in 0..<6 {
                    let range = row * 32..<row * 32 + 32
                    let expected = mask[row] != 0 ? Array(out.values[range]) : Array(before[range])
                    #expect(Array(a.v.values[range]) == expected)
                }
                #expect(a.v.paddingIsIntact && a.lse.paddingIsIntact)
                let again = try part(order.0, paddings.0)
                try ok(fi_merge_state_in_place(device.handle, nil, again.v.c, again.lse.c, b.v.c, b.lse.c, nil))
                #expect(again.v.values == out.values && again.lse.values == lseOut.values)
            }
        }
        let (values, lses) = (v.view, lse.view)
        let (out, lseOut) = try (OpsTensor(.float32, [6, 2, 16]), OpsTensor(.float32, [6, 2]))
        try ok(
            fi_merge_state(
                device.handle, nil, values.select(1, along: 1).c, lses.select(1, along: 1).c,
                values.select(0, along: 1).c, lses.select(0, along: 1).c, out.c, lseOut.c))
        expectClose(out.values, exact.v, 1e-5)
        expect(
            fi_merge_state(
                device.handle, nil, values.select(1, along: 1).c, lses.c, values.select(0, along: 1).c, lses.c, out.c,
                nil), FI_INVALID_ARGUMENT, "LSE")
    }

    private static let kvIndptr: [Int32] = [0, 2, 2, 3]
    private static let kvIndices: [Int32] = [3, 1, 4, .max]
    private static let lastPageLen: [Int32] = [2, 0, 4]

    /// Six tokens: the last four keys of request 0, the last two of request 2. Pages of 4.
    @Test(arguments: [FI_NHD, FI_HND]) func fourWaysToSayWhere(_ layout: Int) throws {
        let appendIndptr: [Int32] = [0, 4, 4, 6]
        let (batch, positions): ([Int32], [Int32]) = ([0, 0, 0, 0, 2, 2], [2, 3, 4, 5, 2, 3])
        let slots = zip(batch, positions).map { request, position -> Int32 in
            Self.kvIndices[Int(Self.kvIndptr[Int(request)] + position / 4)] * 4 + position % 4
        }
        var random = OpsRandom(2)
        let k = try OpsTensor(.float32, [6, 2, 8], padding: 1, values: random.normals(96))
        let v = try OpsTensor(.float32, [6, 2, 16], values: random.normals(192))
        let wide = slots.map { Int64($0) }
        var results: [[Double]] = []
        for way in 0..<6 {
            let shape = layout == FI_NHD ? [5, 4, 2] : [5, 2, 4]
            let kCache = try OpsTensor(.float8E4M3, shape + [8], values: [Double](repeating: 0, count: 5 * 64))
            let vCache = try OpsTensor(.float8E4M3, shape + [16], values: [Double](repeating: 0, count: 5 * 128))
            var args = fi_append_args.sized
            (args.k, args.v) = (UnsafePointer(k.c), UnsafePointer(v.c))
            (args.k_cache, args.v_cache) = (UnsafePointer(kCache.c), UnsafePointer(vCache.c))
            args.kv_layout = Int32(layout)
            (args.k_scale, args.v_scale) = (0.5, 0.25)
            if way < 2 {
                args.kv_indptr = UnsafePointer(Self.kvIndptr.c)
                args.kv_indices = UnsafePointer(Self.kvIndices.c)
                args.last_page_len = UnsafePointer(Self.lastPageLen.c)
            }
            switch way {
            case 0:
                args.batch_indices = UnsafePointer(batch.c)
                args.positions = UnsafePointer(positions.c)
            case 1: args.append_indptr = UnsafePointer(appendIndptr.c)
            case 2: args.slot_mapping = UnsafePointer(slots.c)
            case 3:
                // int64, as some engines have them: an int32 vector that says it is one.
                let halves = wide.flatMap { [Int32(truncatingIfNeeded: $0), Int32(truncatingIfNeeded: $0 >> 32)] }.c
                halves.pointee.dtype.bits = 64
                halves.pointee.shape[0] = 6
                args.slot_mapping = UnsafePointer(halves)
            default:
                let table = try OpsTensor(.int32, [2, 6])
                try ok(
                    fi_slot_table(
                        device.handle, nil, Self.kvIndptr.c, Self.kvIndices.c, Self.lastPageLen.c, 4, batch.c,
                        positions.c, table.c))
                args.slot_table = UnsafePointer(table.c)
            }
            if way == 5 { args.positions = nil }
            try ok(fi_append_paged_kv(device.handle, nil, &args))
            results.append(kCache.values + vCache.values)
        }
        for token in 0..<6 {
            for head in 0..<2 {
                let (page, row) = (Int(slots[token]) / 4, Int(slots[token]) % 4)
                let place = layout == FI_NHD ? (page * 4 + row) * 2 + head : (page * 2 + head) * 4 + row
                for d in 0..<8 {
                    let exact = rounded(Float(k[(token * 2 + head) * 8 + d]) / 0.5, to: .float8E4M3)
                    #expect(results[0][place * 8 + d] == exact)
                }
            }
        }
        for result in results { #expect(result == results[0]) }
        #expect(results[0].count { $0 != 0 } <= 6 * 2 * 24)
    }

    @Test func appendsThatSayNothingOrTooMuch() throws {
        let (k, cache) = try (
            OpsTensor(.float32, [1, 2, 8], values: [Double](repeating: 1, count: 16)),
            OpsTensor(.float32, [5, 2, 4, 2, 8])
        )
        var args = fi_append_args.sized
        (args.k, args.v, args.kv_cache) = (UnsafePointer(k.c), UnsafePointer(k.c), UnsafePointer(cache.c))
        expect(fi_append_paged_kv(device.handle, nil, &args), FI_INVALID_ARGUMENT, "0 of", "exactly one")
        args.slot_mapping = UnsafePointer([Int32](arrayLiteral: 20).c)
        expect(fi_append_paged_kv(device.handle, nil, &args), FI_INVALID_ARGUMENT, "page of token 0", "5")
        args.slot_mapping = UnsafePointer([Int32](arrayLiteral: 2, 3).c)
        expect(fi_append_paged_kv(device.handle, nil, &args), FI_LENGTH_MISMATCH, "slots")
        args.slot_mapping = UnsafePointer([Int32](arrayLiteral: -1).c)
        try ok(fi_append_paged_kv(device.handle, nil, &args))
        args.slot_table = UnsafePointer([Int32](arrayLiteral: 1, 1).c)
        expect(fi_append_paged_kv(device.handle, nil, &args), FI_INVALID_ARGUMENT, "2 of")
        #expect(cache.values.allSatisfy { $0.isNaN })
    }

    @Test func helpers() throws {
        let (batch, positions) = try (OpsTensor(.int32, [7]), OpsTensor(.int32, [7]))
        try ok(
            fi_batch_indices_positions(
                device.handle, nil, [Int32](arrayLiteral: 0, 2, 2, 5).c, [Int32](arrayLiteral: 9, 4, 3).c, batch.c,
                positions.c))
        #expect(batch.values == [0, 0, 2, 2, 2, -1, -1] && positions.values == [7, 8, 0, 1, 2, 0, 0])
        let lengths = try OpsTensor(.int32, [3])
        try ok(fi_seq_lens(device.handle, nil, Self.kvIndptr.c, Self.lastPageLen.c, 4, lengths.c))
        #expect(lengths.values == [6, 0, 4])
        let rope = try OpsTensor(.int32, [5])
        try ok(
            fi_rope_positions(
                device.handle, nil, [Int32](arrayLiteral: 0, 2, 2, 5).c, [Int32](arrayLiteral: 7, 9, 0).c, rope.c))
        #expect(rope.values == [7, 8, 0, 1, 2])
        expect(
            fi_rope_positions(
                device.handle, nil, [Int32](arrayLiteral: 0, 2).c, [Int32](arrayLiteral: .max).c, rope.c),
            FI_INVALID_REQUEST, "offsets")
        expect(
            fi_seq_lens(device.handle, nil, Self.kvIndptr.c, Self.lastPageLen.c, 3, lengths.c),
            FI_LAST_PAGE_LENGTH_OUT_OF_RANGE, "request 2")
    }

    @Test func pagesAreCopiedAsIfAtOnce() throws {
        let cache = try OpsTensor(.float32, [3, 2, 2, 1, 4], values: (0..<48).map { Double($0) })
        try ok(
            fi_copy_pages(
                device.handle, nil, nil, nil, cache.c, Int32(FI_NHD), [Int32](arrayLiteral: 0, 1).c,
                [Int32](arrayLiteral: 1, 0).c))
        let expected = [16, 0, 32].flatMap { start in (start..<start + 16).map { Double($0) } }
        #expect(cache.values == expected)
        expect(
            fi_copy_pages(
                device.handle, nil, nil, nil, cache.c, Int32(FI_NHD), [Int32](arrayLiteral: 0).c,
                [Int32](arrayLiteral: 3).c), FI_INVALID_ARGUMENT, "destinations[0]")
    }
}
