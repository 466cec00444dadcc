import ArgumentParser
import FlashInfer
import Foundation

struct CUDABlockSparseBenchmark: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "cuda-block-sparse",
        abstract: "GPU attention over block-sparse matrices of 8,192 × 8,192 and 32 heads, by block size and density.",
        discussion: """
            Each block is kept by chance, and the diagonal always. D 128, bfloat16, graph replay as in cuda-attention. Rates count \
            4 · D operations of kept queries and keys. Plan time is the host's, of checking the matrix and replanning. --list \
            writes the cases for Peers/formats_peer.py.
            """)

    @OptionGroup var options: CaseOptions

    struct Case: Codable {
        var key: String
        var length = 8192
        var heads = 32
        var headDim = 128
        var rowBlock: Int
        var columnBlock: Int
        var density: Double
        var causal: Bool

        init(_ rowBlock: Int, _ columnBlock: Int, _ density: Double, causal: Bool = false) {
            key = "\(rowBlock) x \(columnBlock) density \(density)" + (causal ? " causal" : "")
            (self.rowBlock, self.columnBlock, self.density, self.causal) = (rowBlock, columnBlock, density, causal)
        }

        static var all: [Case] {
            [128, 64].flatMap { block in [0.05, 0.1, 0.25, 0.5, 1].map { Case(block, block, $0) } }
                + [Case(128, 128, 0.5, causal: true), Case(64, 64, 0.5, causal: true)]
                + [Case(128, 16, 0.25), Case(128, 1, 0.25), Case(64, 16, 0.25), Case(16, 16, 0.25)]
        }

        /// The block columns of each block row.
        func blocks() -> (indptr: [Int32], indices: [Int32]) {
            var random = Random(state: 9)
            let (rows, columns) = (length / rowBlock, length / columnBlock)
            var (indptr, indices): ([Int32], [Int32]) = ([0], [])
            for row in 0..<rows {
                let diagonal = row * rowBlock / columnBlock
                for column in 0..<columns
                where column == diagonal || Double(random.next() >> 11) * 0x1p-53 < density {
                    indices.append(Int32(column))
                }
                indptr.append(Int32(indices.count))
            }
            return (indptr, indices)
        }

        func problem(_ blocks: (indptr: [Int32], indices: [Int32])) throws -> AttentionProblem {
            try AttentionProblem(
                geometry: .blockSparse(
                    rows: length, columns: length, rowBlock: rowBlock, columnBlock: columnBlock, indptr: blocks.indptr,
                    indices: blocks.indices),
                shape: AttentionShape(queryHeads: heads, kvHeads: heads, headDimQK: headDim),
                variant: causal ? .causal : .full, queryType: .bfloat16, kvType: .bfloat16)
        }

        /// Pairs of a query and a key that are kept, for one head.
        func pairs(_ blocks: (indptr: [Int32], indices: [Int32])) -> Double {
            var sum = 0.0
            for row in 0..<blocks.indptr.count - 1 {
                for index in blocks.indptr[row]..<blocks.indptr[row + 1] {
                    let first = Int(blocks.indices[Int(index)]) * columnBlock
                    for query in row * rowBlock..<(row + 1) * rowBlock {
                        sum += Double(causal ? min(max(query + 1 - first, 0), columnBlock) : columnBlock)
                    }
                }
            }
            return sum
        }
    }

    struct Row: Codable {
        var key: String
        var kept: Double
        var microseconds: Double
        var teraflops: Double
        var planMicroseconds: Double
        var items: Int
        var spread: Double
    }

    func run() throws {
        try options.run(
            Case.all, \.key, hasCeilings: false,
            headings: ["case", "kept", "us", "TF", "plan us", "items", "spread"], measure: measure
        ) {
            [
                $0.key, $0.kept.fixed(3), $0.microseconds.fixed(1), $0.teraflops.fixed(0),
                $0.planMicroseconds.fixed(0), "\($0.items)", $0.spread.fixed(3),
            ]
        }
    }

    private func measure(_ test: Case, on gpu: any Device) throws -> Row {
        let blocks = test.blocks()
        let problem = try test.problem(blocks)
        let rows: Shape = [test.length, test.heads, test.headDim]
        let byteCount = test.length * test.heads * test.headDim * 2
        let sets = CUDATiming.setCount(4 * byteCount)
        var arena = try CUDAArena(on: gpu, dtype: .bfloat16, byteCount: sets * 3 * byteCount)
        let pages: Shape = [test.length / test.columnBlock, test.columnBlock, test.heads, test.headDim]
        let inputs = try (0..<sets).map { _ in
            (
                queries: try arena.take(rows),
                cache: try KVCacheView.paged(keys: arena.take(pages), values: arena.take(pages))
            )
        }
        let output = try DeviceBuffer(on: gpu, dtype: .bfloat16, shape: rows)
        var attention = try PlannedAttention(problem, on: gpu)
        let result = try CUDATiming.measure(on: gpu, sets: sets, samples: options.replays.samples) {
            (index) throws(FlashInferError) in
            try attention.run(inputs[index].queries, inputs[index].cache, into: output.view)
        }
        try gpu.requireFinite(output.view, of: "attention")
        let planTimes = try (0..<9).map { _ in
            try time { try attention.replan(test.problem(blocks)) }
        }
        let pairs = test.pairs(blocks)
        return Row(
            key: test.key, kept: pairs / Double(test.length * test.length), microseconds: result.seconds * 1e6,
            teraflops: 4 * Double(test.headDim * test.heads) * pairs / result.seconds / 1e12,
            planMicroseconds: planTimes.median * 1e6, items: attention.plan.items.count, spread: result.spread)
    }
}
