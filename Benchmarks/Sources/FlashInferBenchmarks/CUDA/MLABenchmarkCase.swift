import FlashInfer

/// One batch of latent attention to time, as Peers/mla_peer.py reads it too. All requests are alike.
struct MLABenchmarkCase: Codable {
    /// What the two sides join by, and people read.
    var key: String
    var kvType: String
    var batch: Int
    var queryLength: Int
    var kvLength: Int
    var heads: Int
    var pageSize: Int

    init(_ batch: Int, _ kvLength: Int, heads: Int, queries: Int = 1, page: Int = 64, type: String = "bfloat16") {
        key =
            "mla H \(heads) B \(batch) L \(kvLength)\(queries > 1 ? " q \(queries)" : "")\(page != 64 ? " page \(page)" : "")"
            + (type == "bfloat16" ? "" : " \(type)")
        (self.batch, self.kvLength, self.heads) = (batch, kvLength, heads)
        (queryLength, pageSize, kvType) = (queries, page, type)
    }

    /// The peer's baselines first.
    static var all: [MLABenchmarkCase] {
        [
            .init(16, 4096, heads: 128), .init(64, 4096, heads: 128), .init(128, 2048, heads: 16),
            .init(128, 8192, heads: 16), .init(132, 4096, heads: 16), .init(64, 4096, heads: 64),
            .init(128, 4096, heads: 128), .init(1, 32768, heads: 128), .init(1, 32768, heads: 16),
            .init(64, 4096, heads: 128, queries: 2), .init(64, 4096, heads: 16, queries: 4),
            .init(64, 4096, heads: 128, page: 16), .init(64, 4096, heads: 128, page: 1),
            .init(64, 4096, heads: 128, type: "float8-e4m3"), .init(128, 2048, heads: 16, type: "float8-e4m3"),
        ]
    }

    private static let latentDim = 512, ropeDim = 64

    private var rows: Int { (kvLength + pageSize - 1) / pageSize * pageSize * batch }
    private var tokens: Int { batch * queryLength }

    /// Bytes of one set's cache, and of its queries or its output.
    var kvSetByteCount: Int {
        let bytes = DType(kvType)?.byteCount ?? 2
        return rows * (Self.latentDim + Self.ropeDim) * bytes + 1024
    }
    var querySetByteCount: Int { tokens * heads * (Self.latentDim + Self.ropeDim) * 2 + 1024 }
    var setCount: Int { CUDATiming.setCount(kvSetByteCount + 2 * querySetByteCount) }

    /// Bytes of the keys that a run reads.
    var keyByteCount: Int { batch * kvLength * (Self.latentDim + Self.ropeDim) * (DType(kvType)?.byteCount ?? 2) }

    /// Floating-point operations over the keys that each query sees.
    var operationCount: Double {
        let pairs = Double(batch * (queryLength * kvLength - queryLength * (queryLength - 1) / 2))
        return 2 * Double(heads * (2 * Self.latentDim + Self.ropeDim)) * pairs
    }

    func problem() throws -> AttentionProblem {
        guard let kv = DType(kvType) else {
            throw FlashInferError.invalidArgument("type", found: kvType, expected: "a type's name")
        }
        let pages = rows / pageSize, each = pages / batch
        var random = Random(state: 1)
        let geometry = try BatchGeometry.paged(
            queryIndptr: (0...Int32(batch)).map { $0 * Int32(queryLength) },
            pageIndptr: (0...Int32(batch)).map { $0 * Int32(each) },
            pageIndices: (0..<Int32(pages)).shuffled(using: &random),
            kvLengths: .init(repeating: Int32(kvLength), count: batch), pageSize: pageSize, pageCount: pages)
        return try AttentionProblem(
            geometry: geometry, shape: .latent(queryHeads: heads),
            variant: AttentionVariant(mask: .causal, scale: 1 / Float(192).squareRoot()), queryType: .bfloat16,
            kvType: kv)
    }

    struct Tensors {
        var nopeQueries: TensorView
        var ropeQueries: TensorView
        var cache: LatentCacheView
        var output: TensorView
    }

    func sets(kv: inout CUDAArena, queries: inout CUDAArena, outputs: MemoryRegion) throws -> [Tensors] {
        try (0..<setCount).map { index in
            let pages = rows / pageSize
            return Tensors(
                nopeQueries: try queries.take([tokens, heads, Self.latentDim]),
                ropeQueries: try queries.take([tokens, heads, Self.ropeDim]),
                cache: try .paged(
                    latent: kv.take([pages, pageSize, Self.latentDim]), rope: kv.take([pages, pageSize, Self.ropeDim])),
                output: try TensorView(
                    outputs, byteOffset: index * (querySetByteCount & ~255), dtype: .bfloat16,
                    shape: [tokens, heads, Self.latentDim]))
        }
    }
}
