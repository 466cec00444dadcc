import CUDAKernels
import FlashInferCUDA
import FlashInferCore
import Testing

/// What rotary embedding, sampling, appends, copies and merges become, without a GPU.
@Suite struct OperationLoweringTests {
    private func view(_ dtype: DType, _ shape: Shape, strides: Shape? = nil, lead: Int = 0) throws -> TensorView {
        try TensorView(
            MemoryRegion(address: 1 << 20, byteCount: 1 << 46, device: .cuda(0)), byteOffset: lead * dtype.byteCount,
            dtype: dtype, shape: shape, strides: strides)
    }

    @Test func ropeLaneAndBlockCounts() throws {
        let positions = try view(.int32, [70_001])
        let queries = try view(.bfloat16, [70_001, 32, 128])
        let keys = try view(.bfloat16, [70_001, 8, 128])
        let fresh = try view(.bfloat16, [70_001, 32, 128], lead: 1 << 30)
        func lower(_ output: TensorView?, rotaryDim: Int?, keys: TensorView? = nil) throws -> [KernelLaunch<
            fi_rope_params
        >] {
            try RoPEKernel.lower(
                RoPEOperation(
                    queries: queries, keys: keys, queryOutput: output, positions: positions,
                    parameters: RoPEParameters(rotaryDim: rotaryDim)), angles: fi_rope_angles(turns: 4096))
        }
        // 40 heads of 8 vectors of pairs in blocks of 128.
        let both = try #require(try lower(nil, rotaryDim: nil, keys: keys).first)
        #expect(both.parameters.turn_lanes == 8 && both.parameters.copy_lanes == 0 && both.parameters.vectorised == 1)
        #expect(both.parameters.token_blocks == 3 && both.blocks == 3 * 70_001)
        #expect(both.parameters.query_heads == 32 && both.parameters.key_heads == 8)
        // Elements that stay are copied only where they are not in place.
        let partial = try #require(try lower(fresh, rotaryDim: 64).first)
        #expect(partial.parameters.turn_lanes == 4 && partial.parameters.copy_lanes == 8)
        #expect(try lower(nil, rotaryDim: 64).first?.parameters.copy_lanes == 0)
        #expect(try lower(nil, rotaryDim: 0).isEmpty)
        // Three pairs are no vector.
        let odd = try #require(try lower(fresh, rotaryDim: 6).first)
        #expect(odd.parameters.vectorised == 0 && odd.parameters.turn_lanes == 3 && odd.parameters.copy_lanes == 122)
        // Keys of another type are a launch of their own.
        let other = try view(.float16, [70_001, 8, 128])
        let two = try lower(nil, rotaryDim: nil, keys: other)
        #expect(two.count == 2 && two.allSatisfy { $0.parameters.key_heads == 0 })
        #expect(two.map(\.parameters.query_heads) == [32, 8] && two[0].spec != two[1].spec)
    }

    @Test func longRowsHaveAClusterOfBlocks() throws {
        for (width, holding, passing) in [
            (16_383, RowTeam.alone, RowTeam.alone), (16_384, .eight, .passing), (131_072, .eight, .passing),
            (131_073, .wideEight, .passing), (204_801, .alone, .passing),
        ] {
            #expect(RowTeam.choose(width: width, hasClusters: true) == holding)
            #expect(RowTeam.choose(width: width, streamedRows: 256, hasClusters: true) == .alone)
            #expect(
                RowTeam.chooseFiltering(width: width, streamedRows: 0, hasClusters: true)
                    == (holding == .alone && width > 131_072 ? .listing : holding))
            #expect(RowTeam.choosePassing(width: width, rows: 64, hasClusters: true) == passing)
            #expect(RowTeam.choosePassing(width: width, rows: 256, hasClusters: true) == .alone)
            #expect(RowTeam.choose(width: width, hasClusters: false) == .alone)
            #expect(RowTeam.choosePassing(width: width, rows: 64, hasClusters: false) == .alone)
        }
        let (logits, output) = (try view(.bfloat16, [3, 20_000]), try view(.float32, [3, 20_000], lead: 1 << 30))
        let (status, ids) = (try view(.uint8, [3]), try view(.int32, [3]))
        let softmax = try #require(
            try SoftmaxKernel.lower(
                SoftmaxOperation(input: logits, output: output, status: status), team: .eight))
        #expect(softmax.blocks == 24 && softmax.spec.label == "softmax bf16-fp32 x8")
        // Three blocks' rows fit on a processor of 228 KiB.
        #expect(softmax.spec.blocksPerProcessor == 3 && 3 * (softmax.spec.sharedByteCount + 2_048) <= 228 << 10)
        let argmax = try #require(
            try ArgmaxKernel.lower(ArgmaxOperation(input: logits, output: ids, status: status), team: .passing))
        #expect(argmax.blocks == 24 && argmax.spec.sharedByteCount == 0)
        for (name, isShipped) in [("sm_80", false), ("sm_90a", true), ("sm_100", true), ("sm_120", false)] {
            let architecture = try #require(Architecture(name))
            #expect(KernelCatalogue.isShipped(softmax.spec, for: architecture) == isShipped)
            #expect(KernelCatalogue.isShipped(argmax.spec, for: architecture) == isShipped)
        }
    }

    @Test func turnsAreExactAtAnyPosition() throws {
        let parameters = RoPEParameters(theta: 500_000)
        let fractions = RoPETurns.fractions(parameters, headDim: 128)
        let pairs = RoPETurns.highLow(parameters, headDim: 128)
        #expect(fractions.count == 64 && pairs.count == 128)
        for (pair, frequency) in parameters.frequencies(headDim: 128).enumerated() {
            let turns = frequency / (2 * .pi)
            #expect(abs(Double(fractions[pair]) * 0x1p-64 - turns) < 0x1p-55)
            #expect(abs(Double(pairs[2 * pair]) + Double(pairs[2 * pair + 1]) - turns) <= turns * 0x1p-47)
            for position in [UInt64(1), 8_191, 1_000_000] {
                let exact = (Double(position) * turns).truncatingRemainder(dividingBy: 1)
                let found = Double(fractions[pair] &* position) * 0x1p-64
                let distance = abs(found - exact)
                #expect(min(distance, 1 - distance) < 0x1p-33)
            }
        }
        // Frequencies of whole turns and more.
        #expect(RoPETurns.fractions(RoPEParameters(theta: Float(1e-30)), headDim: 64).count == 32)
    }

    @Test func samplingMassesFitIn62Bits() throws {
        let (tokens, status) = (try view(.int32, [1]), try view(.uint8, [1]))
        for (width, bits) in [(1, 45), (131_072, 45), (131_073, 44), (1 << 20, 42), (Int(Int32.max), 31)] {
            let operation = SampleOperation(
                logits: try view(.float16, [1, width]), tokens: tokens, status: status, rows: [.init(seed: 0, step: 0)])
            let launch = try #require(try SampleKernel.lower(operation, rows: 8))
            #expect(launch.parameters.low_bits == Int32(bits - 23) && launch.blocks == 1)
        }
        let row = fi_sampling_row(.init(temperature: 0.5, topK: .max, topP: 0.9, minP: 0.1, seed: 1, step: 2))
        #expect(row.temperature == 0.5 && row.top_k == .max && row.top_p == 0.9 && row.min_p == 0.1)
        // The kernel reads rows of this layout, which packed tensors have.
        #expect(MemoryLayout<fi_sampling_row>.stride == SampleOperation.Row.packedByteCount)
        let given = SampleOperation.Row(temperature: 0.5, topK: 7, topP: 0.9, minP: 0.1, seed: 1 << 40, step: 2)
        #expect(withUnsafeBytes(of: fi_sampling_row(given)) { Array($0) } == SampleOperation.Row.packed([given]))
        #expect(MemoryLayout<fi_draw>.stride == VerifyDraftsOperation.Draw.packedByteCount)
    }

    @Test func appendsKeepLayoutsAndScales() throws {
        let slots = try KVSlots(slots: [3, -1, 70], pageSize: 16)
        let keys = try view(.bfloat16, [3, 8, 128])
        for (layout, shape) in [(KVLayout.nhd, Shape([9, 16, 8, 128])), (.hnd, [9, 8, 16, 128])] {
            let cache = try KVCacheView.paged(
                keys: view(.float8E4M3, shape), values: view(.float8E4M3, shape), layout: layout,
                scales: KVScales(key: 0.5, value: 2, keyPerHead: view(.float32, [8])))
            let launch = try #require(
                try AppendKVKernel.lower(
                    AppendKVOperation(keys: keys, values: keys, cache: cache, slots: slots), slots: 256
                ).first)
            let parameters = launch.parameters
            // bf16 to bytes: vectors of sixteen, eight a head, keys and values of eight heads; two tokens side by side.
            #expect(parameters.vectorised == 1 && parameters.half.0.lanes == 8)
            #expect(parameters.sides == 2 && launch.blocks == 2)
            #expect(parameters.blocks == 9 && parameters.block_rows == 16 && parameters.tokens == 3)
            #expect(parameters.half.0.scale == 0.5 && parameters.half.1.scale == 2)
            #expect(parameters.half.0.scales != 0 && parameters.half.1.scales == 0)
            #expect(parameters.half.0.token == (layout == .nhd ? 1_024 : 128))
            #expect(parameters.half.0.head == (layout == .nhd ? 128 : 2_048))
        }
        let ragged = try KVCacheView.ragged(keys: view(.float32, [50, 8, 128]), values: view(.float32, [50, 8, 128]))
        let mixed = try AppendKVKernel.lower(
            AppendKVOperation(keys: keys, values: view(.float32, [3, 8, 128]), cache: ragged, slots: slots), slots: 256)
        #expect(mixed.count == 2 && mixed.allSatisfy { $0.parameters.block_rows == 0 && $0.parameters.heads.1 == 0 })
    }

    @Test func independentCopiesAreChainsOfTheirOwn() throws {
        let cache = try KVCacheView.paged(combined: view(.bfloat16, [10, 2, 16, 8, 128]))
        func moves(_ sources: [Int32], _ destinations: [Int32]) -> PageMoves {
            PageMoves(CopyPagesOperation(cache: cache, sources: sources, destinations: destinations))
        }
        // A fork: one source, many fresh pages.
        let fork = moves([0, 0, 1], [2, 3, 4])
        #expect(fork.chainCount == 3 && fork.indptr == [0, 1, 2, 3])
        // 0 to 1 must wait until 1 has gone to 2.
        #expect(moves([0, 1], [1, 2]) == moves([0, 1, 5], [1, 2, 5]))
        #expect(moves([0, 1], [1, 2]).moves == [1, 2, 0, 1] && moves([0, 1], [1, 2]).chainCount == 1)
        // A cycle goes through the spare page; a copy apart from it does not wait.
        let cycle = moves([0, 1, 7], [1, 0, 8])
        #expect(cycle.chainCount == 2 && cycle.moves.count == 8)
        #expect(moves([4], [4]).chainCount == 0)

        let operation = CopyPagesOperation(cache: cache, sources: [0, 0, 1], destinations: [2, 3, 4])
        let launch = try #require(try CopyPagesKernel.lower(operation, fork, lists: 512))
        // 16 tokens of 8 heads of 256 bytes, keys and values, in pieces of 16 bytes.
        #expect(launch.blocks == 3 * 2 * 16 * 8 * 16 / 256 && launch.parameters.piece_bytes == 16)
        #expect(launch.parameters.chains == 512 + 24)
        let odd = try KVCacheView.paged(combined: view(.bfloat16, [10, 2, 16, 8, 9]))
        let scalar = CopyPagesOperation(cache: odd, sources: [0], destinations: [2])
        #expect(try CopyPagesKernel.lower(scalar, moves([0], [2]), lists: 512)?.parameters.piece_bytes == 2)
    }

    @Test func everyOrderOfMovesGivesWhatCopyingAtOnceGives() throws {
        let cache = try KVCacheView.paged(combined: view(.int8, [8, 2, 1, 1, 16]))
        var generator = SystemRandomNumberGenerator()
        for _ in 0..<300 {
            let destinations = (0..<Int32(8)).filter { _ in Bool.random(using: &generator) }.shuffled()
            let sources = destinations.map { _ in Int32.random(in: 0..<8, using: &generator) }
            let moves = PageMoves(CopyPagesOperation(cache: cache, sources: sources, destinations: destinations))
            // Chains in any order, even one move of each in turn.
            var pages = Array(Int32(0)..<8)
            var spares = [Int32](repeating: -1, count: moves.chainCount)
            var next = moves.indptr.dropLast().map { Int($0) }
            while let chain = next.indices.filter({ next[$0] < Int(moves.indptr[$0 + 1]) }).randomElement() {
                let (source, destination) = (moves.moves[2 * next[chain]], moves.moves[2 * next[chain] + 1])
                let held = source < 0 ? spares[chain] : pages[Int(source)]
                if destination < 0 { spares[chain] = held } else { pages[Int(destination)] = held }
                next[chain] += 1
            }
            var expected = Array(Int32(0)..<8)
            for (from, to) in zip(sources, destinations) { expected[Int(to)] = from }
            #expect(pages == expected, "\(sources) to \(destinations)")
        }
    }

    @Test func mergesKeepAHeadInOneBlock() throws {
        for (width, bits) in [(128, 4), (40, 3), (111, 7), (1, 0), (3_000, 8)] {
            let operation = MergeStatesOperation(
                values: try view(.bfloat16, [3, 500, 7, width]), logSumExp: try view(.float32, [3, 500, 7]),
                output: try view(.bfloat16, [500, 7, width]))
            let launch = try #require(try MergeStatesKernel.lower(operation))
            #expect(launch.parameters.lane_bits == UInt32(bits), "width \(width)")
            let heads = 256 >> bits
            #expect(launch.blocks == (3_500 + heads - 1) / heads && launch.parameters.merged == 0)
        }
    }

    /// Heads that a warp covers have kernels of their own, of two states another than of more; a row and a head are found by a product.
    @Test func mergesByWhatAThreadHolds() throws {
        for (states, width, file) in [
            (2, 128, "heads"), (3, 128, "heads"), (1, 256, "heads"), (2, 512, "states"), (2, 111, "states"),
        ] {
            let operation = MergeStatesOperation(
                values: try view(.bfloat16, [states, 500, 7, width]), logSumExp: try view(.float32, [states, 500, 7]),
                output: try view(.bfloat16, [500, 7, width]))
            let launch = try #require(try MergeStatesKernel.lower(operation))
            #expect(launch.spec.file == "portable/merge_\(file).cuh", "\(states) states of \(width)")
            let isPair = launch.spec.defines.contains(.init("FI_PAIR", true))
            #expect(isPair == (states == 2 && file == "heads"), "\(states) states of \(width)")
            let division = launch.parameters.by_heads
            #expect((UInt64(3_499) * UInt64(division.multiplier)) >> (32 + UInt64(division.shift)) == 499)
        }
    }

    @Test func everyShippedSpecIsDifferent() {
        let all = KernelCatalogue.shipped.filter { $0.file.hasPrefix("portable/") && !$0.file.contains("attention") }
        #expect(Set(all).count == all.count && Set(all.map(\.label)).count == all.count)
        #expect(all.count >= 50)
    }
}
