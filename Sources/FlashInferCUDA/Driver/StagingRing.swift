package import CCUDA
internal import FlashInferCore

/// Pinned host buffers that take turns, so that the host writes the next message while the GPU still reads the ones before.
///
/// A buffer is used again once the stream has passed the copy out of it. While all are in use the ring grows, up to a limit;
/// only then does it wait for the oldest.
package final class StagingRing: Sendable {
    private final class Slot {
        let buffer: PinnedBuffer
        /// Recorded after the copy out of the buffer.
        let copied: CUDAEvent
        var isInUse = false

        init(byteCount: Int, in context: CUDAContext) throws(FlashInferError) {
            buffer = try PinnedBuffer(byteCount: byteCount, in: context)
            copied = try CUDAEvent(in: context)
        }

        func isFree() throws(FlashInferError) -> Bool {
            if isInUse, try copied.hasPassed() { isInUse = false }
            return !isInUse
        }

        func waitUntilFree() throws(FlashInferError) {
            if isInUse { try copied.wait() }
            isInUse = false
        }

        deinit {
            // The GPU may still read; a lost context reads no more.
            if isInUse { try? copied.wait() }
        }
    }

    private let context: CUDAContext
    /// In the order in which they were last used.
    private let slots = Locked<[Slot]>([])

    /// Small messages share one size, so that any free buffer serves them.
    private static let smallestSlot = 64 << 10
    /// The ring grows to as many buffers as this,
    private static let maximumSlots = 64
    /// and no further than this many bytes once it has a few.
    private static let maximumByteCount = 64 << 20

    package init(context: CUDAContext) { self.context = context }

    /// Lets `fill` write `byteCount` bytes to a free buffer and enqueues their copy to `address`.
    ///
    /// - Precondition: `byteCount` is positive. `fill` does not come back here.
    package func copy(
        byteCount: Int, to address: UInt, stream: fi_cu_stream, _ fill: (UnsafeMutableRawBufferPointer) -> Void
    ) throws(FlashInferError) {
        // One thread at a time from here to the event, so that slots are in the order of their copies.
        try slots.withLock { (slots) throws(FlashInferError) in
            // Another thread may record some stream meanwhile: looking at events and making buffers is no work of one.
            let slot = try context.whileCaptureIsRelaxed { () throws(FlashInferError) in
                try take(byteCount, from: &slots)
            }
            defer { slots.append(slot) }
            let bytes = UnsafeMutableRawBufferPointer(rebasing: slot.buffer.bytes[..<byteCount])
            fill(bytes)
            try context.call("cuMemcpyHtoDAsync") {
                $0.cuMemcpyHtoDAsync(UInt64(address), bytes.baseAddress!, byteCount, stream)
            }
            slot.isInUse = true
            try slot.copied.record(in: stream)
        }
    }

    /// Removes a slot that is free and large enough, making or waiting for one if needed.
    private func take(_ byteCount: Int, from slots: inout [Slot]) throws(FlashInferError) -> Slot {
        for (index, slot) in slots.enumerated() where slot.buffer.byteCount >= byteCount {
            // One stream: where this copy has not passed, none after it has.
            guard try slot.isFree() else { break }
            return slots.remove(at: index)
        }
        let size = max(Self.smallestSlot, byteCount.nextPowerOfTwo)
        let total = slots.reduce(0) { $0 + $1.buffer.byteCount }
        if slots.count < 4 || (slots.count < Self.maximumSlots && total + size <= Self.maximumByteCount) {
            return try Slot(byteCount: size, in: context)
        }
        if let index = slots.firstIndex(where: { $0.buffer.byteCount >= byteCount }) {
            try slots[index].waitUntilFree()
            return slots.remove(at: index)
        }
        // All are too small: the oldest makes room for a larger one.
        try slots[0].waitUntilFree()
        slots.removeFirst()
        return try Slot(byteCount: size, in: context)
    }
}

extension Int {
    /// The smallest power of two not below; self is positive and at most 2^62.
    fileprivate var nextPowerOfTwo: Int { self <= 1 ? 1 : 1 << (Int.bitWidth - (self - 1).leadingZeroBitCount) }
}
