internal import CFlashInferCPU
internal import FlashInferCore

/// Memory that the packed matrices of one model share, so that even small ones lie on huge pages.
///
/// Hands out 64-byte aligned pieces of large chunks and never takes one back; a chunk is freed when the arena and all matrices
/// in it are gone.
public final class WeightArena: Sendable {
    private struct State {
        var chunk: WeightChunk?
        var used = 0
    }

    private let chunkByteCount: Int
    private let state = Locked(State())

    /// An arena that grows by `chunkByteCount` bytes at a time; larger pieces get a chunk of their own.
    public init(chunkByteCount: Int = 32 << 20) {
        self.chunkByteCount = max(chunkByteCount, 4_096)
    }

    internal func allocate(byteCount: Int) throws(FlashInferError) -> WeightMemory {
        let chunkByteCount = chunkByteCount
        return try state.withLock { (state) throws(FlashInferError) in
            if byteCount > chunkByteCount { return WeightMemory(try WeightChunk(byteCount), offset: 0) }
            let chunk: WeightChunk
            if let current = state.chunk, byteCount <= current.byteCount - state.used {
                chunk = current
            } else {
                chunk = try WeightChunk(chunkByteCount)
                state = State(chunk: chunk)
            }
            let piece = WeightMemory(chunk, offset: state.used)
            state.used += (byteCount + 63) & ~63
            return piece
        }
    }
}

/// One allocation, freed with its last user.
internal final class WeightChunk: @unchecked Sendable {
    // Unchecked because of the pointer; it is written once, while a matrix is packed, by that matrix alone.
    let base: UnsafeMutableRawPointer
    let byteCount: Int

    init(_ byteCount: Int) throws(FlashInferError) {
        guard let base = fi_linear_allocate(Int64(byteCount)) else {
            throw .outOfMemory(byteCount: byteCount, device: "the CPU")
        }
        self.base = base
        self.byteCount = byteCount
    }

    deinit { fi_linear_free(base) }
}

/// A piece of a chunk.
internal struct WeightMemory: Sendable {
    private let chunk: WeightChunk
    private let offset: Int

    init(_ chunk: WeightChunk, offset: Int) {
        self.chunk = chunk
        self.offset = offset
    }

    var base: UnsafeMutableRawPointer { chunk.base + offset }
}
