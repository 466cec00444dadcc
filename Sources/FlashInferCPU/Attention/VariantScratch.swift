internal import CFlashInferCPU
internal import FlashInferCore

/// One thread's registers of a variant's program.
final class VariantScratch {
    private(set) var program: VariantProgram
    /// By rank of the terms computed: as the item's, the rows' and the keys' preparation, and the pairs' programs see the registers.
    private var views: [[fi_expr_register]] = [[], [], [], []]
    private var tables: [fi_expr_table] = []
    private var memory: UnsafeMutableRawPointer
    private let rows: Int

    /// - Parameters:
    ///   - rows: packed rows of an item, at most.
    ///   - scores: `[rows][tileKeys]`
    init(_ program: VariantProgram, rows: Int, scores: UnsafeMutablePointer<Float>) {
        self.program = program
        self.rows = rows
        let sizes = Self.sizes(rows: rows)
        let total = zip(program.counts, sizes).reduce(64) { $0 + $1.0 * $1.1 }
        memory = .allocate(byteCount: total, alignment: 64)
        memory.initializeMemory(as: UInt8.self, repeating: 0, count: total)
        var starts: [UnsafeMutableRawPointer] = []
        var next = memory
        for (count, size) in zip(program.counts, sizes) {
            starts.append(next)
            next += count * size
        }
        for rank in VariantProgram.Rank.allRanks {
            views[rank.rawValue] = program.registers.map { register in
                register.place < 0
                    ? fi_expr_register(
                        base: UnsafeMutableRawPointer(scores), row: Int64(CPUAttention.tileKeys * 4), lane: 4,
                        is_local: false)
                    : Self.view(
                        of: register, for: rank,
                        at: starts[register.rank.rawValue] + register.place * sizes[register.rank.rawValue])
            }
        }
        for constant in program.constants { base(constant.register).storeBytes(of: constant.bits, as: UInt32.self) }
        tables = program.parameters.map { _ in fi_expr_table(base: memory, rows: 1, columns: 1) }
    }

    deinit { memory.deallocate() }

    /// Bytes of a register, by rank.
    private static func sizes(rows: Int) -> [Int] {
        let keys = CPUAttention.tileKeys
        return [64, (rows * 4 + 127) & ~63, keys * 4, Int(FI_EXPR_STRIP) * keys * 4]
    }

    /// A register as the terms of a rank see it: what is a list for its own rank is a number a row, or a row of numbers, for pairs.
    private static func view(
        of register: VariantProgram.Register, for rank: VariantProgram.Rank, at base: UnsafeMutableRawPointer
    ) -> fi_expr_register {
        if register.rank == rank, rank != .pair {
            return fi_expr_register(base: base, row: 0, lane: 4, is_local: false)
        }
        switch register.rank {
        case .item: return fi_expr_register(base: base, row: 0, lane: 0, is_local: false)
        case .row: return fi_expr_register(base: base, row: 4, lane: 0, is_local: false)
        case .key: return fi_expr_register(base: base, row: 0, lane: 4, is_local: false)
        case .pair:
            return fi_expr_register(base: base, row: Int64(CPUAttention.tileKeys * 4), lane: 4, is_local: true)
        }
    }

    private func base(_ register: Int) -> UnsafeMutableRawPointer { views[3][register].base }

    /// The numbers of a register of rows or keys, or of the one that an item has.
    func numbers(_ register: Int) -> UnsafeMutablePointer<Int32> { base(register).assumingMemoryBound(to: Int32.self) }

    /// What the rows' scores are multiplied by.
    var scales: UnsafeMutablePointer<Float> { base(VariantProgram.scale).assumingMemoryBound(to: Float.self) }

    /// What a parameter's loads read.
    func setTable(_ parameter: Int, _ table: fi_expr_table) { tables[parameter] = table }

    /// Computes the item's, the rows' or the keys' terms: `count` rows or keys.
    func prepare(_ rank: VariantProgram.Rank, count: Int, _ kernels: fi_attention_kernels) {
        let code = program.preparation[rank.rawValue]
        if code.isEmpty || count == 0 { return }
        run(code, rank) { program in
            (program.rows, program.columns) = (1, Int32(count))
            kernels.evaluate(&program)
        }
    }

    /// Computes the pairs of `rows` rows and `keys` keys.
    func evaluate(
        rows: Int, keys: Int, isMasked: Bool, mask: UnsafePointer<UInt8>?, maskStarts: UnsafePointer<Int64>,
        maskIsPacked: Bool, _ kernels: fi_attention_kernels
    ) {
        run(isMasked ? program.masked : program.shown, .pair) { program in
            (program.rows, program.columns) = (Int32(rows), Int32(keys))
            (program.mask, program.mask_start, program.mask_is_packed) = (mask, maskStarts, maskIsPacked)
            kernels.evaluate(&program)
        }
    }

    /// Computes the elements of `rows` rows, where no mask is asked for.
    func evaluate(rows: Int, columns: Int, _ maskStarts: UnsafePointer<Int64>, _ kernels: fi_attention_kernels) {
        evaluate(
            rows: rows, keys: columns, isMasked: false, mask: nil, maskStarts: maskStarts, maskIsPacked: false, kernels)
    }

    private func run(
        _ code: [fi_expr_instruction], _ rank: VariantProgram.Rank, _ body: (inout fi_expr_program) -> Void
    ) {
        code.withUnsafeBufferPointer { code in
            views[rank.rawValue].withUnsafeBufferPointer { registers in
                tables.withUnsafeBufferPointer { tables in
                    var program = fi_expr_program()
                    (program.code, program.count) = (code.baseAddress, Int32(code.count))
                    (program.registers, program.tables) = (registers.baseAddress, tables.baseAddress)
                    body(&program)
                }
            }
        }
    }

    /// Whether it serves a program for items of so many rows over these scores.
    func fits(_ other: VariantProgram, rows: Int, scores: UnsafeMutablePointer<Float>) -> Bool {
        program === other && rows <= self.rows && base(VariantProgram.scores) == UnsafeMutableRawPointer(scores)
    }
}

extension VariantProgram.Rank {
    static let allRanks: [VariantProgram.Rank] = [.item, .row, .key, .pair]
}
