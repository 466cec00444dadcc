public import FlashInferCore

/// A rotation to check: of normalised heads, by a table of angles, or both.
public struct RoPECase: Sendable {
    /// Which pairs turn, and how fast.
    public var parameters: RoPEParameters
    /// Heads of queries and of keys (none: no keys), and their elements.
    public var queryHeads: Int, heads: Int, headDim: Int
    /// Whether angles come from a table.
    public var isTabled = false
    /// What is added to the weights of a normalisation; `nil`: there is none.
    public var normOffset: Float?
    /// Whether queries turn where they are.
    public var isInPlace = false
    /// Unused elements after each head.
    public var padding = 0

    /// Cases around every way that threads share heads.
    public static let all: [RoPECase] = {
        let llama = RoPEParameters.Scaling.llama3(
            factor: 8, lowFrequencyFactor: 1, highFrequencyFactor: 4, originalContext: 8192)
        func test(
            _ parameters: RoPEParameters, _ headDim: Int, heads: Int = 2, tabled: Bool = false, norm: Float? = nil,
            inPlace: Bool = false, padding: Int = 0
        ) -> RoPECase {
            RoPECase(
                parameters: parameters, queryHeads: 3, heads: heads, headDim: headDim, isTabled: tabled,
                normOffset: norm, isInPlace: inPlace, padding: padding)
        }
        let interleaved = RoPEParameters.Pairing.interleaved
        return [
            test(RoPEParameters(), 128, norm: 0),
            test(RoPEParameters(theta: 1e6, scaling: llama), 128, norm: 0, inPlace: true),
            test(RoPEParameters(pairing: interleaved), 64, norm: 1),
            test(RoPEParameters(rotaryDim: 32), 80, norm: 1, inPlace: true),
            test(RoPEParameters(rotaryDim: 64, pairing: interleaved), 256, heads: 0, norm: 0),
            // Not vectors: every lane has several items.
            test(RoPEParameters(), 128, norm: 0, inPlace: true, padding: 3),
            test(RoPEParameters(rotaryDim: 6), 111, norm: 0),
            test(RoPEParameters(), 1024, norm: 0, inPlace: true),
            test(RoPEParameters(), 2, norm: 0),
            test(RoPEParameters(rotaryDim: 0), 5, norm: 1, inPlace: true),
            test(RoPEParameters(), 128, tabled: true),
            test(RoPEParameters(rotaryDim: 64), 128, tabled: true, inPlace: true),
            test(RoPEParameters(pairing: interleaved), 64, tabled: true, padding: 1),
            test(RoPEParameters(), 128, tabled: true, norm: 0),
        ]
    }()
}

extension OpsRunner {
    /// Positions of tokens: below the table's rows where there is one.
    private static let positions: [Double] = [0, 1, 17, 299, 8_191, 131_071]
    private static let tableRows = 300

    /// Cosines and sines of positions as callers make them: float32, rounded once.
    func angleTable(_ parameters: RoPEParameters, headDim: Int) throws -> PlacedTensor {
        let frequencies = parameters.frequencies(headDim: headDim)
        var values: [Double] = []
        for position in 0..<Self.tableRows {
            values += frequencies.map { ElementaryFunctions.cos(Double(position) * $0) }
            values += frequencies.map { ElementaryFunctions.sin(Double(position) * $0) }
        }
        return try tensor(.float32, [Self.tableRows, 2 * frequencies.count], padding: 2, values: values)
    }

    /// A head normalised, in float64.
    private func normalised(_ head: [Double], _ weight: [Double], _ offset: Float?, epsilon: Float) -> [Double] {
        guard let offset else { return head }
        let square = head.reduce(0) { $0 + $1 * $1 } / Double(head.count)
        let scale = 1 / (square + Double(epsilon)).squareRoot()
        return zip(head, weight).map { $0 * scale * ($1 + Double(offset)) }
    }

    /// Queries and keys of a case, turned, against the definition; `nil` where nothing is wrong.
    public func ropeProblem(
        _ test: RoPECase, _ input: DType, output type: DType, weightType: DType, _ random: inout OpsRandom
    ) throws -> String? {
        begin()
        let places = Self.positions.map { test.isTabled ? min($0, Double(Self.tableRows - 1)) : $0 }
        let (tokens, dim) = (places.count, test.headDim)
        let positions = try tensor(.int32, [tokens], values: places)
        let table = test.isTabled ? try angleTable(test.parameters, headDim: dim) : nil
        let weights = try (0..<2).map { _ in try tensor(weightType, [dim], values: random.normals(dim)) }
        var sources: [PlacedTensor] = []
        var outputs: [PlacedTensor] = []
        for heads in [test.queryHeads, test.heads] where heads > 0 {
            let shape = [tokens, heads, dim]
            sources.append(
                try tensor(input, shape, padding: test.padding, values: random.normals(tokens * heads * dim)))
            let isInPlace = test.isInPlace && input == type
            outputs.append(isInPlace ? sources[sources.count - 1] : try tensor(type, shape, padding: test.padding))
        }
        let before = sources.map(\.host.values)
        let hasKeys = test.heads > 0
        try run(
            .rope(
                RoPEOperation(
                    queries: sources[0].view, keys: hasKeys ? sources[1].view : nil, queryOutput: outputs[0].view,
                    keyOutput: hasKeys ? outputs[1].view : nil, positions: positions.view,
                    parameters: test.parameters, table: table?.view,
                    normalization: test.normOffset.map {
                        HeadNormalization(
                            queryWeight: weights[0].view, keyWeight: hasKeys ? weights[1].view : nil, epsilon: 1e-5,
                            weightOffset: $0)
                    })))
        for (index, output) in outputs.enumerated() {
            let heads = index == 0 ? test.queryHeads : test.heads
            let found = try output.fetch()
            for row in 0..<tokens * heads {
                let range = row * dim..<(row + 1) * dim
                let head = normalised(
                    Array(before[index][range]), weights[index].host.values, test.normOffset, epsilon: 1e-5)
                let exact = OpsOracle.rope(head, position: places[row / heads], test.parameters)
                if let problem = headProblem(found[range], exact, type, position: places[row / heads]) {
                    return "\(index == 0 ? "query" : "key") head \(row): \(problem)"
                }
            }
            if !output.host.paddingIsIntact { return "written beside the output" }
        }
        return nil
    }

    /// A head against its exact elements: a rounded cosine and sine of a rounded angle, a norm's roundings and float32 steps, then the
    /// output's own rounding.
    private func headProblem(
        _ found: ArraySlice<Double>, _ exact: [Double], _ type: DType, position: Double
    ) -> String? {
        let largest = exact.reduce(0) { max($0, abs($1)) }
        let slack = (16 * 0x1p-24 + position * 0x1p-50) * largest + 0x1p-30
        for (offset, (value, wanted)) in zip(found, exact).enumerated()
        where !isRounded(value, wanted, type, slack: slack) {
            return "element \(offset) is \(value), exactly \(wanted)"
        }
        return nil
    }

    /// Heads in two parts, of latent attention or of a usual one, to tensors or to a paged cache, against the definition.
    ///
    /// - Parameter isTable: whether slots are a tensor of the runner's.
    public func splitProblem(
        _ input: DType, _ type: DType, isLatent: Bool, isStored: Bool, isTable: Bool, rotaryDim: Int, restDim: Int,
        isTabled: Bool, pairing: RoPEParameters.Pairing, padding: Int, _ random: inout OpsRandom
    ) throws -> String? {
        begin()
        let places: [Double] = [0, 3, 299, 40, 7]
        let (tokens, queryHeads, heads) = (places.count, 3, isLatent ? 1 : 2)
        let parameters = RoPEParameters(pairing: pairing)
        let table = isTabled ? try angleTable(parameters, headDim: rotaryDim) : nil
        let positions = try tensor(.int32, [tokens], values: places)
        func source(_ heads: Int, _ dim: Int) throws -> PlacedTensor {
            try tensor(input, [tokens, heads, dim], padding: padding, values: random.normals(tokens * heads * dim))
        }
        func target(_ heads: Int, _ dim: Int) throws -> PlacedTensor {
            try tensor(type, [tokens, heads, dim], padding: padding)
        }
        let (q, k) = (try source(queryHeads, rotaryDim), try source(heads, rotaryDim))
        let rests = restDim > 0 ? (try source(queryHeads, restDim), try source(heads, restDim)) : nil
        let values = isStored && !isLatent ? try source(heads, 24) : nil
        let (qOut, qRestOut) = (
            try target(queryHeads, rotaryDim), restDim > 0 ? try target(queryHeads, restDim) : nil
        )
        let (kOut, kRestOut) = (try target(heads, rotaryDim), restDim > 0 ? try target(heads, restDim) : nil)
        // Pages of 4: token 2 is not stored.
        let slots = [5, 0, -1, 11, 6]
        let caches = [
            try tensor(type, [3, 4, heads, isLatent ? restDim : rotaryDim + restDim], padding: padding),
            try tensor(type, [3, 4, heads, isLatent ? rotaryDim : 24], padding: padding),
        ]
        let slotTable = try tensor(
            .int32, [2, tokens],
            values: (slots.map { $0 < 0 ? -1 : $0 / 4 } + slots.map { $0 < 0 ? 0 : $0 % 4 }).map(Double.init))
        let kvSlots =
            isTable ? try KVSlots(table: slotTable.view) : try KVSlots(slots: slots.map(Int32.init), pageSize: 4)
        let cache = try KVCacheView.paged(keys: caches[0].view, values: caches[1].view)
        let (queryFactor, keyFactor) = (Float(1.7), Float(0.3))
        try run(
            .splitRoPE(
                SplitRoPEOperation(
                    queries: .init(turning: q.view, rest: rests?.0.view),
                    keys: .init(turning: k.view, rest: rests?.1.view), values: values?.view,
                    queryOutput: .init(turning: qOut.view, rest: qRestOut?.view),
                    keyOutput: !isStored
                        ? .tensors(.init(turning: kOut.view, rest: kRestOut?.view))
                        : isLatent ? .latentCache(cache, kvSlots) : .cache(cache, kvSlots),
                    queryFactor: queryFactor, keyFactor: keyFactor, positions: positions.view, parameters: parameters,
                    table: table?.view)))
        for tensor in [qOut, qRestOut, kOut, kRestOut].compactMap({ $0 }) + caches { try tensor.fetch() }

        /// The exact head of a tensor: turned, or as it is.
        func exact(_ tensor: PlacedTensor, _ head: Int, _ token: Int, _ factor: Float, turns: Bool) -> [Double] {
            let dim = tensor.view.shape[2]
            let elements = (0..<dim).map { tensor.host[head * dim + $0] }
            let turned = turns ? OpsOracle.rope(elements, position: places[token], parameters) : elements
            return turned.map { $0 * Double(factor) }
        }
        for token in 0..<tokens {
            for head in 0..<queryHeads {
                let row = token * queryHeads + head
                for (output, source, turns) in [(qOut, q, true)] + (qRestOut.map { [($0, rests!.0, false)] } ?? []) {
                    let dim = source.view.shape[2]
                    let found = (0..<dim).map { output.host[row * dim + $0] }
                    if let problem = headProblem(
                        found[...], exact(source, row, token, queryFactor, turns: turns), type, position: places[token])
                    {
                        return "query \(turns ? "" : "rest ")\(row): \(problem)"
                    }
                }
            }
            if isStored && slots[token] < 0 { continue }
            for head in 0..<heads {
                let row = token * heads + head
                let turned = exact(k, row, token, keyFactor, turns: true)
                let rest = rests.map { exact($0.1, row, token, keyFactor, turns: false) } ?? []
                var wanted: [(PlacedTensor, Int, [Double])]
                if !isStored {
                    wanted = [(kOut, row, turned)] + (kRestOut.map { [($0, row, rest)] } ?? [])
                } else {
                    let place = slots[token] * heads + head
                    wanted =
                        isLatent
                        ? [(caches[0], place, rest), (caches[1], place, turned)]
                        : [(caches[0], place, turned + rest)]
                    if let values {
                        wanted.append((caches[1], place, exact(values, row, token, keyFactor, turns: false)))
                    }
                }
                for (output, place, elements) in wanted {
                    let found = elements.indices.map { output.host[place * elements.count + $0] }
                    if let problem = headProblem(found[...], elements, type, position: places[token]) {
                        return "key or value \(row): \(problem)"
                    }
                }
            }
        }
        for output in [qOut, kOut] + caches where !output.host.paddingIsIntact { return "written beside an output" }
        // What no token went to is as it was.
        for cache in caches {
            let rowSize = cache.host.count / 12
            let poison = UInt32.max >> (32 - 8 * UInt32(type.byteCount))
            for row in 0..<12 where !isStored || !slots.contains(row) {
                for index in row * rowSize..<(row + 1) * rowSize where cache.host.bits(index) != poison {
                    return "row \(row) of the cache was written"
                }
            }
        }
        return nil
    }
}
