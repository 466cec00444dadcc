import FlashInfer

/// The inputs and outputs of a case, as many times as outrun the L2 cache.
struct CUDATensors {
    struct Set {
        var queries: TensorView
        var cache: KVCacheView
        var output: TensorView
    }

    /// Bytes of a case's sets.
    struct Sizes {
        /// Of one set's queries, or its output where it is larger.
        var query: Int
        /// Of one set's keys and values.
        var kv: Int
        var count: Int

        init(_ test: CUDACase) throws {
            guard let kvType = DType(test.kvType), let queryType = DType(test.queryType) else {
                throw FlashInferError.invalidArgument("type", found: test.kvType, expected: "a type's name")
            }
            let tokens = test.queryLengths.reduce(0, +)
            query = (tokens * test.queryHeads * test.headDim * max(queryType.byteCount, 2) + 255) & ~255
            // Two tensors, each rounded up.
            kv = 2 * ((test.rowCount * test.kvHeads * test.headDim * kvType.byteCount + 255) & ~255)
            count = CUDATiming.setCount(2 * query + kv)
        }

        var kvTotal: Int { kv * count }
        var queryTotal: Int { query * count }
    }

    var sets: [Set] = []

    init(
        _ test: CUDACase, kv: inout CUDAArena, queries: inout CUDAArena, outputs: MemoryRegion
    ) throws {
        let sizes = try Sizes(test)
        let tokens = test.queryLengths.reduce(0, +)
        let shape: Shape = [tokens, test.queryHeads, test.headDim]
        for index in 0..<sizes.count {
            let cache: KVCacheView
            if test.pageSize == 0 {
                let rows: Shape = [test.rowCount, test.kvHeads, test.headDim]
                cache = try .ragged(keys: kv.take(rows), values: kv.take(rows))
            } else {
                let pages = test.rowCount / test.pageSize
                // Integers of the arena are 40 times a normal number.
                cache = try .paged(
                    combined: kv.take([pages, 2, test.pageSize, test.kvHeads, test.headDim]),
                    scales: test.kvType == "int8" ? KVScales(key: 0.025, value: 0.025) : KVScales())
            }
            sets.append(
                Set(
                    queries: try queries.take(shape), cache: cache,
                    output: try TensorView(
                        outputs, byteOffset: index * sizes.query, dtype: .bfloat16, shape: shape)))
        }
    }
}
