import FlashInfer

/// One small operation of a decoder, on fresh tensors for every set.
struct CUDARowCase {
    var name: String
    /// The operation for some tokens, on tensors of the memory.
    var make: (Int, CUDARowMemory) throws -> Operation

    private static let (width, gate, queryHeads, heads, dim, page) = (4096, 14_336, 32, 8, 128, 16)
    private static let (latentHeads, latent, rotary) = (128, 512, 64)

    /// All of them.
    static var all: [CUDARowCase] { norms + activations + rotations + caches + others }

    private static var norms: [CUDARowCase] {
        [
            CUDARowCase(name: "rmsnorm h4096") { tokens, memory in
                let operation = RMSNormOperation(
                    input: try memory.input([tokens, width]), weight: try memory.weights(.bfloat16, width),
                    output: try memory.output(.bfloat16, [tokens, width]))
                return .rmsNorm(operation)
            },
            CUDARowCase(name: "fused_add_rmsnorm h4096") { tokens, memory in
                let x = try memory.input([tokens, width])
                // The residual is read and written: as an output that counts twice with the one that takes x's place.
                let residual = try memory.input([tokens, width])
                _ = try memory.output(.bfloat16, [2 * tokens, width])
                let operation = RMSNormOperation(
                    input: x, weight: try memory.weights(.bfloat16, width), residual: residual, output: x)
                return .rmsNorm(operation)
            },
            CUDARowCase(name: "gemma_rmsnorm h4096") { tokens, memory in
                let operation = RMSNormOperation(
                    input: try memory.input([tokens, width]), weight: try memory.weights(.bfloat16, width),
                    output: try memory.output(.bfloat16, [tokens, width]), weightOffset: 1)
                return .rmsNorm(operation)
            },
            CUDARowCase(name: "rmsnorm to fp8 h4096") { tokens, memory in
                let operation = RMSNormOperation(
                    input: try memory.input([tokens, width]), weight: try memory.weights(.bfloat16, width),
                    output: try memory.output(.float8E4M3, [tokens, width]), quantization: .scale(0.05))
                return .rmsNorm(operation)
            },
            CUDARowCase(name: "rmsnorm to fp8 by 128 h4096") { tokens, memory in
                let operation = RMSNormOperation(
                    input: try memory.input([tokens, width]), weight: try memory.weights(.bfloat16, width),
                    output: try memory.output(.float8E4M3, [tokens, width]),
                    quantization: .perGroup(size: 128, scales: try memory.output(.float32, [tokens, width / 128])))
                return .rmsNorm(operation)
            },
            CUDARowCase(name: "layernorm h4096") { tokens, memory in
                let operation = LayerNormOperation(
                    input: try memory.input([tokens, width]), weight: try memory.weights(.float32, width),
                    bias: try memory.weights(.float32, width), output: try memory.output(.bfloat16, [tokens, width]))
                return .layerNorm(operation)
            },
        ]
    }

    private static var activations: [CUDARowCase] {
        func test(
            _ name: String, _ output: DType, activation: GatedActivationOperation.Activation = .silu,
            _ way: @escaping (Int, CUDARowMemory) throws -> OutputQuantization?
        ) -> CUDARowCase {
            CUDARowCase(name: name) { tokens, memory in
                let both = try memory.input([tokens, 2 * gate])
                let operation = GatedActivationOperation(
                    gate: both.slice(0..<gate, along: 1), up: both.slice(gate..<2 * gate, along: 1),
                    output: try memory.output(output, [tokens, gate]), activation: activation,
                    quantization: try way(tokens, memory))
                return .gatedActivation(operation)
            }
        }
        func quantize(
            _ name: String, _ way: @escaping (Int, CUDARowMemory) throws -> OutputQuantization
        ) -> CUDARowCase {
            CUDARowCase(name: name) { tokens, memory in
                let operation = QuantizeOperation(
                    input: try memory.input([tokens, width]),
                    output: try memory.output(.float8E4M3, [tokens, width]), quantization: try way(tokens, memory))
                return .quantize(operation)
            }
        }
        return [
            test("silu_and_mul 14336", .bfloat16) { _, _ in nil },
            test("gelu_and_mul 14336", .bfloat16, activation: .geluErf) { _, _ in nil },
            test("silu_and_mul to fp8 by row 14336", .float8E4M3) {
                .perRow(scales: try $1.output(.float32, [$0]))
            },
            test("silu_and_mul to fp8 by 128 14336", .float8E4M3) {
                .perGroup(size: 128, scales: try $1.output(.float32, [$0, gate / 128]))
            },
            quantize("quantize to fp8 h4096") { _, _ in .scale(0.05) },
            quantize("quantize to fp8 by row h4096") { .perRow(scales: try $1.output(.float32, [$0])) },
            quantize("quantize to fp8 by 128 h4096") {
                .perGroup(size: 128, scales: try $1.output(.float32, [$0, width / 128]))
            },
            quantize("quantize to fp8 by 128, columns h4096") {
                .perGroup(size: 128, scales: try $1.output(.float32, [width / 128, $0]).transposed(0, 1))
            },
        ]
    }

    private static func positions(_ tokens: Int, _ memory: CUDARowMemory) throws -> TensorView {
        try memory.integers((0..<Int32(tokens)).map { 1000 + $0 }, [tokens])
    }

    /// Every token in a row of its own, pages in another order than tokens.
    private static func slots(_ tokens: Int, _ memory: CUDARowMemory) throws -> (slots: KVSlots, pages: Int) {
        let pages = (tokens + page - 1) / page
        let places = (0..<tokens).map { (page: ($0 / page * 7919) % pages, row: $0 % page) }
        // 7919 is a prime above the number of pages: another page for every sixteen tokens.
        let table = try memory.integers(
            places.map { Int32($0.page) } + places.map { Int32($0.row) }, [2, tokens])
        return (try KVSlots(table: table), pages)
    }

    private static var rotations: [CUDARowCase] {
        func rope(_ name: String, normalised: Bool, tabled: Bool) -> CUDARowCase {
            CUDARowCase(name: name) { tokens, memory in
                let (q, k) = (try memory.input([tokens, queryHeads, dim]), try memory.input([tokens, heads, dim]))
                _ = try memory.output(.bfloat16, [tokens, queryHeads + heads, dim])
                let weight = try memory.weights(.bfloat16, dim)
                let operation = RoPEOperation(
                    queries: q, keys: k, positions: try positions(tokens, memory), parameters: RoPEParameters(),
                    table: tabled ? try memory.floats(32_768 * dim).reshaped([32_768, dim]) : nil,
                    normalization: normalised ? HeadNormalization(queryWeight: weight, keyWeight: weight) : nil)
                return .rope(operation)
            }
        }
        func append(_ name: String, normalised: Bool, _ cacheType: DType) -> CUDARowCase {
            CUDARowCase(name: name) { tokens, memory in
                let (slots, pages) = try slots(tokens, memory)
                let q = try memory.input([tokens, queryHeads, dim])
                let (k, v) = (try memory.input([tokens, heads, dim]), try memory.input([tokens, heads, dim]))
                let cache = try memory.output(cacheType, [pages, 2, page, heads, dim])
                let weight = try memory.weights(.bfloat16, dim)
                let operation = RoPEAppendKVOperation(
                    queries: q, keys: k, values: v,
                    queryOutput: try memory.output(.bfloat16, [tokens, queryHeads, dim]),
                    positions: try positions(tokens, memory), parameters: RoPEParameters(),
                    normalization: normalised ? HeadNormalization(queryWeight: weight, keyWeight: weight) : nil,
                    cache: try .paged(combined: cache), slots: slots)
                return .ropeAppendKV(operation)
            }
        }
        return [
            rope("rope 32q+8k d128", normalised: false, tabled: false),
            rope("rope_cos_sin_cache 32q+8k d128", normalised: false, tabled: true),
            rope("qk_norm_rope 32q+8k d128", normalised: true, tabled: false),
            append("rope_append 32q+8k d128", normalised: false, .bfloat16),
            append("rope_append fp8 32q+8k d128", normalised: false, .float8E4M3),
            append("qk_norm_rope_append 32q+8k d128", normalised: true, .bfloat16),
            CUDARowCase(name: "mla rope_quantize_append fp8 128q 512+64") { tokens, memory in
                let (slots, pages) = try slots(tokens, memory)
                let cache = try memory.output(.float8E4M3, [pages, page, 1, latent + rotary])
                let output = try memory.output(.float8E4M3, [tokens, latentHeads, latent + rotary])
                let operation = SplitRoPEOperation(
                    queries: .init(
                        turning: try memory.input([tokens, latentHeads, rotary]),
                        rest: try memory.input([tokens, latentHeads, latent])),
                    keys: .init(
                        turning: try memory.input([tokens, 1, rotary]), rest: try memory.input([tokens, 1, latent])),
                    queryOutput: .init(
                        turning: output.slice(latent..<latent + rotary, along: 2),
                        rest: output.slice(0..<latent, along: 2)),
                    keyOutput: .latentCache(
                        try .paged(
                            keys: cache.slice(0..<latent, along: 3),
                            values: cache.slice(latent..<latent + rotary, along: 3)),
                        slots),
                    positions: try positions(tokens, memory),
                    table: try memory.floats(32_768 * rotary).reshaped([32_768, rotary]))
                return .splitRoPE(operation)
            },
        ]
    }

    private static var caches: [CUDARowCase] {
        [
            CUDARowCase(name: "append_paged_kv_cache 8kv d128") { tokens, memory in
                let (slots, pages) = try slots(tokens, memory)
                let (k, v) = (try memory.input([tokens, heads, dim]), try memory.input([tokens, heads, dim]))
                let operation = AppendKVOperation(
                    keys: k, values: v,
                    cache: try .paged(combined: memory.output(.bfloat16, [pages, 2, page, heads, dim])),
                    slots: slots)
                return .appendKV(operation)
            },
            CUDARowCase(name: "append_paged_mla_kv_cache 512+64") { tokens, memory in
                let (slots, pages) = try slots(tokens, memory)
                let operation = AppendKVOperation(
                    keys: try memory.input([tokens, 1, latent]), values: try memory.input([tokens, 1, rotary]),
                    cache: try .paged(
                        keys: memory.output(.bfloat16, [pages, page, 1, latent]),
                        values: memory.output(.bfloat16, [pages, page, 1, rotary])), slots: slots)
                return .appendKV(operation)
            },
        ]
    }

    private static var others: [CUDARowCase] {
        [
            CUDARowCase(name: "merge_state 32x128") { tokens, memory in
                let operation = MergeStatesOperation(
                    values: try memory.input([2, tokens, queryHeads, dim]),
                    logSumExp: try memory.floats(2 * tokens * queryHeads).reshaped([2, tokens, queryHeads]),
                    output: try memory.output(.bfloat16, [tokens, queryHeads, dim]),
                    mergedLogSumExp: try memory.output(.float32, [tokens, queryHeads]))
                return .mergeStates(operation)
            },
            CUDARowCase(name: "packbits 4096 a token") { tokens, memory in
                // A byte is a flag: bfloat16 numbers serve as two of them.
                let flags = try memory.input([tokens, width / 2])
                let bytes = try TensorView(
                    flags.region, byteOffset: flags.byteOffset, dtype: .uint8, shape: [tokens * width])
                let operation = PackBitsOperation(
                    flags: bytes, output: try memory.output(.uint8, [tokens * width / 8]), order: .lowestFirst)
                return .packBits(operation)
            },
        ]
    }
}
