internal import CCUDA
internal import FlashInferCore

/// Device memory that other GPUs may write to, owned.
///
/// Not from the stream-ordered pool, whose memory is neither handed to other processes nor opened to other GPUs as it is. And never given
/// back to the driver: a rank that is late, or that makes a call more than the others, writes to the window of one that has ended,
/// and must not write to what is somebody else's by then. What has no owner any more is the next one's of its size.
package struct PeerMemory: ~Copyable, Sendable {
    /// The first byte's address.
    package var address: UInt { block.address }
    /// Its size.
    package var byteCount: Int { block.byteCount }
    private let block: Block

    private struct Block {
        let context: CUDAContext
        let address: UInt
        let byteCount: Int
    }

    private static let withoutOwner = Locked<[Block]>([])

    /// Takes memory of this size, in whole units of what the driver maps, so that nothing else lies in what others may write to.
    package init(byteCount: Int, in context: CUDAContext) throws(FlashInferError) {
        let unit = 2 << 20
        let size = (max(byteCount, 1) + unit - 1) / unit * unit
        try context.requireUsable()
        let known = Self.withoutOwner.withLock { blocks -> Block? in
            blocks.firstIndex { $0.context === context && $0.byteCount == size }.map { blocks.remove(at: $0) }
        }
        if let known { block = known } else { block = try Self.allocate(size, in: context) }
    }

    private static func allocate(_ size: Int, in context: CUDAContext) throws(FlashInferError) -> Block {
        var address: fi_cu_address = 0
        let status = context.status { $0.cuMemAlloc(&address, size) }
        if status == Int32(FI_CU_OUT_OF_MEMORY) {
            throw .outOfMemory(byteCount: size, device: context.properties.name)
        }
        if status != 0 { throw context.failure(status, "cuMemAlloc") }
        return Block(context: context, address: UInt(address), byteCount: size)
    }

    deinit {
        let block = block
        Self.withoutOwner.withLock { $0.append(block) }
    }
}

extension CUDAContext {
    /// A name of memory for other processes of this machine; `nil` where the driver or the system has none.
    package func handle(of address: UInt) -> [UInt8]? {
        guard let ask = driver.functions.cuIpcGetMemHandle else { return nil }
        var handle = fi_cu_memory_handle()
        guard status(of: { _ in ask(&handle, UInt64(address)) }) == 0 else { return nil }
        return withUnsafeBytes(of: handle) { Array($0) }
    }

    /// Maps another process's memory.
    ///
    /// - Returns: its address here, to be closed with ``close(_:)``.
    package func open(_ bytes: [UInt8]) throws(FlashInferError) -> UInt {
        guard let open = driver.functions.cuIpcOpenMemHandle, driver.functions.cuIpcCloseMemHandle != nil,
            bytes.count == MemoryLayout<fi_cu_memory_handle>.size
        else { throw .deviceFailure(call: "cuIpcOpenMemHandle", message: "the driver has none") }
        var handle = fi_cu_memory_handle()
        withUnsafeMutableBytes(of: &handle) { $0.copyBytes(from: bytes) }
        var address: fi_cu_address = 0
        let named = handle
        try call("cuIpcOpenMemHandle") { _ in open(&address, named, UInt32(FI_CU_OPEN_WITH_PEER_ACCESS)) }
        return UInt(address)
    }

    /// Unmaps it.
    package func close(_ address: UInt) {
        release { $0.cuIpcCloseMemHandle(UInt64(address)) }
    }

    /// Lets this GPU's kernels reach the memory of another GPU of this process.
    package func openMemory(ofGPU other: Int) throws(FlashInferError) {
        guard other != ordinal else { return }
        let functions = driver.functions
        guard let ask = functions.cuDeviceCanAccessPeer, let enable = functions.cuCtxEnablePeerAccess else {
            throw .deviceFailure(call: "cuCtxEnablePeerAccess", message: "the driver has none")
        }
        var (own, peer): (fi_cu_device, fi_cu_device) = (0, 0)
        try driver.check(functions.cuDeviceGet(&own, Int32(ordinal)), "cuDeviceGet")
        try driver.check(functions.cuDeviceGet(&peer, Int32(other)), "cuDeviceGet")
        var can: Int32 = 0
        try driver.check(ask(&can, own, peer), "cuDeviceCanAccessPeer")
        guard can != 0 else {
            throw .deviceFailure(call: "cuDeviceCanAccessPeer", message: "cuda:\(ordinal) does not reach cuda:\(other)")
        }
        var context: fi_cu_context = 0
        try driver.check(functions.cuDevicePrimaryCtxRetain(&context, peer), "cuDevicePrimaryCtxRetain")
        defer { _ = functions.cuDevicePrimaryCtxRelease(peer) }
        let status = status { _ in enable(context, 0) }
        if status != 0, status != Int32(FI_CU_PEER_ACCESS_ALREADY_ENABLED) {
            throw failure(status, "cuCtxEnablePeerAccess")
        }
    }
}
