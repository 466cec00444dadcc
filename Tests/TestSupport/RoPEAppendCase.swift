public import FlashInferCore

/// A case of rotary embedding with an append: the CPU's and the GPU's tests share them.
public struct RoPEAppendCase: Sendable {
    /// Query heads, key/value heads, and their dimensions.
    public var (queryHeads, heads, headDim, valueDim): (Int, Int, Int, Int)
    /// How the cache lies, and how long its pages are.
    public var (layout, pageSize): (KVLayout, Int)
    /// Unused elements after each row of every tensor.
    public var padding = 0
    /// Which pairs turn.
    public var parameters = RoPEParameters()
    /// Whether the cache has scales, some of them by head.
    public var isScaled = false

    /// Whole vectors and odd sizes, every way of turning, both layouts, several page sizes.
    public static let all: [RoPEAppendCase] = [
        RoPEAppendCase(queryHeads: 4, heads: 2, headDim: 64, valueDim: 64, layout: .nhd, pageSize: 16),
        RoPEAppendCase(
            queryHeads: 3, heads: 1, headDim: 128, valueDim: 96, layout: .hnd, pageSize: 4, padding: 16,
            parameters: RoPEParameters(theta: 500_000, pairing: .interleaved), isScaled: true),
        RoPEAppendCase(
            queryHeads: 5, heads: 5, headDim: 80, valueDim: 111, layout: .nhd, pageSize: 1, padding: 3,
            parameters: RoPEParameters(theta: 500_000, rotaryDim: 32, scaling: .linear(factor: 4)), isScaled: true),
        RoPEAppendCase(
            queryHeads: 8, heads: 2, headDim: 64, valueDim: 64, layout: .hnd, pageSize: 5,
            parameters: RoPEParameters(rotaryDim: 32, pairing: .interleaved), isScaled: true),
        RoPEAppendCase(
            queryHeads: 2, heads: 1, headDim: 10, valueDim: 1, layout: .nhd, pageSize: 3, padding: 1,
            parameters: RoPEParameters(rotaryDim: 6)),
        RoPEAppendCase(
            queryHeads: 2, heads: 2, headDim: 64, valueDim: 64, layout: .nhd, pageSize: 7,
            parameters: RoPEParameters(rotaryDim: 0), isScaled: true),
        RoPEAppendCase(
            queryHeads: 6, heads: 3, headDim: 64, valueDim: 64, layout: .hnd, pageSize: 16,
            parameters: RoPEParameters(
                theta: 500_000,
                scaling: .llama3(factor: 8, lowFrequencyFactor: 1, highFrequencyFactor: 4, originalContext: 8_192))),
        RoPEAppendCase(
            queryHeads: 1, heads: 1, headDim: 1_280, valueDim: 8, layout: .nhd, pageSize: 2,
            parameters: RoPEParameters(pairing: .interleaved)),
        RoPEAppendCase(
            queryHeads: 2, heads: 1, headDim: 8, valueDim: 8, layout: .nhd, pageSize: 2,
            parameters: RoPEParameters(scaling: .perPair(factors: [1, 2, 3, 8]))),
    ]

    /// A case.
    public init(
        queryHeads: Int, heads: Int, headDim: Int, valueDim: Int, layout: KVLayout, pageSize: Int, padding: Int = 0,
        parameters: RoPEParameters = RoPEParameters(), isScaled: Bool = false
    ) {
        (self.queryHeads, self.heads, self.headDim, self.valueDim) = (queryHeads, heads, headDim, valueDim)
        (self.layout, self.pageSize, self.padding) = (layout, pageSize, padding)
        (self.parameters, self.isScaled) = (parameters, isScaled)
    }
}

/// The tensors that a run of a case reads and writes, in host memory.
public struct RoPEAppendTensors {
    /// Read; queries turn in place where the fixture has no other type for them.
    public let queries, keys, values, positions: OpsTensor
    /// Written.
    public let queryOutput, keyCache, valueCache: OpsTensor
    /// Float32 copies of turned heads, for the separate operations.
    public let turnedQueries, turnedKeys: OpsTensor
    /// Scales by head.
    public let keyScales: OpsTensor

    /// All, for a copy to a device.
    public var all: [OpsTensor] {
        [queries, keys, values, positions, queryOutput, keyCache, valueCache, turnedQueries, turnedKeys, keyScales]
    }
}

/// A case with types and numbers.
public struct RoPEAppendFixture {
    private let test: RoPEAppendCase
    private let (input, queryType, cacheType): (DType, DType?, DType)
    private let pages: Int
    private let (q, k, v): ([Double], [Double], [Double])

    /// Far and near; the third and the last are not stored.
    public static let positions: [Double] = [0, 1, 17, 8_191, 131_071, 1_000_000, 2_147_483_647]
    /// Where tokens go, in pages and rows.
    public let slots: KVSlots
    /// What a stored number of 8 bits stands for.
    public static let (queryScale, keyScale, valueScale): (Float, Float, Float) = (0.011, 0.25, 0.03)

    /// - Parameter queryType: `nil` where queries turn in place.
    public init(_ test: RoPEAppendCase, input: DType, queryType: DType?, cacheType: DType) throws {
        (self.test, self.input, self.queryType, self.cacheType) = (test, input, queryType, cacheType)
        pages = 2 + 12 / test.pageSize
        let last = Int32(pages * test.pageSize - 1)
        slots = try KVSlots(slots: [last, 3, -1, 0, 7, 5, -9], pageSize: test.pageSize)
        var random = OpsRandom(51)
        let tokens = Self.positions.count
        q = random.normals(tokens * test.queryHeads * test.headDim)
        k = random.normals(tokens * test.heads * test.headDim)
        v = random.normals(tokens * test.heads * test.valueDim)
    }

    private var outputType: DType { queryType ?? input }
    private var isQuantized: Bool { outputType.quantizedMagnitude != nil }

    private func cacheShape(_ dim: Int) -> [Int] {
        test.layout == .nhd
            ? [pages, test.pageSize, test.heads, dim] : [pages, test.heads, test.pageSize, dim]
    }

    /// Fresh tensors of the same numbers.
    public func tensors() throws -> RoPEAppendTensors {
        let tokens = Self.positions.count
        let (queryShape, keyShape) = ([tokens, test.queryHeads, test.headDim], [tokens, test.heads, test.headDim])
        let queries = try OpsTensor(input, queryShape, padding: test.padding, values: q)
        return RoPEAppendTensors(
            queries: queries, keys: try OpsTensor(input, keyShape, padding: test.padding, values: k),
            values: try OpsTensor(input, [tokens, test.heads, test.valueDim], padding: test.padding, values: v),
            positions: try OpsTensor(.int32, [tokens], values: Self.positions),
            queryOutput: queryType == nil ? queries : try OpsTensor(outputType, queryShape, padding: test.padding),
            keyCache: try OpsTensor(cacheType, cacheShape(test.headDim), padding: test.padding),
            valueCache: try OpsTensor(cacheType, cacheShape(test.valueDim), padding: test.padding),
            turnedQueries: try OpsTensor(.float32, queryShape), turnedKeys: try OpsTensor(.float32, keyShape),
            keyScales: try OpsTensor(
                .float32, [test.heads], values: (0..<test.heads).map { 0.5 * Double($0 + 1) }))
    }

    /// The operation on tensors, or on `views` of them, in the order of ``RoPEAppendTensors/all``.
    public func operation(
        _ tensors: RoPEAppendTensors, views: [TensorView]? = nil, slots: KVSlots
    ) throws -> RoPEAppendKVOperation {
        let views = views ?? tensors.all.map(\.view)
        return RoPEAppendKVOperation(
            queries: views[0], keys: views[1], values: views[2], queryOutput: views[4],
            queryScale: isQuantized ? Self.queryScale : 1, positions: views[3], parameters: test.parameters,
            cache: try cache(views), slots: slots)
    }

    /// The same by operations that each do one thing, with float32 between them.
    public func separateOperations(
        _ tensors: RoPEAppendTensors, views: [TensorView]? = nil, slots: KVSlots
    ) throws -> [Operation] {
        let views = views ?? tensors.all.map(\.view)
        return [
            .rope(
                RoPEOperation(
                    queries: views[0], queryOutput: views[7], positions: views[3], parameters: test.parameters)),
            .rope(
                RoPEOperation(
                    queries: views[1], queryOutput: views[8], positions: views[3], parameters: test.parameters)),
            .convert(
                ConvertOperation(
                    input: views[7], output: views[4], scale: isQuantized ? 1 / Self.queryScale : 1)),
            .appendKV(AppendKVOperation(keys: views[8], values: views[2], cache: try cache(views), slots: slots)),
        ]
    }

    private func cache(_ views: [TensorView]) throws -> KVCacheView {
        try .paged(
            keys: views[5], values: views[6], layout: test.layout,
            scales: test.isScaled
                ? KVScales(key: Self.keyScale, value: Self.valueScale, keyPerHead: views[9]) : KVScales())
    }

    /// What a run left in its tensors, against the definition in float64: the first thing wrong, or `nil`.
    public func firstProblem(_ found: RoPEAppendTensors) -> String? {
        for tensor in [found.queries, found.queryOutput, found.keyCache, found.valueCache]
        where !tensor.paddingIsIntact { return "padding was written" }
        var stored: Set<Int> = []
        for (token, position) in Self.positions.enumerated() {
            for head in 0..<test.queryHeads {
                let start = (token * test.queryHeads + head) * test.headDim
                let exact = OpsOracle.rope(
                    sources(q, input, start, test.headDim), position: position, test.parameters)
                if let problem = problem(
                    found.queryOutput, at: start, exact, scale: isQuantized ? Double(Self.queryScale) : 1, position)
                {
                    return "query head \(head) of token \(token): \(problem)"
                }
            }
            let (block, row) = (Int(slots.blocks[token]), Int(slots.rows[token]))
            if block < 0 { continue }
            for head in 0..<test.heads {
                let place =
                    test.layout == .nhd
                    ? (block * test.pageSize + row) * test.heads + head
                    : (block * test.heads + head) * test.pageSize + row
                stored.insert(place)
                let source = token * test.heads + head
                let exactKey = OpsOracle.rope(
                    sources(k, input, source * test.headDim, test.headDim), position: position, test.parameters)
                let perHead = test.isScaled ? Double(Self.keyScale) * 0.5 * Double(head + 1) : 1
                if let problem = problem(
                    found.keyCache, at: place * test.headDim, exactKey, scale: perHead, position)
                {
                    return "key head \(head) of token \(token): \(problem)"
                }
                let value = sources(v, input, source * test.valueDim, test.valueDim)
                if let problem = problem(
                    found.valueCache, at: place * test.valueDim, value,
                    scale: test.isScaled ? Double(Self.valueScale) : 1, 0)
                {
                    return "value head \(head) of token \(token): \(problem)"
                }
            }
        }
        // What no token went to is as it was: ones in every bit.
        for (tensor, dim) in [(found.keyCache, test.headDim), (found.valueCache, test.valueDim)] {
            let poison = UInt32.max >> (32 - 8 * UInt32(tensor.view.dtype.byteCount))
            for index in 0..<tensor.count where !stored.contains(index / dim) && tensor.bits(index) != poison {
                return "element \(index) of the cache was written"
            }
        }
        return nil
    }

    private func sources(_ numbers: [Double], _ type: DType, _ start: Int, _ count: Int) -> [Double] {
        numbers[start..<start + count].map { rounded(Float($0), to: type) }
    }

    private func problem(
        _ found: OpsTensor, at start: Int, _ exact: [Double], scale: Double, _ position: Double
    ) -> String? {
        let type = found.view.dtype
        let largest = exact.reduce(0) { max($0, abs($1)) }
        // A rounded sine and cosine of a rounded angle and four float32 steps; what float64 loses of an angle at a far position; then
        // the type's own rounding.
        let slack = (6 * 0x1p-24 + position * 0x1p-52) * 2 * largest / scale
        for (offset, value) in exact.enumerated() {
            let limit = type.quantizedMagnitude.map(Double.init) ?? .infinity
            let wanted = min(max(value / scale, type == .int8 ? -128 : -limit), limit)
            let error = abs(found[start + offset] - rounded(Float(wanted), to: type))
            if error == 0 { continue }
            let unit: Double =
                switch type {
                case .float32: 0
                case .float16: max(0x1p-11 * abs(wanted), 0x1p-25)
                case .bfloat16: 0x1p-8 * abs(wanted)
                case .float8E4M3: max(0x1p-4 * abs(wanted), 0x1p-10)
                case .float8E5M2: max(0x1p-3 * abs(wanted), 0x1p-17)
                default: 0.5
                }
            if !(abs(found[start + offset] - wanted) <= unit + slack + 0x1p-25) {
                return "element \(offset) is \(found[start + offset]), exactly \(wanted)"
            }
        }
        return nil
    }
}
