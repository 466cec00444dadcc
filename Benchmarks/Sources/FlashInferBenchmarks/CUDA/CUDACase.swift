import FlashInfer

/// One attention problem to time, as Peers/flashinfer_peer.py reads it too.
struct CUDACase: Codable {
    /// What the two sides join by, and people read.
    var key: String
    /// "prefill" and "mixed" count arithmetic, "decode" the cache's bytes.
    var kind: String
    var causal: Bool
    var queryType: String
    var kvType: String
    var queryHeads: Int
    var kvHeads: Int
    var headDim: Int
    /// 0: keys and values are rows of ragged tensors.
    var pageSize: Int
    var queryLengths: [Int]
    var kvLengths: [Int]
    /// Whether host times are worth taking too.
    var measuresHost: Bool

    static func prefill(
        _ length: Int, _ count: Int, dim: Int, heads: (Int, Int), causal: Bool, pageSize: Int = 0,
        type: String = "bfloat16"
    ) -> CUDACase {
        CUDACase(
            key:
                "prefill \(type == "bfloat16" ? "" : "\(type) ")\(pageSize == 0 ? "ragged" : "page \(pageSize)") "
                + "\(causal ? "causal" : "full") D \(dim) heads \(heads.0)/\(heads.1) \(count) x \(length)",
            kind: "prefill", causal: causal, queryType: type, kvType: type, queryHeads: heads.0,
            kvHeads: heads.1, headDim: dim, pageSize: pageSize, queryLengths: .init(repeating: length, count: count),
            kvLengths: .init(repeating: length, count: count), measuresHost: false)
    }

    static func decode(
        _ name: String, _ lengths: [Int], kvType: String = "bfloat16", heads: (Int, Int) = (32, 8), pageSize: Int = 16,
        measuresHost: Bool = false
    ) -> CUDACase {
        CUDACase(
            key: "decode \(kvType) heads \(heads.0)/\(heads.1) page \(pageSize) \(name)", kind: "decode", causal: true,
            queryType: "bfloat16", kvType: kvType, queryHeads: heads.0, kvHeads: heads.1, headDim: 128,
            pageSize: pageSize, queryLengths: .init(repeating: 1, count: lengths.count), kvLengths: lengths,
            measuresHost: measuresHost)
    }

    static func decode(
        _ batch: Int, _ length: Int, kvType: String = "bfloat16", heads: (Int, Int) = (32, 8), pageSize: Int = 16
    ) -> CUDACase {
        decode(
            "\(batch) x \(length)", .init(repeating: length, count: batch), kvType: kvType, heads: heads,
            pageSize: pageSize, measuresHost: [64, 256].contains(batch) && kvType == "bfloat16")
    }

    /// Chunks of prompts and decodes in one batch, all over as many keys.
    static func mixed(chunks: Int, of rows: Int, decodes: Int, over length: Int) -> CUDACase {
        CUDACase(
            key: "mixed page 16 causal D 128 heads 32/8 \(chunks) x \(rows) + \(decodes) x 1 over \(length)",
            kind: "mixed",
            causal: true, queryType: "bfloat16", kvType: "bfloat16", queryHeads: 32, kvHeads: 8, headDim: 128,
            pageSize: 16,
            queryLengths: .init(repeating: rows, count: chunks) + .init(repeating: 1, count: decodes),
            kvLengths: .init(repeating: length, count: chunks + decodes), measuresHost: false)
    }

    /// Those of the peer's baselines.
    static var all: [CUDACase] {
        var cases: [CUDACase] = []
        for (batch, length) in [
            (1, 1024), (1, 4096), (1, 8192), (1, 32768), (4, 1024), (4, 8192), (8, 1024), (8, 8192), (16, 1024),
            (16, 4096), (32, 1024), (32, 8192), (64, 4096), (128, 1024), (128, 8192), (256, 2048),
        ] {
            cases.append(decode(batch, length))
        }
        for heads in [(32, 32), (32, 8), (32, 4)] { cases.append(decode(32, 4096, heads: heads)) }
        for pageSize in [1, 64] { cases.append(decode(32, 4096, pageSize: pageSize)) }
        for type in ["float8-e4m3", "int8"] { cases.append(decode(64, 4096, kvType: type)) }
        cases += skewed
        for dim in [64, 128, 256] {
            for heads in [(32, 32), (32, 8)] {
                for (length, count) in [(1024, 16), (4096, 4), (16384, 1)] {
                    for causal in [true, false] {
                        cases.append(prefill(length, count, dim: dim, heads: heads, causal: causal))
                    }
                }
            }
        }
        for (length, count) in [(1024, 16), (4096, 4), (16384, 1)] {
            cases.append(prefill(length, count, dim: 128, heads: (32, 8), causal: true, pageSize: 16))
        }
        for pageSize in [1, 8, 64] {
            cases.append(prefill(4096, 4, dim: 128, heads: (32, 8), causal: true, pageSize: pageSize))
        }
        for dim in [64, 128, 256] {
            for causal in [false, true] {
                // One request of 8,192 rows, with fewer heads where they are wider.
                let heads = dim == 256 ? 16 : 32
                cases.append(
                    prefill(8192, 1, dim: dim, heads: (heads, heads), causal: causal, type: "float8-e4m3"))
            }
        }
        cases.append(prefill(8192, 1, dim: 128, heads: (32, 8), causal: true, pageSize: 16, type: "float8-e4m3"))
        // Together, and each part by itself: what one launch for both could save.
        cases.append(mixed(chunks: 8, of: 512, decodes: 56, over: 4096))
        cases.append(mixed(chunks: 8, of: 512, decodes: 0, over: 4096))
        cases.append(decode(56, 4096))
        return cases
    }

    /// 64 requests with about the same keys in all, unevenly shared.
    private static var skewed: [CUDACase] {
        var random = Random(state: 5)
        // Zipf with exponent 1, and exp of a normal number; both scaled to a mean of 2,048.
        let zipf = scaled((1...64).map { 1 / Double($0) })
        let lognormal = scaled((0..<64).map { _ in random.normal().exponential })
        return [
            decode("64 x 2048", .init(repeating: 2048, count: 64)),
            decode("1 x 65536 + 63 x 512", [65536] + .init(repeating: 512, count: 63)),
            decode("64 zipf, mean 2048", zipf), decode("64 lognormal, mean 2048", lognormal),
        ]
    }

    private static func scaled(_ weights: [Double]) -> [Int] {
        let sum = weights.reduce(0, +)
        return weights.map { max(1, Int($0 / sum * 64 * 2048)) }
    }
}

extension CUDACase {
    /// Bytes of the keys and values that a run reads.
    var kvByteCount: Int {
        2 * kvLengths.reduce(0, +) * kvHeads * headDim * (DType(kvType)?.byteCount ?? 0)
    }

    /// Floating-point operations: 4 · D for each query head, query and key; half of the square where causal, as is usual.
    var operationCount: Double {
        let pairs = zip(queryLengths, kvLengths).reduce(0.0) { sum, lengths in
            let (queries, keys) = (Double(lengths.0), Double(lengths.1))
            return sum + (causal ? queries * (keys - queries) + queries * queries / 2 : queries * keys)
        }
        return 4 * Double(headDim * queryHeads) * pairs
    }

    /// Pages of each request.
    var pageCounts: [Int] { kvLengths.map { ($0 + pageSize - 1) / pageSize } }

    /// Rows of keys: those of the pages, where there are pages.
    var rowCount: Int { pageSize == 0 ? kvLengths.reduce(0, +) : pageCounts.reduce(0, +) * pageSize }

    /// Lengths and page table as a server keeps them from step to step.
    struct Tables {
        var queryIndptr: [Int32]
        /// Of pages; of keys where there are no pages.
        var kvIndptr: [Int32]
        var pageIndices: [Int32] = []
        var lastPageLengths: [Int32] = []
    }

    func tables() -> Tables {
        func indptr(_ lengths: [Int]) -> [Int32] {
            lengths.reduce(into: [0]) { $0.append($0[$0.count - 1] + Int32($1)) }
        }
        if pageSize == 0 { return Tables(queryIndptr: indptr(queryLengths), kvIndptr: indptr(kvLengths)) }
        // Pages in random order, as a server's pool hands them out after a while.
        var random = Random(state: 1)
        return Tables(
            queryIndptr: indptr(queryLengths), kvIndptr: indptr(pageCounts),
            pageIndices: (0..<Int32(pageCounts.reduce(0, +))).shuffled(using: &random),
            lastPageLengths: kvLengths.map { Int32(($0 - 1) % pageSize + 1) })
    }

    func problem() throws -> AttentionProblem { try problem(tables()) }

    /// Checks tables and types, and nothing else.
    func problem(_ tables: Tables) throws -> AttentionProblem {
        guard let query = DType(queryType), let kv = DType(kvType) else {
            throw FlashInferError.invalidArgument("type", found: "\(queryType), \(kvType)", expected: "names of types")
        }
        let geometry: BatchGeometry
        if pageSize == 0 {
            geometry = try .ragged(queryIndptr: tables.queryIndptr, kvIndptr: tables.kvIndptr)
        } else {
            geometry = try .paged(
                queryIndptr: tables.queryIndptr, pageIndptr: tables.kvIndptr, pageIndices: tables.pageIndices,
                lastPageLengths: tables.lastPageLengths, pageSize: pageSize, pageCount: tables.pageIndices.count)
        }
        return try AttentionProblem(
            geometry: geometry, shape: AttentionShape(queryHeads: queryHeads, kvHeads: kvHeads, headDimQK: headDim),
            variant: causal ? .causal : .full, queryType: query, kvType: kv, outputType: .bfloat16)
    }
}
