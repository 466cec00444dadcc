internal import FlashInferCore

/// A block table as plain pointers.
struct KeyLocator {
    let blockSize: Int
    let indptr: UnsafeBufferPointer<Int32>
    let indices: UnsafeBufferPointer<Int32>
    let lengths: UnsafeBufferPointer<Int32>

    /// Byte offsets of keys `start ..< start + count` of a request, in a tensor of these strides.
    @inline(__always)
    func locate(
        _ request: Int, from start: Int, count: Int, in tensor: KVStrides, into offsets: UnsafeMutablePointer<Int64>
    ) {
        forEachRun(request, from: start, count: count) { done, block, row, run in
            let first = block * tensor.block + row * tensor.token
            for index in 0..<run { offsets[done + index] = Int64(truncatingIfNeeded: first + index * tensor.token) }
        }
    }

    /// The columns of keys in a whole block-sparse matrix.
    func columns(_ request: Int, from start: Int, count: Int, into positions: UnsafeMutablePointer<Int32>) {
        forEachRun(request, from: start, count: count) { done, block, row, run in
            let first = block * blockSize + row
            for index in 0..<run { positions[done + index] = Int32(truncatingIfNeeded: first + index) }
        }
    }

    /// Calls `body` with each stretch of keys in one block.
    @inline(__always)
    private func forEachRun(
        _ request: Int, from start: Int, count: Int, _ body: (_ done: Int, _ block: Int, _ row: Int, _ run: Int) -> Void
    ) {
        var (block, row) = start.quotientAndRemainder(dividingBy: blockSize)
        block += Int(indptr[request])
        var done = 0
        while done < count {
            let run = min(blockSize - row, count - done)
            body(done, Int(indices[block]), row, run)
            done += run
            row = 0
            block += 1
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
