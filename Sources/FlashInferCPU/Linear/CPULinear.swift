package import CFlashInferCPU
public import FlashInferCore
internal import Synchronization

/// Products y[M, N] = x[M, K] · W[N, K]ᵀ of float32 activations with packed weights.
///
/// For quantised weights each row of x is rounded to 16-bit integers with one scale per 32 columns (an error of at most
/// 1/65,534 of the block's largest magnitude), and the integer dot product of a block is exact; blocks are summed in order in
/// float32. For float weights everything is float32 FMA. A row of y is a function of its row of x alone, bit for bit: it does
/// not depend on M, on the number of threads or on the instruction set. A NaN or infinity in a row of x makes that row of y
/// NaN (quantised weights) or what IEEE arithmetic gives (float weights), and touches no other row.
///
/// Moves `weights.byteCount` bytes of memory for M up to about 6, where it is bound by memory; beyond that by integer
/// multiply-adds.
public struct CPULinear: Sendable {
    private let kernels: fi_linear_kernels

    /// The product on this machine's best instruction set.
    public static let best = CPULinear(isa: fi_detect_isa()) ?? CPULinear(fi_linear_table(FI_ISA_SCALAR).pointee)

    /// The product on one instruction set, or `nil` where this build or machine does not have it.
    package init?(isa: fi_isa) {
        guard fi_isa_available(isa), let table = fi_linear_table(isa) else { return nil }
        self.init(table.pointee)
    }

    private init(_ kernels: fi_linear_kernels) { self.kernels = kernels }

    /// Writes `x · weightsᵀ (+ bias)` to y, or adds it to y.
    ///
    /// - Parameters:
    ///   - x: `[rows, stride]` float32, of which the first `weights.columns` of each row are read.
    ///   - rows: M, may be 0.
    ///   - stride: elements from one row of x to the next.
    ///   - weights: W, packed.
    ///   - y: `[rows, outputStride]` float32; the first `weights.rows` of each row are written. Must not overlap x.
    ///   - bias: `[weights.rows]`, or `nil`.
    ///   - accumulate: whether the result is added to y.
    ///   - pool: the threads that compute; panels of weights (and, for large M, rows) are dealt to them.
    ///   - scratch: room for M rows of activations; not read for float weights.
    /// - Throws: ``FlashInferError`` naming the argument that is too short, or the scratch that is too small.
    public func run(
        x: UnsafeBufferPointer<Float>, rows: Int, stride: Int, weights: PackedMatrix,
        into y: UnsafeMutableBufferPointer<Float>, outputStride: Int, bias: UnsafeBufferPointer<Float>? = nil,
        accumulate: Bool = false, pool: ThreadPool, scratch: LinearScratch
    ) throws(FlashInferError) {
        guard rows >= 0 else { throw .invalidArgument("rows", found: "\(rows)", expected: "at least 0") }
        try Extent.check("x", count: x.count, rows: rows, columns: weights.columns, stride: stride)
        try Extent.check("y", count: y.count, rows: rows, columns: weights.rows, stride: outputStride)
        if let bias, bias.count < weights.rows {
            throw .lengthMismatch("bias", found: bias.count, expected: weights.rows)
        }
        guard rows > 0, let from = x.baseAddress, let to = y.baseAddress else { return }
        if weights.format.isQuantized {
            let (needed, overflow) = rows.multipliedReportingOverflow(by: weights.columns)
            guard !overflow, needed <= scratch.capacity else {
                throw .capacityExceeded(
                    "scratch", required: overflow ? .max : needed, capacity: scratch.capacity)
            }
            quantize(from, rows: rows, stride: stride, columns: weights.columns, pool: pool, scratch: scratch)
        }
        let call = fi_linear_call(
            packed: weights.base, x: from, q: scratch.quantized, blocks: scratch.blocks, y: to,
            bias: bias?.baseAddress, x_stride: Int64(stride), y_stride: Int64(outputStride),
            rows: Int64(weights.rows), columns: Int64(weights.columns), format: weights.format.kernelFormat,
            accumulate: accumulate)
        multiply(call, rows: rows, panels: weights.panels, pool: pool, scratch: scratch)
    }

    private func quantize(
        _ x: UnsafePointer<Float>, rows: Int, stride: Int, columns: Int, pool: ThreadPool, scratch: LinearScratch
    ) {
        let (kernels, quantized, blocks) = (kernels, scratch.quantized, scratch.blocks)
        let perRow = columns / 32
        func quantize(_ range: Range<Int>) {
            for row in range {
                kernels.quantize(x + row * stride, Int64(columns), quantized + row * columns, blocks + row * perRow)
            }
        }
        // Below this many activations, about 4 µs of work, another parallel region costs more than it saves.
        if rows == 1 || rows * columns < 32_768 || pool.threads == 1 { return quantize(0..<rows) }
        pool.run { worker in
            quantize(rows * worker / pool.threads..<rows * (worker + 1) / pool.threads)
        }
    }

    private func multiply(
        _ call: fi_linear_call, rows: Int, panels: Int, pool: ThreadPool, scratch: LinearScratch
    ) {
        let kernels = kernels
        // A little work is not worth waking anybody: less than 64 KiB of weights' worth of multiply-adds.
        if pool.threads == 1 || rows * panels * Int(call.columns) < 1 << 11 {
            return withUnsafePointer(to: call) { kernels.product($0, 0, Int64(panels), 0, Int64(rows)) }
        }
        // Few rows stream weights: one contiguous range of panels a worker. Many rows take turns, so that a worker whose
        // core is disturbed holds nobody up; rows are cut as well where there are too few panels to share.
        if rows < Self.dynamicRows {
            pool.run { worker in
                let begin = panels * worker / pool.threads
                let end = panels * (worker + 1) / pool.threads
                withUnsafePointer(to: call) { kernels.product($0, Int64(begin), Int64(end), 0, Int64(rows)) }
            }
            return
        }
        let chunks = panels >= 4 * pool.threads ? 1 : (rows + Self.chunkRows - 1) / Self.chunkRows
        let units = panels * chunks
        scratch.nextUnit.store(0, ordering: .relaxed)
        pool.run { _ in
            while true {
                let unit = scratch.nextUnit.wrappingAdd(1, ordering: .relaxed).oldValue
                if unit >= units { return }
                let (panel, chunk) = (unit / chunks, unit % chunks)
                let (begin, end) = (rows * chunk / chunks, rows * (chunk + 1) / chunks)
                withUnsafePointer(to: call) {
                    kernels.product($0, Int64(panel), Int64(panel + 1), Int64(begin), Int64(end))
                }
            }
        }
    }

    /// From this many rows on a panel is several hundred microseconds of work, and panels are dealt one at a time.
    private static let dynamicRows = 64

    /// Rows of one piece where panels are cut: a multiple of the tile's six.
    private static let chunkRows = 96
}
