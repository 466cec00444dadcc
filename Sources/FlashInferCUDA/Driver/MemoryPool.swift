package import CCUDA
internal import FlashInferCore

/// Device memory that is allocated and freed in stream order, from a pool of our own.
///
/// Not the GPU's default pool: what the rest of the process sets there stays as it was, and freed memory is kept here for the next
/// allocation instead of going back at every synchronisation. Where memory is short, it is given back and the allocation tried
/// again.
package struct MemoryPool: ~Copyable, Sendable {
    private let context: CUDAContext
    /// 0 where the GPU has no pools; then memory is allocated and freed at once.
    private let pool: fi_cu_pool

    /// A pool on a context's GPU.
    package init(in context: CUDAContext) throws(FlashInferError) {
        self.context = context
        guard context.properties.hasMemoryPools else {
            pool = 0
            return
        }
        var properties = fi_cu_pool_properties()
        properties.allocation_type = Int32(FI_CU_ALLOCATION_PINNED)
        properties.location_type = Int32(FI_CU_LOCATION_DEVICE)
        properties.location = Int32(context.ordinal)
        var pool: fi_cu_pool = 0
        try context.call("cuMemPoolCreate") { $0.cuMemPoolCreate(&pool, &properties) }
        var threshold = UInt64.max
        try context.call("cuMemPoolSetAttribute") {
            $0.cuMemPoolSetAttribute(pool, Int32(FI_CU_POOL_RELEASE_THRESHOLD), &threshold)
        }
        self.pool = pool
    }

    deinit {
        let pool = pool
        if pool != 0 { context.release { $0.cuMemPoolDestroy(pool) } }
    }

    /// Memory that work enqueued on `stream` from now on may use, aligned to 256 bytes.
    ///
    /// - Throws: ``FlashInferError/outOfMemory(byteCount:device:)``.
    package func allocate(byteCount: Int, stream: fi_cu_stream) throws(FlashInferError) -> UInt {
        guard byteCount >= 0 else { throw .outOfMemory(byteCount: byteCount, device: "cuda:\(context.ordinal)") }
        try context.requireUsable()
        var address: fi_cu_address = 0
        var status = attempt(byteCount, stream, &address)
        if status == Int32(FI_CU_OUT_OF_MEMORY), pool != 0 {
            // What was freed and not yet passed in the stream can only be given back after waiting.
            try context.call("cuStreamSynchronize") { $0.cuStreamSynchronize(stream) }
            try trim()
            status = attempt(byteCount, stream, &address)
        }
        if status == Int32(FI_CU_OUT_OF_MEMORY) {
            throw .outOfMemory(byteCount: byteCount, device: "cuda:\(context.ordinal) (\(context.properties.name))")
        }
        if status != 0 { throw context.failure(status, pool == 0 ? "cuMemAlloc" : "cuMemAllocFromPoolAsync") }
        return UInt(address)
    }

    private func attempt(_ byteCount: Int, _ stream: fi_cu_stream, _ address: inout fi_cu_address) -> fi_cu_status {
        // The driver refuses sizes of 0; every allocation has an address of its own, empty ones too.
        let size = max(byteCount, 1)
        let pool = pool
        return context.status {
            pool == 0 ? $0.cuMemAlloc(&address, size) : $0.cuMemAllocFromPoolAsync(&address, size, pool, stream)
        }
    }

    /// Frees, once the stream gets there.
    package func free(_ address: UInt, stream: fi_cu_stream) {
        let pool = pool
        context.release {
            pool == 0 ? $0.cuMemFree(UInt64(address)) : $0.cuMemFreeAsync(UInt64(address), stream)
        }
    }

    /// Gives memory that is not in use back to the GPU.
    package func trim() throws(FlashInferError) {
        let pool = pool
        if pool != 0 { try context.call("cuMemPoolTrimTo") { $0.cuMemPoolTrimTo(pool, 0) } }
    }

    /// Bytes allocated, and bytes held for allocations; zeros where the GPU has no pools.
    package func statistics() throws(FlashInferError) -> (used: Int, reserved: Int) {
        let pool = pool
        guard pool != 0 else { return (0, 0) }
        var used: UInt64 = 0
        var reserved: UInt64 = 0
        try context.call("cuMemPoolGetAttribute") {
            $0.cuMemPoolGetAttribute(pool, Int32(FI_CU_POOL_USED_BYTES), &used)
        }
        try context.call("cuMemPoolGetAttribute") {
            $0.cuMemPoolGetAttribute(pool, Int32(FI_CU_POOL_RESERVED_BYTES), &reserved)
        }
        return (Int(used), Int(reserved))
    }
}
