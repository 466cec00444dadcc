internal import CFlashInferCPU
internal import FlashInferCore

#if canImport(Glibc)
    internal import Glibc
#elseif canImport(Musl)
    internal import Musl
#elseif canImport(Darwin)
    internal import Darwin
#endif

/// Host memory for tensors, aligned to cache lines, and to huge pages where it is large.
enum CPUMemory {
    /// One cache line; also the widest vector.
    private static let lineAlignment = 64
    /// A huge page on x86-64 and AArch64: caches and weights touch memory widely, and miss the TLB less this way.
    private static let hugePage = 1 << 21

    /// Allocates `byteCount` bytes of undefined content.
    static func allocate(byteCount: Int) throws(FlashInferError) -> MemoryRegion {
        guard byteCount >= 0, byteCount <= Int.max / 2 else { throw .outOfMemory(byteCount: byteCount, device: "cpu") }
        let alignment = byteCount >= 4 * hugePage ? hugePage : lineAlignment
        // Rounded up, so that a vector load of the last element never leaves the allocation.
        let rounded = (max(byteCount, 1) + alignment - 1) & ~(alignment - 1)
        var pointer: UnsafeMutableRawPointer?
        guard posix_memalign(&pointer, alignment, rounded) == 0, let pointer else {
            throw .outOfMemory(byteCount: byteCount, device: "cpu")
        }
        #if os(Linux)
            if alignment == hugePage { _ = madvise(pointer, rounded, Int32(MADV_HUGEPAGE)) }
        #endif
        return MemoryRegion(address: UInt(bitPattern: pointer), byteCount: byteCount, device: .cpu)
    }

    /// Frees what ``allocate(byteCount:)`` returned.
    static func deallocate(_ region: MemoryRegion) { free(UnsafeMutableRawPointer(bitPattern: region.address)) }

    /// The number of processors this process may run on.
    static var availableProcessors: Int { Int(fi_available_processors()) }

    /// Bytes of physical memory.
    static var physicalByteCount: Int { sysconf(Int32(_SC_PHYS_PAGES)) * sysconf(Int32(_SC_PAGESIZE)) }
}
