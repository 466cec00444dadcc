import CUDAKernels
import FlashInferCUDA
import FlashInferCore
import Testing

/// What the row operations become, without a GPU.
@Suite struct RowLoweringTests {
    /// A view of made-up device memory that starts at a multiple of 4096.
    private func view(
        _ dtype: DType, _ shape: Shape, strides: Shape? = nil, lead: Int = 0
    ) throws -> TensorView {
        try TensorView(
            MemoryRegion(address: 1 << 20, byteCount: 1 << 46, device: .cuda(0)), byteOffset: lead * dtype.byteCount,
            dtype: dtype, shape: shape, strides: strides)
    }

    /// Blocks times the rows or columns of one must reach the end, and the block before the last must not.
    private func expectCover(_ tiling: fi_row_tiling, blocks: Int, vector: Int) {
        let lanes = 1 << Int(tiling.lane_bits)
        let columns = Int(tiling.column_blocks) * lanes * (tiling.vectorised != 0 ? vector : 1)
        #expect(columns >= Int(tiling.width))
        #expect((Int(tiling.column_blocks) - 1) * lanes * (tiling.vectorised != 0 ? vector : 1) < Int(tiling.width))
        let rowsPerBlock = fi_row_tiling.threads / lanes
        let rowBlocks = blocks / Int(tiling.column_blocks)
        #expect(blocks == rowBlocks * Int(tiling.column_blocks))
        #expect(rowBlocks * rowsPerBlock >= Int(tiling.rows))
        #expect((rowBlocks - 1) * rowsPerBlock < Int(tiling.rows))
    }

    @Test func elementwiseLaunchesCoverEveryElement() throws {
        for width in [1, 2, 3, 7, 8, 9, 64, 255, 256, 257, 2_047, 2_048, 2_049, 14_336, 100_003] {
            for rows in [1, 2, 5, 64, 70_001] {
                for padding in [0, 8, 3] {
                    let x = try view(.bfloat16, [rows, width], strides: [width + padding, 1])
                    let launch = try #require(try AddKernel.lower(AddOperation(first: x, output: x)))
                    let tiling = launch.parameters.tiling
                    expectCover(tiling, blocks: launch.blocks, vector: 8)
                    let isOneRow = padding == 0 || rows == 1
                    #expect(Int(tiling.rows) == (isOneRow ? 1 : rows))
                    #expect(Int(tiling.width) == (isOneRow ? rows * width : width))
                    let isAligned = isOneRow ? rows * width % 8 == 0 : width % 8 == 0 && padding % 8 == 0
                    #expect((tiling.vectorised != 0) == isAligned, "width \(width), rows \(rows), padding \(padding)")
                }
            }
        }
    }

    @Test func vectorsNeedEveryTensorAligned() throws {
        let good = try view(.bfloat16, [4, 64])
        for (gate, up, output, isAligned) in [
            (good, good, good, true),
            (good, try view(.bfloat16, [4, 64], lead: 8), good, true),
            (good, try view(.bfloat16, [4, 64], lead: 1), good, false),
            (good, good, try view(.bfloat16, [4, 64], strides: [65, 1]), false),
            (try view(.bfloat16, [4, 64], strides: [128, 1]), good, good, true),
            // A stride that no step takes does not count, nor does alignment past a type's vector.
            (
                try view(.bfloat16, [1, 64], strides: [7, 1]), try view(.bfloat16, [1, 64]),
                try view(.bfloat16, [1, 64]), true
            ),
            (good, try view(.float32, [4, 64], lead: 4), good, true),
            (good, try view(.float32, [4, 64], lead: 2), good, false),
        ] {
            let launch = try #require(
                try GatedActivationKernel.lower(
                    GatedActivationOperation(gate: gate, up: up, output: output, activation: .silu)))
            #expect((launch.parameters.tiling.vectorised != 0) == isAligned)
        }
        // The table counts too, though its rows are not those of the launch.
        let ids = try view(.int32, [4])
        for (stride, isAligned) in [(64, true), (65, false)] {
            let table = try view(.bfloat16, [100, 64], strides: [stride, 1])
            let launch = try #require(
                try EmbeddingKernel.lower(EmbeddingOperation(table: table, ids: ids, output: good)))
            #expect((launch.parameters.tiling.vectorised != 0) == isAligned)
            #expect(launch.parameters.table_stride == Int64(stride) && launch.parameters.vocabulary == 100)
        }
        // float32 to float8: vectors of sixteen.
        for (width, isAligned) in [(32, true), (40, false)] {
            let launch = try #require(
                try ConvertKernel.lower(
                    ConvertOperation(input: view(.float32, [1, width]), output: view(.float8E4M3, [1, width]))))
            #expect((launch.parameters.tiling.vectorised != 0) == isAligned)
        }
    }

    @Test func rowsOfRowsKeepTheirStrides() throws {
        let x = try view(.float32, [5, 3, 16], strides: [1_000, 20, 1])
        let launch = try #require(try AddKernel.lower(AddOperation(first: x, output: x, alpha: 2)))
        let parameters = launch.parameters
        #expect(parameters.first.outer == 1_000 && parameters.first.inner == 20 && parameters.second.address == 0)
        #expect(parameters.tiling.rows == 15 && parameters.tiling.inner_rows == 3 && parameters.alpha == 2)
        #expect(parameters.first.address == UInt64(x.address))
        #expect(launch.spec.threads == 256 && launch.spec.file == "portable/add.cuh")
    }

    @Test func normsTakeTheShapeOfTheirWidth() throws {
        var labels = Set<String>()
        for (width, group, chunks) in [
            (8, 16, 1), (128, 16, 1), (256, 32, 1), (264, 128, 2), (2_048, 128, 2), (4_096, 256, 2), (8_192, 512, 2),
            (16_384, 1_024, 2), (32_768, 1_024, 4), (100_000, 1_024, 4),
            // Scalars: a row of as many elements as vectors.
            (1_023, 512, 2),
        ] {
            let x = try view(.bfloat16, [70_001, width])
            let operation = RMSNormOperation(input: x, weight: try view(.bfloat16, [width]), output: x)
            let launch = try #require(try NormKernel.lower(operation))
            #expect(launch.spec.defines.contains(.init("FI_GROUP", group)), "width \(width)")
            #expect(launch.spec.defines.contains(.init("FI_CHUNKS", chunks)), "width \(width)")
            let rows = launch.spec.threads / group
            #expect(launch.blocks == (70_001 + rows - 1) / rows)
            #expect(launch.parameters.rows == 70_001 && launch.parameters.residual.address == 0)
            #expect((launch.parameters.vectorised != 0) == (width % 8 == 0))
            labels.insert(launch.spec.label)
            // The same spec is the same value, made once.
            #expect(try NormKernel.lower(operation)?.spec == launch.spec)
        }
        #expect(labels.count == 7)
    }

    /// What waits for one thread's instructions has few of them; what becomes bytes, is not aligned or fits in a warp has not.
    @Test func fewRowsHaveANormOfTheirOwn() throws {
        for (rows, width, file) in [
            (1, 4_096, "norm_row"), (256, 4_096, "norm_row"), (257, 4_096, "norm"), (64, 128, "norm"),
            (64, 4_100, "norm"), (64, 8_192, "norm_row"), (64, 16_384, "norm"),
        ] {
            let x = try view(.bfloat16, [rows, width]), weight = try view(.bfloat16, [width])
            for residual in [nil, x] {
                let operation = RMSNormOperation(input: x, weight: weight, residual: residual, output: x)
                let launch = try #require(try NormKernel.lower(operation))
                #expect(launch.spec.file == "portable/\(file).cuh", "\(rows) rows of \(width)")
                #expect(launch.blocks == (width == 128 ? 8 : rows))
            }
        }
    }

    @Test func misalignedElementsAreRefused() throws {
        let region = MemoryRegion(address: (1 << 20) + 1, byteCount: 4096, device: .cuda(0))
        let x = try TensorView(region, dtype: .bfloat16, shape: [2, 8])
        #expect(throws: FlashInferError.self) { try AddKernel.lower(AddOperation(first: x, output: x)) }
    }

    @Test func tooManyRowsAreRefused() throws {
        let x = try view(.float32, [1 << 32, 2], strides: [4, 1])
        #expect(throws: FlashInferError.overflow("rows of first")) {
            try AddKernel.lower(AddOperation(first: x, output: x))
        }
        // As one row there is no limit but the grid's.
        let long = try view(.bfloat16, [1 << 32, 8])
        let launch = try #require(try AddKernel.lower(AddOperation(first: long, output: long)))
        #expect(launch.blocks == 1 << 24 && launch.parameters.tiling.width == 1 << 35)
    }
}
