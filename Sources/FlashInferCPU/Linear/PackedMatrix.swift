internal import CFlashInferCPU
public import FlashInferCore

/// A weight matrix W[N, K] laid out for ``CPULinear``: panels of 32 rows, interleaved so that one vector register holds the
/// same columns of 16 rows, each panel one stream of memory. Packed once at load; the same layout serves every instruction set.
///
/// 4-bit formats stay 4 bits in memory and 5-, 6- and 8-bit ones take 8; float formats keep their type. Scales stay float16
/// where the file has one per 32 weights, and are multiplied out to float32 for the K formats.
public final class PackedMatrix: Sendable {
    /// The number of outputs, N.
    public let rows: Int

    /// The number of inputs, K.
    public let columns: Int

    /// The format of the file that was packed.
    public let format: WeightFormat

    /// Bytes that one product streams from memory.
    public let byteCount: Int

    private let memory: WeightMemory

    /// Packs one matrix.
    ///
    /// - Parameters:
    ///   - source: `[rows, columns]` in `format`; read only during the call.
    ///   - arena: where to put the result, shared by the matrices of a model; by default its own allocation.
    ///   - pool: the threads that pack.
    /// - Throws: ``FlashInferError`` as ``WeightRows/init(_:format:rows:columns:name:)``, or when out of memory.
    public convenience init(
        packing source: UnsafeRawBufferPointer, format: WeightFormat, rows: Int, columns: Int,
        arena: WeightArena? = nil, pool: ThreadPool
    ) throws(FlashInferError) {
        let part = try WeightRows(source, format: format, rows: rows, columns: columns)
        try self.init(packing: [part], arena: arena, pool: pool)
    }

    /// Packs matrices of equal format and columns under each other as one: fused query, key and value, or gate and up.
    ///
    /// - Throws: ``FlashInferError`` where there is no part, parts differ in format or columns, or memory is out.
    public init(
        packing parts: [WeightRows], arena: WeightArena? = nil, pool: ThreadPool
    ) throws(FlashInferError) {
        let (total, columns) = try WeightRows.stackedSize(parts)
        let format = parts[0].format
        let panels = (total - 1) / Self.panelRows + 1
        let panelBytes = Int(fi_linear_panel_bytes(format.kernelFormat, Int64(columns)))
        let (bytes, overflow) = panels.multipliedReportingOverflow(by: panelBytes)
        guard !overflow else { throw .overflow("parts") }
        let memory =
            if let arena { try arena.allocate(byteCount: bytes) } else {
                WeightMemory(try WeightChunk(bytes), offset: 0)
            }
        rows = total
        self.columns = columns
        self.format = format
        byteCount = bytes
        self.memory = memory
        Self.pack(parts, rows: total, panelBytes: panelBytes, into: memory.base, pool: pool)
    }

    /// Rows interleaved in one panel.
    internal static var panelRows: Int { Int(FI_PANEL_ROWS) }

    /// The number of panels, the last of them padded with rows of zeros.
    internal var panels: Int { (rows - 1) / Self.panelRows + 1 }

    internal var base: UnsafeRawPointer { UnsafeRawPointer(memory.base) }

    private static func pack(
        _ parts: [WeightRows], rows: Int, panelBytes: Int, into base: UnsafeMutableRawPointer, pool: ThreadPool
    ) {
        let panels = (rows - 1) / panelRows + 1
        pool.run { worker in
            // Where each row of the panel starts in the file, or nil past the last row.
            var starts = [UnsafeRawPointer?](repeating: nil, count: panelRows)
            var part = 0
            var partBegin = 0
            for panel in panels * worker / pool.threads..<panels * (worker + 1) / pool.threads {
                for lane in 0..<panelRows {
                    let row = panel * panelRows + lane
                    while part < parts.count, row >= partBegin + parts[part].rows {
                        partBegin += parts[part].rows
                        part += 1
                    }
                    starts[lane] = part < parts.count ? parts[part].pointer(to: row - partBegin) : nil
                }
                fi_linear_pack_panel(
                    parts[0].format.kernelFormat, starts, Int64(parts[0].columns), base + panel * panelBytes)
            }
        }
    }
}
