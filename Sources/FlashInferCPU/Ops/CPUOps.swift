internal import CFlashInferCPU
internal import FlashInferCore

/// The small operations of a decoder on the CPU: normalisation, rotary embedding, activations, gathers, conversion, cache
/// updates and sampling.
///
/// Operations must have been validated. Rows are spread over the pool's threads where there is enough to do, and stay on the
/// caller's thread where there is not. A row's result never depends on the number of threads. After the first call of a given
/// size, nothing is allocated.
public final class CPUOps: @unchecked Sendable {
    // Unchecked because of the pointer to the kernel table, which is constant for the life of the process.

    /// The threads.
    public let pool: ThreadPool

    /// The kernels of this machine's instruction set.
    let kernels: fi_ops_kernels

    /// Its conversions between types.
    let conversions: fi_convert_kernels

    /// Memory kept from call to call. Operations that need some take turns.
    let scratch = Locked(CPUOpsScratch())

    /// Operations on `pool`, with the kernels of one instruction set: by default the best that this machine has.
    ///
    /// - Precondition: this machine has the instruction set.
    public init(pool: ThreadPool, instructionSet: InstructionSet = .detected) {
        precondition(instructionSet.isAvailable, "this machine does not have \(instructionSet.name)")
        self.pool = pool
        guard let conversions = fi_convert_table(instructionSet.cValue) else {
            preconditionFailure("\(instructionSet.name) has no conversions in this build")
        }
        kernels = fi_ops_table(instructionSet.cValue).pointee
        self.conversions = conversions.pointee
    }

    /// Work units (about one element of a copy) below which waking other threads costs more than it saves: some 10 µs.
    static let serialLimit = 65_536

    /// Calls `body` with ranges that cover `0 ..< rows`, on as many threads as `units` units of work are worth.
    func spread(rows: Int, units: Int, _ body: (_ worker: Int, _ first: Int64, _ last: Int64) -> Void) {
        if rows == 0 { return }
        if rows == 1 || pool.threads == 1 || units < Self.serialLimit { return body(0, 0, Int64(rows)) }
        let threads = pool.threads
        pool.run { worker in
            let (first, last) = (rows * worker / threads, rows * (worker + 1) / threads)
            if first < last { body(worker, Int64(first), Int64(last)) }
        }
    }
}

/// Memory that operations keep from call to call; each array grows to the largest size asked for.
struct CPUOpsScratch: ~Copyable {
    /// Table of the last rotary embedding, and what it was made for.
    var rope = RoPETable()
    /// The one before, of other parameters.
    var otherRope = RoPETable()
    /// Working memory of sampling, one part a thread.
    var sampling = ScratchArray<UInt8>()
    /// Parameters of the rows to sample.
    var rows = ScratchArray<fi_sample_row>()
    /// One over each row's temperature, or each head's cache scale.
    var scales = ScratchArray<Float>()
    /// Element offsets of the tokens' slots.
    var slots = ScratchArray<Int64>()
    /// One page of keys or values.
    var page = ScratchArray<UInt8>()
}

/// An array of undefined content that only ever grows, aligned to a cache line.
struct ScratchArray<Element: BitwiseCopyable>: ~Copyable {
    private var memory: UnsafeMutableRawPointer?
    private var byteCount = 0

    /// At least `count` elements, of undefined content.
    mutating func reserve(_ count: Int) -> UnsafeMutablePointer<Element> {
        let needed = max(count, 1) * MemoryLayout<Element>.stride
        if let memory, needed <= byteCount { return memory.assumingMemoryBound(to: Element.self) }
        memory?.deallocate()
        let fresh = UnsafeMutableRawPointer.allocate(byteCount: needed, alignment: 64)
        (memory, byteCount) = (fresh, needed)
        return fresh.bindMemory(to: Element.self, capacity: needed / MemoryLayout<Element>.stride)
    }

    deinit { memory?.deallocate() }
}
