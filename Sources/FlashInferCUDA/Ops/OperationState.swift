internal import CUDAKernels
package import FlashInferCore

/// Device memory that the small operations keep from call to call: what they read of host arrays.
///
/// It grows to the largest asked for and is then allocated no more. The lock is held until the kernel that reads the memory is
/// enqueued, so that another thread's values come after it in the stream.
package final class OperationState: Sendable {
    private struct Content: ~Copyable {
        /// For one operation.
        var scratch: CUDABuffer?
        /// Slots of the last append: all layers of a step have the same.
        var slots: CUDABuffer?
        var storedSlots: KVSlots?
        /// Tables of turns, which stay: a graph may read them.
        var turns: [TurnsKey: UInt] = [:]
        var turnsMemory: [CUDAMemory] = []
    }

    private struct TurnsKey: Hashable {
        var parameters: RoPEParameters
        var headDim: Int
    }

    private let queue: CUDAQueue
    /// Whose tables these operations read; `nil` for their own.
    private let owner: OperationState?
    private let content = Locked(Content())

    /// State of a queue's operations; with the tables of another queue's, where several streams share them.
    package init(queue: CUDAQueue, tablesOf owner: OperationState? = nil) {
        self.queue = queue
        self.owner = owner
    }

    /// Copies `byteCount` bytes that `fill` writes to the device, and calls `body` with their address; they stay until the next call.
    func withStaged(
        byteCount: Int, _ fill: (UnsafeMutableRawBufferPointer) -> Void,
        _ body: (UInt) throws(FlashInferError) -> Void
    ) throws(FlashInferError) {
        try content.withLock { (content) throws(FlashInferError) in
            let address = try Self.reserve(byteCount, in: &content.scratch, on: queue)
            try queue.stage(byteCount: byteCount, to: address, fill)
            try body(address)
        }
    }

    /// Calls `body` with the address of slots, `[2, tokens]`, copied unless they are those of the last call.
    func withSlots(
        _ slots: KVSlots, _ body: (UInt) throws(FlashInferError) -> Void
    ) throws(FlashInferError) {
        try content.withLock { (content) throws(FlashInferError) in
            let size = 4 * slots.count
            let address = try Self.reserve(2 * size, in: &content.slots, on: queue)
            // The same arrays are equal without a look at their elements.
            if content.storedSlots != slots {
                content.storedSlots = nil
                try queue.stage(byteCount: 2 * size, to: address) { bytes in
                    slots.blocks.withUnsafeBytes {
                        UnsafeMutableRawBufferPointer(rebasing: bytes[..<size]).copyMemory(from: $0)
                    }
                    slots.rows.withUnsafeBytes {
                        UnsafeMutableRawBufferPointer(rebasing: bytes[size...]).copyMemory(from: $0)
                    }
                }
                content.storedSlots = slots
            }
            try body(address)
        }
    }

    /// The address of a table of turns, see ``RoPETurns``: fractions, and behind them the float32 pairs.
    ///
    /// It is made at its first use, which cannot be while a graph is captured, and stays.
    package func turns(_ parameters: RoPEParameters, headDim: Int) throws(FlashInferError) -> UInt {
        let key = TurnsKey(parameters: parameters, headDim: headDim)
        guard let owner else { return try turns(key, isCapturing: queue.isCapturing, isShared: false) }
        return try owner.turns(key, isCapturing: queue.isCapturing, isShared: true)
    }

    /// - Parameter isShared: whether other streams than this queue's read the table: then it is there when this returns.
    private func turns(
        _ key: TurnsKey, isCapturing: @autoclosure () -> Bool, isShared: Bool
    ) throws(FlashInferError) -> UInt {
        let (parameters, headDim) = (key.parameters, key.headDim)
        return try content.withLock { (content) throws(FlashInferError) in
            if let address = content.turns[key] { return address }
            guard !isCapturing() else {
                throw .deviceFailure(
                    call: "RoPE",
                    message:
                        "the first use of these parameters copies a table to the device, which is not possible while a graph "
                        + "is being captured; run the work once before")
            }
            let fractions = RoPETurns.fractions(parameters, headDim: headDim)
            let pairs = RoPETurns.highLow(parameters, headDim: headDim)
            let size = 8 * fractions.count
            let memory = try CUDAMemory(byteCount: 2 * size, on: queue)
            try queue.stage(byteCount: 2 * size, to: memory.address) { bytes in
                fractions.withUnsafeBytes {
                    UnsafeMutableRawBufferPointer(rebasing: bytes[..<size]).copyMemory(from: $0)
                }
                pairs.withUnsafeBytes { UnsafeMutableRawBufferPointer(rebasing: bytes[size...]).copyMemory(from: $0) }
            }
            if isShared { try queue.synchronize() }
            content.turns[key] = memory.address
            content.turnsMemory.append(memory)
            return memory.address
        }
    }

    /// At least `byteCount` bytes: those there are, or new ones, the old being freed in stream order.
    private static func reserve(
        _ byteCount: Int, in buffer: inout CUDABuffer?, on queue: CUDAQueue
    ) throws(FlashInferError) -> UInt {
        if let address = buffer?.address, let size = buffer?.byteCount, size >= byteCount { return address }
        // Some more than asked for, so that batches that grow a row at a time do not allocate each time.
        let fresh = try CUDABuffer(byteCount: max(4096, byteCount + byteCount / 2), on: queue)
        let address = fresh.address
        buffer = consume fresh
        return address
    }
}

/// Device memory in an array, which holds no buffers themselves.
private final class CUDAMemory: Sendable {
    private let buffer: CUDABuffer
    var address: UInt { buffer.address }

    init(byteCount: Int, on queue: CUDAQueue) throws(FlashInferError) {
        buffer = try CUDABuffer(byteCount: byteCount, on: queue)
    }
}

extension CUDADevice {
    /// Refuses what reads host arrays while a graph is captured: a replay would read whatever the memory holds then.
    func refuseHostArrays(_ what: String, instead: String) throws(FlashInferError) {
        if isCapturing { throw .unsupported("\(what) while a graph is being captured", device: name, nearest: instead) }
    }
}
