import CUDAKernels
import FlashInferCUDA
import FlashInferCore
import Testing

/// What layer norm, scales of groups, packed bits, normalised heads and heads in two parts become, without a GPU.
@Suite struct RowFormLoweringTests {
    private func view(_ dtype: DType, _ shape: Shape, strides: Shape? = nil, lead: Int = 0) throws -> TensorView {
        try TensorView(
            MemoryRegion(address: 1 << 20, byteCount: 1 << 46, device: .cuda(0)), byteOffset: lead * dtype.byteCount,
            dtype: dtype, shape: shape, strides: strides)
    }

    @Test func layerNormHasItsOwnKernelAndStridesOf64Bits() throws {
        let x = try view(.bfloat16, [3, 4_096], strides: [1 << 33, 1])
        let (weight, bias) = (try view(.float32, [4_096]), try view(.float32, [4_096], lead: 4_096))
        let launch = try #require(
            try NormKernel.lower(LayerNormOperation(input: x, weight: weight, bias: bias, output: x)))
        #expect(launch.spec.label == "layer-norm bf16-bf16-fp32-bf16 256x2, few rows" && launch.blocks == 3)
        #expect(launch.parameters.input.outer == 1 << 33 && launch.parameters.bias == UInt64(bias.address))
        // Rows too wide for it are read again for every pass, where the other norm has registers for them.
        for (width, chunks) in [(16_384, 2), (16_392, 2)] {
            let wide = try view(.bfloat16, [2, width])
            let weight = try view(.float32, [width])
            let norm = LayerNormOperation(input: wide, weight: weight, bias: weight, output: wide)
            #expect(try NormKernel.lower(norm)?.spec.defines.contains(.init("FI_CHUNKS", chunks)) == true)
        }
        let off = try view(.float32, [4_096], lead: 1)
        #expect(
            try NormKernel.lower(LayerNormOperation(input: x, weight: weight, bias: off, output: x))?
                .parameters.vectorised == 0)
    }

    @Test func groupsHaveWholeWarpsOrVectors() throws {
        let scales = try view(.float32, [70_001, 32])
        for (stride, isAligned) in [(4_096, true), (4_100, false)] {
            let x = try view(.bfloat16, [70_001, 4_096], strides: [stride, 1])
            let operation = QuantizeOperation(
                input: x, output: try view(.float8E4M3, [70_001, 4_096]),
                quantization: .perGroup(size: 128, scales: scales))
            let launch = try #require(try GatedActivationKernel.lower(operation))
            #expect(launch.spec.label == "quantize bf16 to bytes by group" + (isAligned ? " of 2 rows" : ""))
            #expect((launch.parameters.tiling.vectorised != 0) == isAligned && launch.parameters.up.address == 0)
            // A thread a vector of eight in each of two rows, or a warp a group of 32.
            #expect(launch.blocks == (isAligned ? 35_001 * 2 : 70_001 * 32 / 8))
            #expect(launch.parameters.quantize.group == 128 && launch.parameters.quantize.scale_row == 32)
        }
        let columns = QuantizeOperation(
            input: try view(.float32, [5, 64]), output: try view(.int8, [5, 64], lead: 4_096),
            quantization: .perGroup(
                size: 64, scales: try view(.float32, [1, 8], lead: 4_096).slice(0..<5, along: 1).transposed(0, 1)))
        try columns.validate()
        let quantize = try #require(try GatedActivationKernel.lower(columns)).parameters.quantize
        #expect(quantize.scale_row == 1 && quantize.scale_group == 8 && quantize.type == 5)
    }

    @Test func packedBitsHaveAThreadTwoBytes() throws {
        func lower(_ flags: Int, _ bytes: Int, _ segments: Int?) throws -> KernelLaunch<fi_pack_bits_params>? {
            let starts = try view(.int32, [(segments ?? 0) + 1])
            return try PackBitsKernel.lower(
                PackBitsOperation(
                    flags: view(.uint8, [flags]), output: view(.uint8, [bytes]), order: .highestFirst,
                    segments: segments == nil ? nil : .init(flags: starts, bytes: starts)))
        }
        let launch = try #require(try lower(4_097, 513, nil))
        #expect(launch.blocks == 2 && launch.parameters.segments == 0 && launch.parameters.highest_first == 1)
        #expect(try lower(8 << 20, 1 << 20, nil)?.blocks == 512)
        #expect(try lower(100, 20, 7)?.parameters.segments == 7)
        #expect(try lower(0, 0, nil) == nil && lower(8, 1, 0) == nil)
    }

    @Test func normalisedHeadsHaveAPowerOfTwoOfThreads() throws {
        for (dim, rotaryDim, padding, items, lanes) in [
            (128, 128, 0, 8, 8), (80, 32, 0, 8, 8), (96, 96, 0, 6, 8), (1_024, 1_024, 0, 64, 32), (128, 128, 3, 64, 32),
            (2, 2, 0, 1, 1),
        ] {
            let heads = try view(.bfloat16, [7, 4, dim], strides: [4 * (dim + padding), dim + padding, 1])
            let weight = try view(.float32, [dim])
            let operation = RoPEOperation(
                queries: heads, positions: try view(.int32, [7]), parameters: RoPEParameters(rotaryDim: rotaryDim),
                normalization: HeadNormalization(queryWeight: weight))
            try operation.validate()
            let launch = try #require(try RoPEPartsKernel.lower(operation, angles: fi_rope_angles(turns: 4096)).first)
            let part = launch.parameters.parts.0
            // In place, but what does not turn is multiplied too.
            #expect(part.turn_items + part.move_items == UInt32(items) && part.lanes == UInt32(lanes), "\(dim)")
            #expect(launch.parameters.norm_lanes == UInt32(lanes) && launch.parameters.norm_width == UInt32(dim))
            #expect(launch.spec.label == "rope-parts bf16 normalised" && part.is_stored == 0)
        }
    }

    /// Of one type, heads that turn as wholes have two a thread: in blocks of 64 threads, of one tensor each.
    @Test func headsOfOneTypeShareThreads() throws {
        func launch(_ tokens: Int, rotaryDim: Int, weight: DType) throws -> KernelLaunch<fi_rope_parts_params>? {
            let operation = RoPEOperation(
                queries: try view(.bfloat16, [tokens, 17, 128]), keys: try view(.bfloat16, [tokens, 2, 128]),
                positions: try view(.int32, [tokens]),
                parameters: RoPEParameters(rotaryDim: rotaryDim, pairing: .interleaved),
                normalization: HeadNormalization(
                    queryWeight: try view(weight, [128]), keyWeight: try view(weight, [128])))
            try operation.validate()
            return try RoPEPartsKernel.lower(operation, angles: fi_rope_angles(turns: 4096)).first
        }
        let whole = try #require(try launch(5, rotaryDim: 128, weight: .bfloat16))
        #expect(whole.spec.label == "rope-parts bf16 normalised, several heads a thread, interleaved")
        // 17 heads of 8 threads are two blocks, of 16 heads each.
        #expect(whole.parameters.parts.1.first_block == 2 && whole.blocks == 5 * 3)
        #expect(try launch(5, rotaryDim: 64, weight: .bfloat16)?.spec.label == "rope-parts bf16 normalised")
        #expect(
            try launch(2_000, rotaryDim: 128, weight: .float32)?.spec.label
                == "rope-parts bf16 normalised of many tokens")
    }

    @Test func headsInTwoPartsGoToTheirColumns() throws {
        func heads(_ count: Int, _ dim: Int) throws -> TensorView { try view(.bfloat16, [5, count, dim]) }
        let joint = try view(.float8E4M3, [9, 16, 1, 576], lead: 1 << 30)
        let cache = try KVCacheView.paged(
            keys: joint.slice(0..<512, along: 3), values: joint.slice(512..<576, along: 3))
        let output = try view(.float8E4M3, [5, 128, 576], lead: 1 << 32)
        let table = try view(.float32, [4_096, 64])
        let operation = SplitRoPEOperation(
            queries: .init(turning: try heads(128, 64), rest: try heads(128, 512)),
            keys: .init(turning: try heads(1, 64), rest: try heads(1, 512)),
            queryOutput: .init(
                turning: output.slice(512..<576, along: 2), rest: output.slice(0..<512, along: 2)),
            keyOutput: .latentCache(cache, try KVSlots(table: view(.int32, [2, 5]))), keyFactor: 0.5,
            positions: try view(.int32, [5]), table: table)
        let launch = try #require(
            try RoPEPartsKernel.lower(operation, angles: fi_rope_angles(table: table), slots: 512))
        let p = launch.parameters
        #expect(launch.spec.label == "rope-parts bf16 by table" && p.vectorised == 1 && p.parts.4.heads == 0)
        #expect(p.parts.0.heads == 128 && p.parts.0.turn_items == 4 && p.parts.0.is_stored == 0)
        #expect(p.parts.1.heads == 1 && p.parts.1.is_stored == 1 && p.parts.1.factor == 0.5)
        #expect(p.parts.2.heads == 128 && p.parts.2.move_items == 64 && p.parts.2.move_start == 0)
        #expect(
            p.parts.1.target.address == UInt64(joint.address) + 512 && p.parts.3.target.address == UInt64(joint.address)
        )
        #expect(p.parts.3.block == 16 * 576 && p.parts.3.target.token == 576 && p.block_rows == 16)
        // 128 · 4 threads and 4 turn, 128 · 64 and 64 move, each of them in blocks of 128 of their own.
        #expect(p.parts.0.first_block == 0 && p.parts.1.first_block == 4 && p.parts.2.first_block == 5)
        #expect(p.parts.3.first_block == 69 && p.parts.4.first_block == .max)
        #expect(p.token_blocks == 70 && launch.blocks == 5 * 70)
        #expect(p.angles.table == UInt64(table.address) && p.angles.table_rows == 4_096)
    }
}
