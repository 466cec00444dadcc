internal import Dispatch
package import FlashInferCore

/// A weight matrix on the GPU in a 16-bit type, row by row.
///
/// float16 for all that is not bfloat16 in the file: it has 11 significant bits where bfloat16 has 8, so that a quantised weight is
/// off by at most 2⁻¹² of itself, and down to 6·10⁻⁸ nothing is lost to underflow that a product could see. A matrix with a
/// weight past 65,504, or one that is not a number, is held in bfloat16 instead. float16 and bfloat16 sources lose nothing.
package final class CUDAWeights: DeviceWeights {
    package let rows: Int
    package let columns: Int
    package let byteCount: Int
    package let device: DeviceID
    package let inputType: DType
    /// Elements from one row to the next: rows start at multiples of 16 bytes.
    package let stride: Int
    /// Whose they are.
    let queue: CUDAQueue

    private let buffer: DeviceBuffer

    package var table: TensorView? { matrix }

    /// `[rows, columns]`
    var matrix: TensorView { buffer.view.slice(0..<columns, along: 1) }

    /// Dequantises matrices of one format and number of columns, one under the other, into device memory.
    package init(_ parts: [WeightRows], on device: CUDADevice) throws(FlashInferError) {
        (rows, columns) = try WeightRows.stackedSize(parts)
        stride = (columns + Self.alignment - 1) / Self.alignment * Self.alignment
        self.device = device.id
        queue = device.queue
        // float16 and bfloat16 have elements of one size, so the memory serves whichever it comes to be.
        let isBFloat = parts[0].format == .bfloat16
        var buffer = try DeviceBuffer(on: device, dtype: isBFloat ? .bfloat16 : .float16, shape: [rows, stride])
        if try !Self.fill(buffer.view, parts, queue) {
            buffer = try DeviceBuffer(on: device, dtype: .bfloat16, shape: [rows, stride])
            _ = try Self.fill(buffer.view, parts, queue)
        }
        byteCount = buffer.region.byteCount
        inputType = buffer.view.dtype
        self.buffer = buffer
    }

    /// Elements of 16 bytes.
    private static let alignment = 8

    /// Bytes of a piece that is dequantised at once: a piece of the uploads, so that threads work on one while others travel.
    private static let pieceByteCount = 4 << 20

    /// Dequantises all rows straight into the pinned memory they are sent from.
    ///
    /// - Returns: whether every weight is finite in the view's type; the rest is not sent otherwise.
    private static func fill(_ view: TensorView, _ parts: [WeightRows], _ queue: CUDAQueue) throws(FlashInferError)
        -> Bool
    {
        let rowByteCount = view.strides[0] * 2
        let rowsPerPiece = max(1, pieceByteCount / rowByteCount)
        var first = 0
        for part in parts {
            for start in Swift.stride(from: 0, to: part.rows, by: rowsPerPiece) {
                let count = min(rowsPerPiece, part.rows - start)
                let address = view.address + UInt((first + start) * rowByteCount)
                var fits = true
                try queue.gate.inside { () throws(FlashInferError) in
                    try queue.stage(byteCount: count * rowByteCount, to: address) { bytes in
                        fits = round(part, start..<start + count, to: view.dtype, rowByteCount, into: bytes)
                    }
                }
                if !fits { return false }
            }
            first += part.rows
        }
        return true
    }

    /// Rounds some rows on all processors.
    private static func round(
        _ part: WeightRows, _ rows: Range<Int>, to type: DType, _ rowByteCount: Int,
        into bytes: UnsafeMutableRawBufferPointer
    ) -> Bool {
        // A task is worth its start where it has a few hundred microseconds of weights.
        let rowsPerTask = max(1, (1 << 17) / part.columns)
        let tasks = (rows.count - 1) / rowsPerTask + 1
        let results = UnsafeMutableBufferPointer<Bool>.allocate(capacity: tasks)
        defer { results.deallocate() }
        // Each task writes rows and a result of its own.
        nonisolated(unsafe) let (out, verdicts) = (bytes.baseAddress!, results)
        DispatchQueue.concurrentPerform(iterations: tasks) { task in
            let end = min((task + 1) * rowsPerTask, rows.count)
            verdicts[task] = withUnsafeTemporaryAllocation(of: Float.self, capacity: part.columns) { scratch in
                var fits = true
                for row in task * rowsPerTask..<end {
                    let place = out + row * rowByteCount
                    fits =
                        round(part, rows.lowerBound + row, to: type, scratch.baseAddress!, into: place) && fits
                    let used = 2 * part.columns
                    (place + used).initializeMemory(as: UInt8.self, repeating: 0, count: rowByteCount - used)
                }
                return fits
            }
        }
        return results.allSatisfy { $0 }
    }

    private static func round(
        _ part: WeightRows, _ row: Int, to type: DType, _ scratch: UnsafeMutablePointer<Float>,
        into place: UnsafeMutableRawPointer
    ) -> Bool {
        guard let source = part.pointer(to: row) else { return true }
        let count = part.columns
        if part.format == .float16 && type == .float16 || part.format == .bfloat16 {
            place.copyMemory(from: source, byteCount: 2 * count)
            return true
        }
        let out = place.assumingMemoryBound(to: UInt16.self)
        part.format.dequantize(source, count: count, into: scratch)
        if type == .bfloat16 {
            HalfPrecision.roundToBFloat(scratch, count: count, into: out)
            return true
        }
        HalfPrecision.roundToHalf(scratch, count: count, into: out)
        return HalfPrecision.allFitHalf(scratch, count: count)
    }
}
