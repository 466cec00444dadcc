internal import CFlashInfer
internal import FlashInferCPU
internal import FlashInferCUDA
internal import FlashInferCore
internal import Synchronization

/// What an `fi_device` points to: the CPU, or one GPU with a device for each of its streams that is in use.
///
/// A GPU's memory that outlives a call belongs to a stream of the library's own, so that the caller's streams may come and go.
final class DeviceHandle: Sendable {
    /// The CPU, or the GPU on the library's own stream.
    let base: any Device
    /// Its name, for C. Unsafe because pointers have no sendability; the text never changes.
    nonisolated(unsafe) let name: UnsafePointer<CChar>

    private let cpu: StreamState?
    private let gpu: CUDADevice?
    private let streams = Mutex<[Entry]>([])

    private struct Entry {
        var stream: UInt
        var state: StreamState
    }

    /// The CPU with `threads` threads, all where `nil`.
    init(threads: Int?) {
        let device = CPUDevice(threads: threads)
        (base, gpu) = (device, nil)
        cpu = StreamState(device)
        name = Self.copy(device.name)
    }

    /// A GPU for which kernels can be had.
    init(gpu device: CUDADevice) {
        (base, gpu, cpu) = (device, device, nil)
        name = Self.copy(device.name)
    }

    deinit { UnsafeMutablePointer(mutating: name).deallocate() }

    private static func copy(_ text: String) -> UnsafePointer<CChar> {
        let bytes = text.utf8CString
        let memory = UnsafeMutablePointer<CChar>.allocate(capacity: bytes.count)
        for (index, byte) in bytes.enumerated() { memory[index] = byte }
        return UnsafePointer(memory)
    }

    /// What runs work on a caller's stream.
    func on(_ stream: UnsafeMutableRawPointer?) throws(FlashInferError) -> StreamState {
        guard let gpu else { return cpu! }
        let handle = UInt(bitPattern: stream)
        return try streams.withLock { (streams) throws(FlashInferError) in
            for entry in streams where entry.stream == handle { return entry.state }
            let state = StreamState(try CUDADevice(sharing: gpu, stream: handle))
            streams.append(Entry(stream: handle, state: state))
            return state
        }
    }

    /// Drops what is kept for a stream, after its work.
    func forget(_ stream: UnsafeMutableRawPointer?) throws(FlashInferError) {
        let handle = UInt(bitPattern: stream)
        let state: StreamState? = streams.withLock { streams in
            guard let index = streams.firstIndex(where: { $0.stream == handle }) else { return nil }
            return streams.remove(at: index).state
        }
        try state?.device.synchronize()
    }
}

/// A device on one stream, with scratch memory for what callers leave out.
final class StreamState: Sendable {
    let device: any Device
    private let scratch = Mutex(Scratch())

    private struct Scratch: ~Copyable {
        var buffer: DeviceBuffer?
    }

    init(_ device: any Device) { self.device = device }

    var id: DeviceID { device.id }

    /// Calls `body` with at least `byteCount` bytes of the device, aligned to 64, whose content lasts until the next call.
    ///
    /// The lock is held meanwhile, so that work which uses the memory is enqueued before the next call's.
    func withScratch(
        byteCount: Int, _ body: (MemoryRegion) throws(FlashInferError) -> Void
    ) throws(FlashInferError) {
        try scratch.withLock { (scratch) throws(FlashInferError) in
            if let region = scratch.buffer?.region, region.byteCount >= byteCount { return try body(region) }
            let fresh = try DeviceBuffer(on: device, dtype: .uint8, shape: [max(4096, byteCount + byteCount / 2)])
            let region = fresh.region
            scratch.buffer = consume fresh
            try body(region)
        }
    }

    /// Checks an operation and runs it.
    @inline(__always)
    func run(_ operation: Operation) throws(FlashInferError) {
        try operation.validate()
        try device.execute(operation)
    }

    /// Calls `body` with the caller's status tensor, or with scratch for `rows` statuses that nobody reads.
    func withStatus(
        _ tensor: UnsafePointer<fi_tensor>?, rows: Int, _ body: (TensorView) throws(FlashInferError) -> Void
    ) throws(FlashInferError) {
        if let tensor { return try body(TensorView(tensor, "status", on: id)) }
        guard rows <= Int(Int32.max) else {
            throw .invalidArgument("rows", found: "\(rows)", expected: "at most \(Int32.max)")
        }
        try withScratch(byteCount: rows) { (region) throws(FlashInferError) in
            try body(TensorView(region, dtype: .uint8, shape: [rows], name: "status"))
        }
    }
}

/// The object behind a handle of the caller's.
@inline(__always)
func object<Object: AnyObject>(
    _ pointer: OpaquePointer?, _ name: String, as type: Object.Type = Object.self
) throws(FlashInferError) -> Object {
    guard let pointer else { throw .invalidArgument(name, found: "NULL", expected: "a handle") }
    return Unmanaged<Object>.fromOpaque(UnsafeRawPointer(pointer)).takeUnretainedValue()
}

/// A handle that the caller owns.
func handle<Object: AnyObject>(_ object: Object) -> OpaquePointer {
    OpaquePointer(Unmanaged.passRetained(object).toOpaque())
}

/// The end of a handle; nothing for NULL.
func release<Object: AnyObject>(_ pointer: OpaquePointer?, as type: Object.Type) {
    guard let pointer else { return }
    Unmanaged<Object>.fromOpaque(UnsafeRawPointer(pointer)).release()
}
