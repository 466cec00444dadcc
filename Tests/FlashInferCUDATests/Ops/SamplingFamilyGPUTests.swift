import FlashInfer
import FlashInferCUDA
import FlashInferCore
import TestSupport
import Testing

/// Sampling from probabilities, filters, the greatest entries, adjusted logits and speculative sampling: on the GPU what they are on
/// the CPU. Widths from 16,384 on have a cluster of blocks a row, where the GPU has clusters.
@Suite(.enabled(if: OpsGPU.isThere, "no CUDA device")) struct SamplingFamilyGPUTests {
    private let gpu = GPUScope()
    private let cpu = CPUDevice(threads: 2)

    static let widths = [1, 2, 7, 111, 257, 1_500, 16_384, 20_003, 140_001]

    /// Runs an operation on the GPU and on the CPU, where its output is the image of the GPU's tensor.
    private func compare(
        _ outputs: [GPUTensor], tolerance: Double = 0, _ comment: String,
        _ make: (_ view: (GPUTensor) -> TensorView) -> FlashInferCore.Operation
    ) throws {
        try runOnGPU(make { $0.view })
        var found: [[Double]] = []
        for output in outputs {
            found.append(try output.fetch())
            #expect(output.host.paddingIsIntact)
        }
        try cpu.execute(make { $0.host.view })
        for (found, output) in zip(found, outputs) {
            for (index, (a, b)) in zip(found, output.host.values).enumerated() {
                let isSame = a == b || (a.isNaN && b.isNaN) || abs(a - b) <= tolerance * max(abs(b), 1e-30)
                if !isSame {
                    Issue.record("\(comment): element \(index) is \(a), on the CPU \(b)")
                    break
                }
            }
        }
    }

    private func values(
        _ width: Int, _ random: inout OpsRandom, _ form: DistributionForm, sum whole: Double = 0.8
    ) -> [Double] {
        var values = random.normals(width, scale: 3)
        if width > 7 { (values[5], values[3]) = (values[1], -.infinity) }
        guard form == .probabilities else { return values }
        let weights = values.map { ElementaryFunctions.exp($0) }
        let sum = weights.reduce(0, +)
        return weights.map { $0 / sum * whole }
    }

    private static func filters(_ width: Int) -> [SampleOperation.Row] {
        SamplingGPUTests.filters(width: width).dropFirst().enumerated().filter {
            width < 2_000 || $0.offset % (width < 30_000 ? 7 : 37) == 0
        }
        .map { offset, row in
            var row = row
            (row.temperature, row.step) = (1, UInt64(offset))
            return row
        }
    }

    @Test(arguments: [DistributionForm.logits, .probabilities], [SampleOperation.FilterOrder.topKFirst, .joint])
    func drawsAndFilters(form: DistributionForm, order: SampleOperation.FilterOrder) throws {
        var random = OpsRandom(51)
        for width in Self.widths {
            let rows = Self.filters(width)
            let input = try gpu.tensor(
                .float32, [1, width], padding: 6, lead: 1, values: values(width, &random, form))
            func all(_ view: TensorView) -> TensorView {
                try! TensorView(
                    view.region, byteOffset: view.byteOffset, dtype: view.dtype, shape: [rows.count, width],
                    strides: [0, 1])
            }
            let (tokens, status) = (try gpu.tensor(.int32, [rows.count]), try gpu.tensor(.uint8, [rows.count]))
            try compare([tokens, status], "draws of \(width) \(form)") { view in
                .sample(
                    SampleOperation(
                        all(view(input)), as: form, tokens: view(tokens), status: view(status), rows: rows,
                        order: order))
            }
            let output = try gpu.tensor(.float32, [rows.count, width], padding: 1)
            try compare([output, status], tolerance: 0x1p-22, "filters of \(width) \(form)") { view in
                .filter(
                    FilterOperation(
                        all(view(input)), as: form, output: view(output), status: view(status),
                        rows: rows.map { .init(topK: $0.topK, topP: $0.topP, minP: $0.minP) }, order: order))
            }
        }
    }

    /// Many rows have a block each, which holds nothing: what it draws is what a cluster draws, on rows of every alignment.
    @Test(arguments: [DistributionForm.logits, .probabilities], [DType.float32, .bfloat16])
    func manyRows(form: DistributionForm, dtype: DType) throws {
        guard form == .logits || dtype == .float32 else { return }
        var random = OpsRandom(58)
        let (count, different, width) = (98, 2, 17_003)
        let filters: [SampleOperation.Row] = [
            .init(seed: 4, step: 0), .init(topP: 0.9, seed: 4, step: 0), .init(topK: 50, seed: 4, step: 0),
            .init(topK: 128, topP: 0.8, minP: 0.001, seed: 4, step: 0), .init(minP: 0.02, seed: 4, step: 0),
            .init(topK: 120, topP: 0.9, seed: 4, step: 0), .init(topP: 0.99, seed: 4, step: 0),
            .init(topP: 0.3, minP: 0.01, seed: 4, step: 0), .init(topP: 1e-6, seed: 4, step: 0),
            .init(temperature: form == .logits ? 0.4 : 1, seed: 4, step: 0),
        ]
        let rows = (0..<count).map { index in
            var row = filters[index % filters.count]
            row.step = UInt64(index)
            return row
        }
        let input = try gpu.tensor(
            dtype, [different, width], padding: 3, lead: 1,
            values: (0..<different).flatMap { _ in values(width, &random, form) })
        let (tokens, status) = (try gpu.tensor(.int32, [count]), try gpu.tensor(.uint8, [count]))
        for row in 0..<different {
            func all(_ view: TensorView) throws -> TensorView {
                try TensorView(
                    view.region, byteOffset: view.byteOffset + row * view.strides[0] * (dtype == .float32 ? 4 : 2),
                    dtype: view.dtype,
                    shape: [count, width], strides: [0, 1])
            }
            for order in [SampleOperation.FilterOrder.topKFirst, .joint] {
                try compare([tokens, status], "many rows, \(form), row \(row), \(order)") { view in
                    .sample(
                        SampleOperation(
                            try! all(view(input)), as: form, tokens: view(tokens), status: view(status), rows: rows,
                            order: order))
                }
            }
        }
    }

    /// Filters of many rows, and of one that is longer than a cluster holds: what top-p may keep is listed, and written from there.
    @Test(arguments: [DistributionForm.logits, .probabilities], [(96, 17_003), (2, 210_001)])
    func filtersOfManyRows(form: DistributionForm, shape: (count: Int, width: Int)) throws {
        var random = OpsRandom(60)
        let (count, width) = shape
        let filters: [FilterOperation.Row] = [
            .init(topP: 0.9), .init(topP: 0.8, minP: 0.01), .init(topK: 50), .init(topP: 0.99), .init(topP: 0.3),
            .init(topK: 128, topP: 0.8, minP: 0.001), .init(topK: 50, topP: 0.9),
        ]
        let input = try gpu.tensor(.float32, [1, width], padding: 3, lead: 1, values: values(width, &random, form))
        func all(_ view: TensorView) -> TensorView {
            try! TensorView(
                view.region, byteOffset: view.byteOffset, dtype: view.dtype, shape: [count, width], strides: [0, 1])
        }
        let (output, status) = (try gpu.tensor(.float32, [count, width], padding: 1), try gpu.tensor(.uint8, [count]))
        for order in [SampleOperation.FilterOrder.topKFirst, .joint] {
            try compare([output, status], tolerance: 0x1p-22, "filters of many rows, \(form), \(order)") { view in
                .filter(
                    FilterOperation(
                        all(view(input)), as: form, output: view(output), status: view(status),
                        rows: (0..<count).map { filters[$0 % filters.count] }, order: order))
            }
        }
    }

    /// Rows whose entries are much alike, or of four values: about top-p's threshold are more of them than a block gathers.
    @Test(arguments: [DistributionForm.logits, .probabilities], [0.01, 0.1, 0])
    func entriesMuchAlike(form: DistributionForm, spread: Double) throws {
        var random = OpsRandom(61)
        let width = 33_001
        var values =
            spread > 0
            ? random.normals(width, scale: spread) : (0..<width).map { _ in (4 * random.uniform()).rounded(.down) }
        if form == .probabilities {
            let sum = values.reduce(0) { $0 + ElementaryFunctions.exp($1) }
            values = values.map { ElementaryFunctions.exp($0) / sum }
        }
        let input = try gpu.tensor(.float32, [1, width], padding: 3, lead: 1, values: values)
        let shares: [Float] = [0.9, 0.5, 0.99, 0.05]
        // A cluster a row, and a block.
        for count in [4, 98] {
            func all(_ view: TensorView) -> TensorView {
                try! TensorView(
                    view.region, byteOffset: view.byteOffset, dtype: view.dtype, shape: [count, width], strides: [0, 1])
            }
            let (tokens, status) = (try gpu.tensor(.int32, [count]), try gpu.tensor(.uint8, [count]))
            try compare([tokens, status], "draws of \(count) rows, \(form), \(spread)") { view in
                .sample(
                    SampleOperation(
                        all(view(input)), as: form, tokens: view(tokens), status: view(status),
                        rows: (0..<count).map { .init(topP: shares[$0 % 4], seed: 5, step: UInt64($0)) }))
            }
            let output = try gpu.tensor(.float32, [count, width])
            try compare([output, status], tolerance: 0x1p-22, "filters of \(count) rows, \(form), \(spread)") { view in
                .filter(
                    FilterOperation(
                        all(view(input)), as: form, output: view(output), status: view(status),
                        rows: (0..<count).map { .init(topP: shares[$0 % 4]) }))
            }
        }
    }

    @Test func packedParametersAreTheHosts() throws {
        var random = OpsRandom(55)
        let width = 1_500
        let input = try gpu.tensor(.float32, [4, width], values: random.normals(4 * width, scale: 2))
        let rows = (0..<4).map {
            SampleOperation.Row(
                temperature: 0.25 * Float($0), topK: 20 * $0, topP: 0.9, minP: 0.01, seed: 1 << 40, step: UInt64($0))
        }
        let packed = try gpu.tensor(.uint8, [4, 32], values: SampleOperation.Row.packed(rows).map { Double($0) })
        let (tokens, status) = (try gpu.tensor(.int32, [4]), try gpu.tensor(.uint8, [4]))
        for isPacked in [true, false] {
            try compare([tokens, status], "packed: \(isPacked)") { view in
                var operation = SampleOperation(
                    logits: view(input), tokens: view(tokens), status: view(status), rows: isPacked ? [] : rows)
                if isPacked { operation.packedRows = view(packed) }
                return .sample(operation)
            }
        }
    }

    @Test func rowsWithoutADistribution() throws {
        for width in [9, 700, 17_000] {
            let image = try OpsTensor(
                .float32, [5, width], padding: 1, values: [Double](repeating: 0.5, count: 5 * width))
            image[width / 2] = .nan
            for index in 0..<width { image[width + index] = 0 }
            image[2 * width + 1] = .infinity
            image[3 * width + 7] = -1
            let input = try gpu.tensor(image)
            let (tokens, status) = (try gpu.tensor(.int32, [5]), try gpu.tensor(.uint8, [5]))
            for row in [
                SampleOperation.Row(seed: 1, step: 0), .init(topK: 5, topP: 0.5, seed: 1, step: 0),
                .init(temperature: 0, seed: 0, step: 0),
            ] {
                try compare([tokens, status], "bad rows") { view in
                    .sample(
                        SampleOperation(
                            probabilities: view(input), tokens: view(tokens), status: view(status),
                            rows: [SampleOperation.Row](repeating: row, count: 5)))
                }
            }
            let output = try gpu.tensor(.float32, [5, width])
            try compare([output, status], tolerance: 0x1p-22, "bad rows filtered") { view in
                .filter(
                    FilterOperation(
                        view(input), as: .probabilities, output: view(output), status: view(status),
                        rows: [.init(topP: 0.5)]))
            }
        }
    }

    /// Rows that sum to less than a half, or have entries above 1, weigh something else than others.
    @Test(arguments: [111, 20_003], [0.3, 40, 1e-39])
    func probabilitiesOfAnySum(width: Int, sum: Double) throws {
        var random = OpsRandom(56)
        let rows = Self.filters(width)
        let input = try gpu.tensor(
            .float32, [rows.count, width],
            values: (0..<rows.count).flatMap { _ in values(width, &random, .probabilities, sum: sum) })
        let (tokens, status) = (try gpu.tensor(.int32, [rows.count]), try gpu.tensor(.uint8, [rows.count]))
        try compare([tokens, status], "draws of \(width), sum \(sum)") { view in
            .sample(
                SampleOperation(
                    view(input), as: .probabilities, tokens: view(tokens), status: view(status), rows: rows))
        }
    }

    /// Entries whose floats are all neighbours: what is one step below the k-th is there, and not kept.
    @Test(arguments: [1_500, 20_003], [DistributionForm.probabilities, .logits])
    func neighbouringEntries(width: Int, form: DistributionForm) throws {
        var random = OpsRandom(57)
        var values = (0..<width).map { Double(Float(bitPattern: 0x3780_0000 + UInt32($0))) }
        for index in stride(from: width - 1, to: 0, by: -1) {
            values.swapAt(index, Int(random.uniform() * Double(index + 1)))
        }
        let kept = [1, 20, 100, 127, 129, 300, 700, width - 1]
        let input = try gpu.tensor(.float32, [kept.count, width], values: kept.flatMap { _ in values })
        let status = try gpu.tensor(.uint8, [kept.count])
        let output = try gpu.tensor(.float32, [kept.count, width])
        try compare([output, status], tolerance: 0x1p-22, "neighbours of \(width) \(form)") { view in
            .filter(
                FilterOperation(
                    view(input), as: form, output: view(output), status: view(status),
                    rows: kept.map { .init(topK: $0) }))
        }
        for (row, k) in kept.enumerated() {
            #expect(output.host.values[row * width..<(row + 1) * width].count { $0 > 0 } == k)
        }
    }

    @Test(arguments: [DType.float32, .bfloat16, .float16])
    func theGreatestEntries(dtype: DType) throws {
        var random = OpsRandom(52)
        for width in Self.widths {
            var values = random.normals(2 * width, scale: 3)
            if width > 20 { (values[3], values[4], values[17]) = (-.infinity, .infinity, .nan) }
            let input = try gpu.tensor(dtype, [2, width], padding: 3, values: values)
            // Some tens, hundreds and thousands of a row each have their way.
            for k in Set([1, 50, 600, 2_048, width / 2, width])
            where k >= 1 && k <= width && (k < 6_000 || width < 30_000) {
                for isSorted in [true, false] {
                    let found = try gpu.tensor(dtype, [2, k], padding: 1)
                    let places = try gpu.tensor(.int32, [2, k], padding: 2)
                    try compare([found, places], "top \(k) of \(width)") { view in
                        .topK(
                            TopKOperation(
                                input: view(input), values: view(found), places: view(places), isSorted: isSorted))
                    }
                }
            }
            let k = min(width, 20)
            let (logs, tokens) = (try gpu.tensor(.float32, [2, k]), try gpu.tensor(.int32, [2, k]))
            let status = try gpu.tensor(.uint8, [2])
            try compare([logs, tokens, status], tolerance: 1e-6, "log-probabilities of \(width)") { view in
                .topK(
                    TopKOperation(
                        logits: view(input), logProbabilities: view(logs), tokens: view(tokens), status: view(status),
                        temperature: 0.7))
            }
        }
    }

    /// Of many rows, each has a block, which meets what is greatest in one pass; of ties it has too many.
    @Test func theGreatestEntriesOfManyRows() throws {
        var random = OpsRandom(59)
        let (count, width) = (96, 40_003)
        for isTied in [false, true] {
            var values = random.normals(width, scale: 3).map { isTied ? ($0 / 4).rounded() : $0 }
            (values[3], values[4], values[17]) = (-.infinity, .infinity, .nan)
            let input = try gpu.tensor(.float32, [1, width], padding: 3, lead: 1, values: values)
            func all(_ view: TensorView) -> TensorView {
                try! TensorView(
                    view.region, byteOffset: view.byteOffset, dtype: view.dtype, shape: [count, width],
                    strides: [0, 1])
            }
            for (k, isSorted) in [(50, true), (700, false), (700, true)] {
                let found = try gpu.tensor(.float32, [count, k], padding: 1)
                let places = try gpu.tensor(.int32, [count, k], padding: 2)
                try compare([found, places], "top \(k) of \(count) rows") { view in
                    .topK(
                        TopKOperation(
                            input: all(view(input)), values: view(found), places: view(places), isSorted: isSorted))
                }
            }
        }
    }

    @Test(arguments: SelectPagesCase.all) func selectedPages(test: SelectPagesCase) throws {
        let tensors = try test.tensors()
        let (scores, lengths) = (try gpu.tensor(tensors.scores), try gpu.tensor(tensors.lengths))
        let (table, offsets) = (try gpu.tensor(tensors.table), try gpu.tensor(tensors.offsets))
        let requests = try gpu.tensor(tensors.requests)
        let pages = try gpu.tensor(.int32, [test.rows, test.k], padding: 2)
        try compare([pages], "\(test)") { view in
            .selectPages(
                test.operation(
                    scores: view(scores), lengths: view(lengths), table: view(table), offsets: view(offsets),
                    requests: view(requests), pages: view(pages)))
        }
    }

    /// What a GPU reads of lengths and requests that nobody has checked.
    @Test func selectedPagesOutOfRange() throws {
        let scores = try gpu.tensor(.float32, [3, 40], values: (0..<120).map { Double($0 * 7 % 40) })
        let lengths = try gpu.tensor(.int32, [3], values: [-5, 1_000_000, 40])
        let requests = try gpu.tensor(.int32, [3], values: [0, 1, 9])
        let table = try gpu.tensor(.int32, [2, 40], values: (0..<80).map(Double.init))
        let pages = try gpu.tensor(.int32, [3, 4])
        try runOnGPU(
            .selectPages(
                SelectPagesOperation(
                    scores: scores.view, lengths: lengths.view, transform: .table(table.view), requests: requests.view,
                    pages: pages.view)))
        let found = try pages.fetch()
        #expect(found[..<4].allSatisfy { $0 == -1 } && found[8...].allSatisfy { $0 == -1 })
        #expect(found[4..<8].allSatisfy { $0 >= 40 && $0 < 80 } && found[7] == 79)
    }

    @Test(arguments: [DType.float32, .bfloat16, .float16])
    func adjustedLogits(dtype: DType) throws {
        var random = OpsRandom(53)
        for width in [1, 33, 4_096, 4_097, 20_003] {
            let image = try OpsTensor(dtype, [2, width], padding: 1, values: random.normals(2 * width, scale: 4))
            let logits = try gpu.tensor(image)
            let ids = (0..<300).map { _ in Double(Int(random.uniform() * Double(width + 4)) - 2) }
            let history = try gpu.tensor(.int32, [300], values: ids)
            let biasTokens = try gpu.tensor(.int32, [6], values: Array(ids[..<5]) + [ids[0]])
            let biases = try gpu.tensor(.float32, [6], values: [1, -2, 3, .infinity, 0.1, -7])
            let words = (width + 31) / 32
            let mask = try gpu.tensor(
                .int32, [2, words], padding: 1, values: (0..<2 * words).map { Double(Int32($0 * 7_777 + 12_345)) })
            // In place: the CPU has a copy of its own.
            let copy = try OpsTensor(dtype, [2, width], padding: 1, values: image.values)
            func operation(_ logits: TensorView, _ view: (GPUTensor) -> TensorView) -> FlashInferCore.Operation {
                .adjustLogits(
                    AdjustLogitsOperation(
                        logits: logits,
                        rows: [
                            .init(
                                repetition: 1.3, presence: 0.5, frequency: 0.25, prompt: 0..<100, output: 80..<300,
                                bias: 0..<6), .init(repetition: 0.7, output: 3..<9),
                        ], history: view(history), biasTokens: view(biasTokens), biases: view(biases),
                        mask: view(mask)))
            }
            try runOnGPU(operation(logits.view) { $0.view })
            try logits.fetch()
            try cpu.execute(operation(copy.view) { $0.host.view })
            #expect(logits.host.isIdentical(to: copy), "width \(width)")
        }
    }

    @Test(arguments: [true, false], [(40, 1_009), (5, 9_001), (3, 16_417)])
    func speculativeSampling(isTree: Bool, size: (requests: Int, width: Int)) throws {
        var random = OpsRandom(54)
        let (requests, nodes, width) = (size.requests, 6, size.width)
        func distributions(_ count: Int) -> [Double] {
            (0..<requests * count).flatMap { _ in values(width, &random, .probabilities).map { $0 / 0.8 } }
        }
        let target = try gpu.tensor(.float32, [requests, nodes, width], padding: 2, values: distributions(nodes))
        let draft = try gpu.tensor(
            .float32, [requests, isTree ? nodes : nodes - 1, width], padding: 1,
            values: distributions(isTree ? nodes : nodes - 1))
        // Likely tokens, so that some stand.
        let columns = isTree ? nodes : nodes - 1
        let image = target.host.values
        let tokens = try gpu.tensor(
            .int32, [requests, columns],
            values: (0..<requests * columns).map { index in
                let parent = isTree ? [0, 0, 0, 0, 1, 1][index % columns] : index % columns
                let row = (index / columns * nodes + parent) * width
                let likely = (0..<width).max { image[row + $0] < image[row + $1] } ?? 0
                return Double((likely + index % 3) % width)
            })
        func links(_ values: [Double]) throws -> GPUTensor {
            try gpu.tensor(.int32, [requests, nodes], values: (0..<requests).flatMap { _ in values })
        }
        let (first, next) = (try links([1, 4, -1, -1, -1, -1]), try links([-1, 2, 3, -1, 5, -1]))
        let (output, path) = (try gpu.tensor(.int32, [requests, nodes]), try gpu.tensor(.int32, [requests, nodes]))
        let (accepted, emitted) = (try gpu.tensor(.int32, [requests]), try gpu.tensor(.int32, [requests]))
        let status = try gpu.tensor(.uint8, [requests])
        for isDrawn in [true, false] {
            try compare([output, path, accepted, emitted, status], "drafts of \(width), drawn: \(isDrawn)") { view in
                .verifyDrafts(
                    VerifyDraftsOperation(
                        target: view(target), draft: isDrawn ? view(draft) : nil, tokens: view(tokens),
                        tree: isTree ? .links(firstChild: view(first), nextSibling: view(next)) : .chain,
                        draws: (0..<requests).map { .init(seed: 9, step: UInt64($0)) }, output: view(output),
                        outputNodes: view(path), accepted: view(accepted), emitted: view(emitted),
                        status: view(status)))
            }
        }
    }
}
