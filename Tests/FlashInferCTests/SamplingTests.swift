import CFlashInfer
import FlashInfer
import FlashInferC
import FlashInferCore
import TestSupport
import Testing

/// Sampling from probabilities, filters, the greatest entries, adjusted logits and speculative sampling by the C library: what the
/// operations give, and errors that name the argument.
@Suite struct SamplingTests {
    private let device: CDevice
    private let cpu = CPUDevice(threads: 2)
    private let rows = 5
    private let width = 48

    init() throws { device = try .cpu() }

    private func probabilities() throws -> OpsTensor {
        var random = OpsRandom(71)
        return try OpsTensor(
            .float32, [rows, width], padding: 3, values: (0..<rows * width).map { _ in random.uniform() })
    }

    @Test func drawsAndFilters() throws {
        let input = try probabilities()
        let (tokens, expected) = (try OpsTensor(.int32, [rows]), try OpsTensor(.int32, [rows]))
        let status = try OpsTensor(.uint8, [rows])
        var given = fi_sampling_parameters(temperature: 1, top_k: 12, top_p: 0.7, min_p: 0.01, seed: 42, step: 3)
        let own = (0..<rows).map {
            SampleOperation.Row(
                topK: 12, topP: 0.7, minP: 0.01, seed: 42 &+ UInt64($0) &* 0x9E37_79B9_7F4A_7C15, step: 3)
        }
        try ok(
            fi_sample_probabilities(device.handle, nil, input.c, &given, 1, Int32(FI_JOINT), tokens.c, status.c))
        try cpu.execute(
            .sample(
                SampleOperation(
                    probabilities: input.view, tokens: expected.view, status: status.view, rows: own, order: .joint)))
        #expect(tokens.values == expected.values && status.values == [0, 0, 0, 0, 0])
        for (form, kind) in [(FI_LOGITS, DistributionForm.logits), (FI_PROBABILITIES, .probabilities)] {
            let (out, wanted) = (try OpsTensor(.float32, [rows, width]), try OpsTensor(.float32, [rows, width]))
            try ok(fi_filter(device.handle, nil, input.c, Int32(form), &given, 1, 0, out.c, nil))
            try cpu.execute(
                .filter(
                    FilterOperation(
                        input.view, as: kind, output: wanted.view, status: status.view,
                        rows: [.init(topK: 12, topP: 0.7, minP: 0.01)])))
            #expect(out.values == wanted.values)
        }
        expect(fi_filter(device.handle, nil, input.c, 7, &given, 1, 0, input.c, nil), FI_INVALID_ARGUMENT, "form")
        given.temperature = 0.5
        expect(
            fi_sample_probabilities(device.handle, nil, input.c, &given, 1, 0, tokens.c, nil), FI_INVALID_ARGUMENT,
            "temperature")
    }

    /// An array of the struct's bytes is what the functions for parameters on the device read.
    @Test func parametersOnTheDevice() throws {
        let input = try probabilities()
        let status = try OpsTensor(.uint8, [rows])
        let given = (0..<rows).map { row in
            fi_sampling_parameters(
                temperature: 1, top_k: Int32(3 * row), top_p: 0.9, min_p: 0.01, seed: 1 << 40 + UInt64(row),
                step: UInt64(row))
        }
        let bytes = given.withUnsafeBytes { $0.map { Double($0) } }
        let packed = try OpsTensor(.uint8, [rows, MemoryLayout<fi_sampling_parameters>.stride], values: bytes)
        for form in [FI_LOGITS, FI_PROBABILITIES] {
            let (tokens, expected) = (try OpsTensor(.int32, [rows]), try OpsTensor(.int32, [rows]))
            let (out, wanted) = (try OpsTensor(.float32, [rows, width]), try OpsTensor(.float32, [rows, width]))
            try ok(
                fi_sample_packed(
                    device.handle, nil, input.c, Int32(form), packed.c, Int32(FI_JOINT), tokens.c, status.c))
            try ok(
                fi_filter_packed(
                    device.handle, nil, input.c, Int32(form), packed.c, Int32(FI_JOINT), out.c, nil))
            let sample = form == FI_LOGITS ? fi_sample : fi_sample_probabilities
            try ok(
                sample(
                    device.handle, nil, input.c, given, Int64(rows), Int32(FI_JOINT), expected.c, nil))
            try ok(
                fi_filter(
                    device.handle, nil, input.c, Int32(form), given, Int64(rows), Int32(FI_JOINT), wanted.c, nil))
            #expect(tokens.values == expected.values && out.values == wanted.values)
            #expect(status.values == [0, 0, 0, 0, 0])
        }
        let tokens = try OpsTensor(.int32, [rows])
        expect(
            fi_sample_packed(device.handle, nil, input.c, 0, status.c, 0, tokens.c, nil), FI_INVALID_ARGUMENT,
            "packedRows")
        expect(
            fi_sample_packed(device.handle, nil, input.c, 0, nil, 0, tokens.c, nil), FI_INVALID_ARGUMENT, "parameters")
    }

    @Test func theGreatestEntries() throws {
        let input = try probabilities()
        let (values, places) = (try OpsTensor(.float32, [rows, 4]), try OpsTensor(.int32, [rows, 4]))
        try ok(fi_top_k(device.handle, nil, input.c, 1, values.c, places.c))
        for row in 0..<rows {
            let x = Array(input.values[row * width..<(row + 1) * width])
            let order = x.indices.sorted { x[$0] > x[$1] }[..<4]
            #expect(places.values[4 * row..<4 * row + 4].map { Int($0) } == Array(order))
            #expect(Array(values.values[4 * row..<4 * row + 4]) == order.map { x[$0] })
        }
        let status = try OpsTensor(.uint8, [rows])
        try ok(fi_top_log_probabilities(device.handle, nil, input.c, 1, values.c, places.c, status.c))
        try ok(fi_top_log_probabilities(device.handle, nil, input.c, 1, values.c, places.c, nil))
        let x = Array(input.values[..<width])
        let sum = ElementaryFunctions.log(x.reduce(0) { $0 + ElementaryFunctions.exp($1) })
        #expect(abs(values[0] - ((x.max() ?? 0) - sum)) < 1e-6)
        expect(
            fi_top_log_probabilities(device.handle, nil, input.c, 0, values.c, places.c, nil), FI_INVALID_ARGUMENT,
            "temperature")
        expect(fi_top_k(device.handle, nil, input.c, 2, values.c, places.c), FI_INVALID_ARGUMENT, "sorted")
    }

    @Test func selectedPages() throws {
        let scores = try OpsTensor(.float32, [2, 5], values: [1, 5, 3, 5, 0, 9, 8, 7, 6, 5])
        let lengths = try OpsTensor(.int32, [2], values: [5, 2])
        let table = try OpsTensor(.int32, [2, 5], values: (0..<10).map { Double(20 - $0) })
        let requests = try OpsTensor(.int32, [2], values: [1, 0])
        let pages = try OpsTensor(.int32, [2, 3])
        try ok(
            fi_select_pages(
                device.handle, nil, scores.c, lengths.c, table.c, nil, requests.c, 1, Int32(FI_TIES_LOWEST), pages.c))
        #expect(pages.values == [14, 12, 11, 20, 19, -1])
        try ok(
            fi_select_pages(
                device.handle, nil, scores.c, lengths.c, nil, requests.c, nil, 0, Int32(FI_TIES_HIGHEST), pages.c))
        #expect(pages.values == [2, 3, 4, 0, 1, -1])
        expect(
            fi_select_pages(device.handle, nil, scores.c, lengths.c, nil, nil, nil, 1, 0, pages.c),
            FI_INVALID_ARGUMENT, "table")
        expect(
            fi_select_pages(device.handle, nil, scores.c, lengths.c, table.c, lengths.c, nil, 1, 0, pages.c),
            FI_INVALID_ARGUMENT, "offsets")
        expect(
            fi_select_pages(device.handle, nil, scores.c, lengths.c, table.c, nil, nil, 1, 2, pages.c),
            FI_INVALID_ARGUMENT, "ties")
        expect(
            fi_select_pages(device.handle, nil, scores.c, lengths.c, table.c, nil, nil, -1, 0, pages.c),
            FI_INVALID_ARGUMENT, "recent")
    }

    @Test func pagesByTheirBounds() throws {
        // Two pages of two keys, of which the second has one; two heads of two elements.
        let keys = try OpsTensor(.float32, [3, 2, 2, 2], values: (0..<24).map { Double($0 * 7 % 11) - 5 })
        let bounds = try OpsTensor(.float32, [3, 2, 2, 2])
        let table = try OpsTensor(.int32, [1, 2], values: [2, 0])
        let lengths = try OpsTensor(.int32, [1], values: [3])
        try ok(
            fi_update_page_bounds(
                device.handle, nil, keys.c, Int32(FI_NHD), bounds.c, table.c, lengths.c, lengths.c, 3))
        for index in 0..<4 {
            let (first, second) = (keys[16 + index], keys[20 + index])
            #expect(bounds[16 + index] == min(first, second) && bounds[20 + index] == max(first, second))
            #expect(bounds[index] == keys[index] && bounds[4 + index] == keys[index])
            #expect(bounds[8 + index].isNaN)
        }
        let q = try OpsTensor(.float32, [1, 2, 2], values: [1, -2, 3, -1])
        let counts = try OpsTensor(.int32, [1], values: [2])
        let scores = try OpsTensor(.float32, [1, 2, 2])
        try ok(
            fi_score_pages(device.handle, nil, q.c, bounds.c, table.c, counts.c, Int32(FI_REDUCE_MAX), scores.c))
        for head in 0..<2 {
            for (place, page) in [2, 0].enumerated() {
                let expected = (0..<2).reduce(0.0) { sum, d in
                    let at = page * 8 + head * 2 + d
                    return sum + max(q[head * 2 + d] * bounds[at], q[head * 2 + d] * bounds[at + 4])
                }
                #expect(scores[head * 2 + place] == expected)
            }
        }
        let pages = try OpsTensor(.int32, [1, 2, 1]), positions = try OpsTensor(.int32, [1, 2, 1])
        try ok(
            fi_select_pages_with_positions(
                device.handle, nil, scores.c, counts.c, table.c, nil, nil, 1, 0, pages.c, positions.c))
        #expect(pages.values == [0, 0] && positions.values == [1, 1])
        expect(
            fi_update_page_bounds(
                device.handle, nil, keys.c, Int32(FI_NHD), bounds.c, table.c, lengths.c, lengths.c, 2),
            FI_INVALID_REQUEST, "appended keys")
        expect(
            fi_score_pages(device.handle, nil, q.c, bounds.c, table.c, counts.c, 2, scores.c), FI_INVALID_ARGUMENT,
            "reduction")
    }

    @Test func adjustedLogits() throws {
        let logits = try OpsTensor(.float32, [1, 8], values: [1, -1, 2, 3, 4, 5, 6, 7])
        let mask = try OpsTensor(.int32, [1, 1], values: [0b1011_1111])
        let biases = try OpsTensor(.float32, [1], values: [10])
        let history: [Int32] = [0, 1, 3, 3]
        let biased: [Int32] = [2]
        var changes = fi_logit_changes(
            repetition: 2, presence: 0.5, frequency: 0.25, prompt_begin: 0, prompt_end: 2, output_begin: 2,
            output_end: 4, bias_begin: 0, bias_end: 1)
        try ok(fi_adjust_logits(device.handle, nil, logits.c, &changes, 1, history.c, biased.c, biases.c, mask.c))
        #expect(logits.values == [0.5, -2, 12, 0.5, 4, 5, -.infinity, 7])
        expect(
            fi_adjust_logits(device.handle, nil, logits.c, &changes, 2, history.c, biased.c, biases.c, mask.c),
            FI_LENGTH_MISMATCH, "change_count")
        changes.output_end = 9
        expect(
            fi_adjust_logits(device.handle, nil, logits.c, &changes, 1, history.c, biased.c, biases.c, nil),
            FI_INVALID_ARGUMENT, "output")
        changes.output_end = 1
        expect(
            fi_adjust_logits(device.handle, nil, logits.c, &changes, 1, history.c, nil, nil, nil),
            FI_INVALID_ARGUMENT, "output")
    }

    @Test func speculativeSampling() throws {
        func oneHot(_ tokens: [Int]) -> [Double] { tokens.flatMap { at in (0..<6).map { $0 == at ? 1.0 : 0 } } }
        let target = try OpsTensor(.float32, [1, 3, 6], values: oneHot([1, 4, 3]))
        let draft = try OpsTensor(.float32, [1, 2, 6], values: oneHot([1, 2]))
        let tokens = try OpsTensor(.int32, [1, 2], values: [1, 2])
        let (output, path) = (try OpsTensor(.int32, [1, 3]), try OpsTensor(.int32, [1, 3]))
        let (accepted, emitted) = (try OpsTensor(.int32, [1]), try OpsTensor(.int32, [1]))
        let status = try OpsTensor(.uint8, [1])
        var draw = fi_request_draw(seed: 1, step: 2)
        try ok(
            fi_verify_drafts(
                device.handle, nil, target.c, draft.c, tokens.c, nil, nil, &draw, 1, output.c, path.c, accepted.c,
                emitted.c, status.c))
        #expect(output.values == [1, 4, -1] && emitted.values == [1] && accepted.values == [1])
        #expect(path.values == [1, -1, -1] && status.values == [0])
        let packed = try withUnsafeBytes(of: draw) { try OpsTensor(.uint8, [1, 16], values: $0.map { Double($0) }) }
        let again = try OpsTensor(.int32, [1, 3])
        try ok(
            fi_verify_drafts_packed(
                device.handle, nil, target.c, draft.c, tokens.c, nil, nil, packed.c, again.c, path.c, accepted.c,
                emitted.c, status.c))
        #expect(again.values == output.values && emitted.values == [1])
        // A tree: both children of the root, the second of which stands.
        let nodes = try OpsTensor(.int32, [1, 3], values: [0, 5, 1])
        let first = try OpsTensor(.int32, [1, 3], values: [1, -1, -1])
        let next = try OpsTensor(.int32, [1, 3], values: [-1, 2, -1])
        try ok(
            fi_verify_drafts(
                device.handle, nil, target.c, nil, nodes.c, first.c, next.c, &draw, 1, output.c, path.c, nil,
                emitted.c, nil))
        #expect(output.values == [1, 3, -1] && path.values == [2, -1, -1] && emitted.values == [1])
        expect(
            fi_verify_drafts(
                device.handle, nil, target.c, nil, nodes.c, nil, next.c, &draw, 1, output.c, nil, nil, emitted.c, nil),
            FI_INVALID_ARGUMENT, "first_child")
    }
}
