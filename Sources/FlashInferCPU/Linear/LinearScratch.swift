internal import CFlashInferCPU
public import FlashInferCore
internal import Synchronization

/// The quantised activations of one product at a time, allocated once and reused by every layer.
///
/// Holds `2.5 * rows * columns` bytes. One product uses it at a time; it is not for two threads.
public final class LinearScratch {
    /// The most rows of activations (tokens) in one product.
    public let rows: Int

    /// The most columns (K) of one product with that many rows; fewer rows may have more.
    public let columns: Int

    internal let quantized: UnsafeMutablePointer<Int16>
    internal let blocks: UnsafeMutablePointer<fi_activation_block>
    /// The next piece of work of a product whose pieces are dealt one at a time.
    internal let nextUnit = Atomic<Int>(0)

    /// Room for products of up to `rows * columns` activations.
    ///
    /// - Throws: ``FlashInferError`` where a size is not positive, or there is no room.
    public init(rows: Int, columns: Int) throws(FlashInferError) {
        guard rows > 0, columns > 0 else {
            throw .invalidArgument("scratch", found: "[\(rows), \(columns)]", expected: "positive sizes")
        }
        let padded = (columns + 31) & ~31
        let (count, overflow) = rows.multipliedReportingOverflow(by: padded)
        let (bytes, carry) = count.multipliedReportingOverflow(by: 4)
        guard !overflow, !carry else { throw .overflow("scratch") }
        // 2 bytes an activation, then 16 for each block of 32.
        guard let memory = fi_linear_allocate(Int64(bytes)) else {
            throw .outOfMemory(byteCount: bytes, device: "the CPU")
        }
        self.rows = rows
        self.columns = columns
        quantized = memory.bindMemory(to: Int16.self, capacity: count)
        blocks = (memory + 2 * count).bindMemory(to: fi_activation_block.self, capacity: count / 32)
    }

    deinit { fi_linear_free(quantized) }

    /// Activations that fit.
    internal var capacity: Int { rows * ((columns + 31) & ~31) }
}
