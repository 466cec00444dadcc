internal import FlashInferCore

/// A block table as plain pointers.
struct KeyLocator {
    let blockSize: Int
    let indptr: UnsafeBufferPointer<Int32>
    let indices: UnsafeBufferPointer<Int32>
    /// The places of those blocks in their sequences, or the blocks themselves: what positions are counted by.
    let places: UnsafeBufferPointer<Int32>
    let lengths: UnsafeBufferPointer<Int32>
    /// Entries from one head's table to the next one's; 0 where all heads have one.
    let headStride: Int

    /// Byte offsets of keys `start ..< start + count` of a request's head, in a tensor of these strides.
    @inline(__always)
    func locate(
        _ request: Int, head: Int, from start: Int, count: Int, in tensor: KVStrides,
        into offsets: UnsafeMutablePointer<Int64>
    ) {
        forEachRun(request, head: head, from: start, count: count) { done, entry, row, run in
            let first = Int(indices[entry]) * tensor.block + row * tensor.token
            for index in 0..<run { offsets[done + index] = Int64(truncatingIfNeeded: first + index * tensor.token) }
        }
    }

    /// The columns of keys in a whole block-sparse matrix, or their places in a whole sequence.
    func positions(
        _ request: Int, head: Int, from start: Int, count: Int, into positions: UnsafeMutablePointer<Int32>
    ) {
        forEachRun(request, head: head, from: start, count: count) { done, entry, row, run in
            let first = Int(places[entry]) * blockSize + row
            for index in 0..<run { positions[done + index] = Int32(truncatingIfNeeded: first + index) }
        }
    }

    /// Calls `body` with each stretch of keys in one block, and with where the tables have that.
    @inline(__always)
    private func forEachRun(
        _ request: Int, head: Int, from start: Int, count: Int,
        _ body: (_ done: Int, _ entry: Int, _ row: Int, _ run: Int) -> Void
    ) {
        var (entry, row) = start.quotientAndRemainder(dividingBy: blockSize)
        entry += Int(indptr[request]) + head * headStride
        var done = 0
        while done < count {
            let run = min(blockSize - row, count - done)
            body(done, entry, row, run)
            done += run
            row = 0
            entry += 1
        }
    }
}

/// Where a cache tensor's elements lie, in bytes.
struct KVStrides {
    let base: UnsafeRawPointer
    let block: Int
    let token: Int
    let head: Int

    init(_ tensor: KVTensor) {
        let size = tensor.dtype.byteCount
        // An empty tensor has no address and no element that is read.
        base = UnsafeRawPointer(tensor.view.pointer ?? UnsafeMutableRawPointer(bitPattern: 64).unsafelyUnwrapped)
        block = tensor.blockStride * size
        token = tensor.tokenStride * size
        head = tensor.headStride * size
    }
}
