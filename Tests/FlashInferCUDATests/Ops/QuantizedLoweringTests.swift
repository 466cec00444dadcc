import CUDAKernels
import FlashInferCUDA
import FlashInferCore
import Testing

/// What quantised outputs, and rotary embedding with an append, become, without a GPU.
@Suite struct QuantizedLoweringTests {
    private func view(_ dtype: DType, _ shape: Shape, strides: Shape? = nil, lead: Int = 0) throws -> TensorView {
        try TensorView(
            MemoryRegion(address: 1 << 20, byteCount: 1 << 46, device: .cuda(0)), byteOffset: lead * dtype.byteCount,
            dtype: dtype, shape: shape, strides: strides)
    }

    @Test func bytesTakeNoPartInTheWidthOfVectors() throws {
        let input = try view(.bfloat16, [6, 4_096])
        let weight = try view(.bfloat16, [4_096])
        func lower(_ output: TensorView, _ way: OutputQuantization?) throws -> KernelLaunch<fi_norm_params> {
            try #require(
                try NormKernel.lower(
                    RMSNormOperation(input: input, weight: weight, output: output, quantization: way)))
        }
        let plain = try lower(input, nil)
        let bytes = try view(.float8E4M3, [6, 4_096], lead: 1 << 30)
        let launch = try lower(bytes, .scale(0.25))
        #expect(launch.spec != plain.spec && launch.blocks == plain.blocks)
        #expect(launch.spec.threads == 256 && launch.spec.defines.contains(.init("FI_CHUNKS", 2)))
        #expect(launch.spec.defines.contains(.init("FI_OUTPUT", 8)))
        #expect(launch.spec.label == "rms-norm bf16 to bytes 256x2, aligned")
        let quantize = launch.parameters.quantize
        #expect(quantize.factor == 4 && quantize.type == 3 && quantize.scale == 0 && quantize.row_scales == 0)
        #expect(plain.parameters.quantize.factor == 1 && plain.parameters.quantize.type == 2)
        // One kernel for all types of 8 bits and given scales.
        let scale = try view(.float32, [1], lead: 64)
        let scales = try view(.float32, [6], lead: 128)
        let tensor = try lower(view(.int8, [6, 4_096]), .scaleTensor(scale))
        let rows = try lower(view(.float8E5M2, [6, 4_096]), .perRow(scales: scales))
        #expect(tensor.spec == launch.spec && rows.spec.label == "rms-norm bf16 to bytes by row 256x2, aligned")
        // Rows of many share a block; those with a residual are the other kernel's.
        let many = try view(.bfloat16, [1_025, 4_096])
        let together = try #require(
            try NormKernel.lower(
                RMSNormOperation(
                    input: many, weight: weight, output: view(.int8, [1_025, 4_096], lead: 1 << 30),
                    quantization: .scale(1))))
        #expect(together.spec.label == "rms-norm bf16 to bytes 256x2, 2 rows" && together.blocks == 513)
        let residual = try #require(
            try NormKernel.lower(
                RMSNormOperation(
                    input: many, weight: weight, residual: view(.bfloat16, [1_025, 4_096], lead: 1 << 31),
                    output: view(.int8, [1_025, 4_096], lead: 1 << 30), quantization: .scale(1))))
        #expect(residual.spec.file == "portable/norm.cuh" && residual.blocks == 1_025)
        #expect(tensor.parameters.quantize.scale == UInt64(scale.address) && tensor.parameters.quantize.type == 5)
        #expect(rows.parameters.quantize.row_scales == UInt64(scales.address) && rows.parameters.quantize.type == 4)
        // Eight bytes are a vector's store.
        for (stride, lead, isAligned) in [(4_104, 0, 1), (4_104, 8, 1), (4_100, 0, 0), (4_096, 4, 0)] {
            let output = try view(.int8, [6, 4_096], strides: [stride, 1], lead: lead)
            #expect(try lower(output, .scale(1)).parameters.vectorised == Int32(isAligned))
        }
    }

    @Test func rowsWithScalesOfTheirOwnHaveABlock() throws {
        for (width, threads) in [(1_536, 256), (4_096, 256), (4_104, 1_024), (14_336, 1_024), (100_000, 1_024)] {
            let (gate, output) = (try view(.bfloat16, [70_001, width]), try view(.int8, [70_001, width]))
            func lower(_ way: OutputQuantization) throws -> KernelLaunch<fi_gated_activation_params> {
                try #require(
                    try GatedActivationKernel.lower(
                        GatedActivationOperation(
                            gate: gate, up: gate, output: output, activation: .silu, quantization: way)))
            }
            let launch = try lower(.perRow(scales: view(.float32, [70_001])))
            // Of long rows a block has sixteen.
            #expect(launch.blocks == (threads == 256 ? 70_001 : 4_376) && launch.spec.threads == threads)
            #expect(launch.parameters.tiling.vectorised == 1)
            #expect(launch.spec.file == "portable/gated_activation_rows.cuh")
            #expect(launch.parameters.tiling.width == Int64(width) && launch.parameters.tiling.rows == 70_001)
            // With one scale rows that follow one another are one row.
            let elementwise = try lower(.scale(2))
            #expect(elementwise.parameters.tiling.rows == 1 && elementwise.parameters.quantize.factor == 0.5)
            #expect(elementwise.spec.file == "portable/gated_activation.cuh")
        }
        let empty = try GatedActivationKernel.lower(
            GatedActivationOperation(
                gate: view(.float32, [0, 8]), up: view(.float32, [0, 8]), output: view(.int8, [0, 8]),
                activation: .silu, quantization: .perRow(scales: view(.float32, [0]))))
        #expect(empty == nil)
    }

    /// 32 query heads and 8 heads of keys and values, of 128, in pages of 16.
    private func operation(
        _ input: DType, cache: DType, rotaryDim: Int? = nil, valueDim: Int = 128, layout: KVLayout = .nhd,
        isInPlace: Bool = false, queryLead: Int = 0, tokens: Int = 3
    ) throws -> RoPEAppendKVOperation {
        func shape(_ dim: Int) -> Shape { layout == .nhd ? [9, 16, 8, dim] : [9, 8, 16, dim] }
        return RoPEAppendKVOperation(
            queries: try view(input, [tokens, 32, 128], lead: queryLead),
            keys: try view(input, [tokens, 8, 128], lead: 1 << 30),
            values: try view(input, [tokens, 8, valueDim], lead: 1 << 31),
            queryOutput: isInPlace ? nil : try view(.float8E4M3, [tokens, 32, 128], lead: 1 << 34),
            queryScale: isInPlace ? 1 : 0.5, positions: try view(.int32, [tokens]),
            parameters: RoPEParameters(rotaryDim: rotaryDim, pairing: .interleaved),
            cache: try .paged(
                keys: view(cache, shape(128), lead: 1 << 35), values: view(cache, shape(valueDim), lead: 1 << 36),
                layout: layout, scales: KVScales(key: 0.5, value: 2, keyPerHead: view(.float32, [8]))),
            slots: try KVSlots(table: view(.int32, [2, tokens])))
    }

    private func lower(_ operation: RoPEAppendKVOperation) throws -> KernelLaunch<fi_rope_parts_params>? {
        try RoPEPartsKernel.lower(operation, angles: fi_rope_angles(turns: 4096), slots: 512)
    }

    @Test func rotationWithAppendIsOneLaunch() throws {
        for layout in [KVLayout.nhd, .hnd] {
            let launch = try #require(try lower(operation(.bfloat16, cache: .float8E4M3, layout: layout)))
            let p = launch.parameters
            // Vectors of eight: 40 heads of 8 vectors of pairs, 8 heads of 16 of values, in blocks of 128.
            let (queries, keys, values) = (p.parts.0, p.parts.1, p.parts.2)
            #expect(p.vectorised == 1 && queries.turn_items == 8 && keys.turn_items == 8 && values.turn_items == 0)
            #expect(queries.move_items == 0 && keys.move_items == 0 && values.move_items == 16)
            #expect(p.token_blocks == 4 && launch.blocks == 12 && launch.spec.threads == 128)
            #expect(queries.first_block == 0 && keys.first_block == 2 && values.first_block == 3 && p.norm_lanes == 0)
            #expect(queries.heads == 32 && keys.heads == 8 && p.parts.3.heads == 0 && p.parts.3.first_block == .max)
            #expect(p.rotary_dim == 128 && p.tokens == 3)
            #expect(p.blocks == 9 && p.block_rows == 16 && p.interleaved == 1)
            #expect(queries.factor == 2 && queries.type == 3 && keys.type == 3 && values.type == 3)
            #expect(keys.scale == 0.5 && values.factor == 0.5)
            #expect(keys.scales != 0 && values.scales == 0)
            #expect(queries.is_stored == 0 && keys.is_stored == 1 && values.is_stored == 1)
            #expect(keys.target.token == (layout == .nhd ? 1_024 : 128))
            #expect(keys.target.head == (layout == .nhd ? 128 : 2_048))
            #expect(p.angles.turns == 4096 && p.angles.table == 0 && p.slots == 512)
        }
        // Other types of caches are the same kernel; float32 has vectors of four.
        let wide = try #require(try lower(operation(.float32, cache: .int8)))
        #expect(wide.parameters.parts.0.turn_items == 16 && wide.parameters.parts.2.move_items == 32)
        #expect(try lower(operation(.float32, cache: .bfloat16))?.spec == wide.spec)
        #expect(wide.spec.label == "rope-parts fp32")
    }

    @Test func whatDoesNotTurnIsCopiedWhereItIsNotInPlace() throws {
        let moved = try #require(try lower(operation(.bfloat16, cache: .bfloat16, rotaryDim: 64)))
        #expect(moved.parameters.parts.0.move_items == 8 && moved.parameters.parts.1.move_items == 8)
        let inPlace = try #require(try lower(operation(.bfloat16, cache: .bfloat16, rotaryDim: 64, isInPlace: true)))
        #expect(inPlace.parameters.parts.0.move_items == 0 && inPlace.parameters.parts.1.move_items == 8)
        #expect(inPlace.parameters.parts.0.type == 2 && inPlace.parameters.parts.0.factor == 1)
        // Pairs, values or addresses that are no whole vectors.
        for odd in [
            try operation(.bfloat16, cache: .bfloat16, rotaryDim: 6),
            try operation(.bfloat16, cache: .int8, valueDim: 111),
            try operation(.bfloat16, cache: .int8, queryLead: 4),
        ] {
            let p = try #require(try lower(odd)).parameters
            #expect(p.vectorised == 0 && p.parts.0.turn_items == UInt32(odd.parameters.rotaryDim ?? 128) / 2)
            #expect(p.parts.2.move_items == UInt32(odd.cache.values.headDim))
        }
        #expect(try lower(operation(.float32, cache: .int8, tokens: 0)) == nil)
        #expect(throws: FlashInferError.overflow("elements of queries")) {
            try lower(operation(.float32, cache: .int8, tokens: 1 << 30))
        }
    }
}
