package import CCUDA
internal import FlashInferCore
internal import Synchronization

/// The primary context of one GPU: the one that the rest of the process uses too, so both see the same memory and streams.
///
/// Every call goes through ``call(_:_:)``, which makes the context current on this thread for the call's time and puts back what
/// was current before. A status that says the context is lost poisons it: every later call says which call found it first.
package final class CUDAContext: Sendable {
    /// The driver.
    package let driver: CUDADriver
    /// The GPU's number among those that this process may use.
    package let ordinal: Int
    /// The GPU's properties.
    package let properties: CUDAProperties

    private let device: fi_cu_device
    private let handle: fi_cu_context
    private let isPoisoned = Atomic(false)
    private let poison = Locked<FlashInferError?>(nil)

    /// Retains the primary context of a GPU.
    ///
    /// - Throws: ``FlashInferError`` where there is no such GPU, it is too old, or its context cannot be made.
    package init(driver: CUDADriver, ordinal: Int) throws(FlashInferError) {
        let count = try driver.deviceCount()
        guard ordinal >= 0, ordinal < count else {
            throw .invalidArgument(
                "CUDA device", found: "cuda:\(ordinal)",
                expected: count == 0
                    ? "on a machine with a GPU; this process sees none" : "in cuda:0 ... cuda:\(count - 1)")
        }
        var device: fi_cu_device = 0
        try driver.check(driver.functions.cuDeviceGet(&device, Int32(ordinal)), "cuDeviceGet")
        let properties = try CUDAProperties(of: device, driver: driver)
        guard properties.isSupported else {
            let (major, minor) = properties.computeCapability
            throw .unsupported(
                "compute capability \(major).\(minor)", device: "cuda:\(ordinal) (\(properties.name))",
                nearest: "8.0 (Ampere) and later")
        }
        var handle: fi_cu_context = 0
        try driver.check(driver.functions.cuDevicePrimaryCtxRetain(&handle, device), "cuDevicePrimaryCtxRetain")
        self.driver = driver
        self.ordinal = ordinal
        self.properties = properties
        self.device = device
        self.handle = handle
    }

    deinit { _ = driver.functions.cuDevicePrimaryCtxRelease(device) }

    /// Calls the driver in this context; throws what the status stands for.
    @inline(__always)
    package func call(
        _ name: StaticString, _ body: (borrowing fi_driver_table) -> fi_cu_status
    ) throws(FlashInferError) {
        try requireUsable()
        let status = status(of: body)
        if status != 0 { throw failure(status, name) }
    }

    /// Throws what lost the context, if it is lost: before calls whose status the caller deals with.
    @inline(__always)
    package func requireUsable() throws(FlashInferError) {
        if isPoisoned.load(ordering: .relaxed) { throw poisoned() }
    }

    /// Calls the driver in this context and gives the status, which the caller deals with.
    @inline(__always)
    package func status(of body: (borrowing fi_driver_table) -> fi_cu_status) -> fi_cu_status {
        var current: fi_cu_context = 0
        var status = driver.functions.cuCtxGetCurrent(&current)
        guard status == 0 else { return status }
        if current == handle { return body(driver.functions) }
        status = driver.functions.cuCtxPushCurrent(handle)
        guard status == 0 else { return status }
        defer { _ = driver.functions.cuCtxPopCurrent(&current) }
        return body(driver.functions)
    }

    /// Runs what a thread that captures may not do, unless it says that it knows: loading code, which is no work of a stream.
    package func whileCaptureIsRelaxed<Result: ~Copyable>(
        _ body: () throws(FlashInferError) -> Result
    ) throws(FlashInferError) -> Result {
        var mode = Int32(FI_CU_CAPTURE_RELAXED)
        try call("cuThreadExchangeStreamCaptureMode") { $0.cuThreadExchangeStreamCaptureMode(&mode) }
        defer { release { $0.cuThreadExchangeStreamCaptureMode(&mode) } }
        return try body()
    }

    /// Frees something: errors have nowhere to go, and a lost context has freed it already.
    package func release(_ body: (borrowing fi_driver_table) -> fi_cu_status) {
        if isPoisoned.load(ordering: .relaxed) { return }
        let status = status(of: body)
        if isSticky(status) { _ = failure(status, "a release") }
    }

    /// The error of a failed call; a sticky one is kept for all later calls.
    @inline(never)
    package func failure(_ status: fi_cu_status, _ call: StaticString) -> FlashInferError {
        guard isSticky(status) else { return driver.error(status, call) }
        poison.withLock { first in
            guard first == nil else { return }
            first = .deviceFailure(
                call: "\(call)",
                message:
                    "\(driver.text(of: status)), found here, where an earlier kernel or copy may be the cause; the GPU's "
                    + "context of this process is lost, and only a restart of the process brings it back")
        }
        isPoisoned.store(true, ordering: .relaxed)
        return poisoned()
    }

    @inline(never)
    private func poisoned() -> FlashInferError {
        poison.withLock { $0 } ?? .deviceFailure(call: "CUDA", message: "the context is lost")
    }

    /// Whether `stream` belongs to this context, so that a wrong handle is found here and not by a launch.
    package func owns(stream: fi_cu_stream) -> Bool {
        // The legacy and the per-thread default stream belong to whatever context is current.
        if stream <= 2 { return true }
        var owner: fi_cu_context = 0
        return status(of: { $0.cuStreamGetCtx(stream, &owner) }) == 0 && owner == handle
    }

    /// Bytes free and in all, as the driver counts them.
    package func memory() throws(FlashInferError) -> (free: Int, total: Int) {
        var free = 0
        var total = 0
        try call("cuMemGetInfo") { $0.cuMemGetInfo(&free, &total) }
        return (free, total)
    }
}
