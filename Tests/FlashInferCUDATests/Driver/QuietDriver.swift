import CCUDA
import FlashInferCUDA
import FlashInferCore
import Foundation
import Synchronization
import TestSupport

/// A driver that does next to nothing and takes no lock, so that nothing of its own orders the threads that call it: what the
/// thread sanitizer does not report with it is ordered by the library. It notes what another thread enqueues on the stream that a
/// thread captures, which on a GPU would become part of the graph.
enum QuietDriver {
    /// The thread that captures, or 0, and what it captures.
    private static let capturer = Atomic<UInt>(0)
    private static let captured = Atomic<UInt>(0)
    /// Calls of other threads on a stream that was captured.
    private static let strays = Atomic(0)
    /// Threads that were launching one executable graph at a time.
    private static let launchers = Atomic(0)
    private static let clashes = Atomic(0)
    /// What copies have read, so that they are not optimised away.
    private static let sum = Atomic(0)
    private static let handles = Atomic<UInt>(1 << 20)

    /// What went wrong since the last call, in calls.
    static func takeFaults() -> (strays: Int, clashes: Int) {
        (strays.exchange(0, ordering: .relaxed), clashes.exchange(0, ordering: .relaxed))
    }

    private static func handle(_ byteCount: Int = 1) -> UInt {
        handles.add(UInt(byteCount + 255) & ~255, ordering: .relaxed).oldValue & ~255
    }

    /// Notes a stray; gives the status that the driver has for it.
    private static func enqueue(_ stream: UInt) -> Int32 {
        let thread = capturer.load(ordering: .relaxed)
        if thread == 0 || thread == UInt(pthread_self()) || captured.load(ordering: .relaxed) != stream { return 0 }
        strays.add(1, ordering: .relaxed)
        return 0
    }

    /// A device on it, whose shipped kernels are made up.
    static func device(_ source: CubinSource) throws -> CUDADevice {
        try CUDADevice(driver: CUDADriver(functions: table(), path: "quiet"), source: source)
    }

    /// A device on `fake`, which writes launches down and does what they are at once, with memory for caches; the fake does not know
    /// the sizes of the kernels' parameters.
    static func device(_ source: CubinSource, writingTo fake: FakeDriver) throws -> CUDADevice {
        fake.change {
            $0.isEager = true
            $0.freeMemory = 1 << 34
        }
        var table = FakeDriver.table()
        table.cuFuncGetParamInfo = nil
        return try CUDADevice(driver: CUDADriver(functions: table, path: "fake"), source: source)
    }

    /// Made-up machine code for every kernel that ships.
    static func source(in folder: TemporaryFolder) throws -> CubinSource {
        let (compiler, architecture) = (KernelCompiler(), Architecture("sm_90a")!)
        let items = try KernelCatalogue.shipped.map { spec in
            KernelBundle.Item(
                sourceKey: try compiler.sourceKey(for: spec, architecture: architecture), architecture: architecture,
                version: CompilerVersion(major: 13, minor: 0), label: spec.label, cubin: Array("code".utf8))
        }
        let path = folder.path("shipped.bundle")
        try KernelBundle.write(items, to: path)
        return CubinSource(driverVersion: 13_000, environment: TestKernels.environment(bundle: path))
    }

    private static func table() -> fi_driver_table {
        var table = FakeDriver.table()
        addContext(&table)
        addMemory(&table)
        addStreams(&table)
        addGraphs(&table)
        return table
    }

    private static func addContext(_ table: inout fi_driver_table) {
        table.cuInit = { _ in 0 }
        table.cuDriverGetVersion = { version in
            version.pointee = 13_000
            return 0
        }
        table.cuDeviceGetCount = { count in
            count.pointee = 1
            return 0
        }
        table.cuDeviceGet = { device, ordinal in
            device.pointee = ordinal
            return 0
        }
        table.cuDeviceGetName = { name, capacity, _ in
            strncpy(name, "Quiet GPU", Int(capacity))
            return 0
        }
        table.cuDeviceTotalMem = { bytes, _ in
            bytes.pointee = 1 << 36
            return 0
        }
        table.cuDevicePrimaryCtxRetain = { context, _ in
            context.pointee = 77
            return 0
        }
        table.cuDevicePrimaryCtxRelease = { _ in 0 }
        table.cuCtxGetCurrent = { context in
            context.pointee = 0
            return 0
        }
        table.cuCtxPushCurrent = { _ in 0 }
        table.cuCtxPopCurrent = { _ in 0 }
        table.cuModuleLoadData = { module, _ in
            module.pointee = QuietDriver.handle()
            return 0
        }
        table.cuModuleUnload = { _ in 0 }
        table.cuModuleGetFunction = { function, module, _ in
            function.pointee = module
            return 0
        }
        table.cuFuncGetAttribute = { value, _, _ in
            value.pointee = 40
            return 0
        }
        table.cuFuncSetAttribute = { _, _, _ in 0 }
        table.cuFuncGetParamInfo = nil
        table.cuThreadExchangeStreamCaptureMode = { _ in 0 }
        table.cuTensorMapEncodeTiled = { _, _, _, _, _, _, _, _, _, _, _, _ in 0 }
        table.cuLaunchKernel = { _, _, _, _, _, _, _, _, stream, _, _ in QuietDriver.enqueue(stream) }
        table.cuLaunchKernelEx = { config, _, _, _ in QuietDriver.enqueue(config.pointee.stream) }
    }

    private static func addMemory(_ table: inout fi_driver_table) {
        table.cuMemPoolCreate = { pool, _ in
            pool.pointee = QuietDriver.handle()
            return 0
        }
        table.cuMemPoolDestroy = { _ in 0 }
        table.cuMemPoolSetAttribute = { _, _, _ in 0 }
        table.cuMemAllocFromPoolAsync = { address, bytes, _, stream in
            address.pointee = UInt64(QuietDriver.handle(bytes))
            return QuietDriver.enqueue(stream)
        }
        table.cuMemFreeAsync = { _, stream in QuietDriver.enqueue(stream) }
        table.cuMemHostAlloc = { memory, bytes, _ in
            memory.pointee = malloc(bytes)
            return 0
        }
        table.cuMemFreeHost = { memory in
            free(memory)
            return 0
        }
        table.cuMemcpyHtoDAsync = { _, source, bytes, stream in
            // The GPU reads, and so does the sanitizer's eye.
            var sum: UInt8 = 0
            for byte in UnsafeRawBufferPointer(start: source, count: bytes) { sum &+= byte }
            QuietDriver.sum.add(Int(sum), ordering: .relaxed)
            return QuietDriver.enqueue(stream)
        }
        table.cuMemcpyDtoHAsync = { destination, _, bytes, stream in
            memset(destination, 0, bytes)
            return QuietDriver.enqueue(stream)
        }
        table.cuMemsetD8Async = { _, _, _, stream in QuietDriver.enqueue(stream) }
    }

    private static func addStreams(_ table: inout fi_driver_table) {
        table.cuStreamCreate = { stream, _ in
            stream.pointee = QuietDriver.handle()
            return 0
        }
        table.cuStreamDestroy = { _ in 0 }
        table.cuStreamSynchronize = { stream in QuietDriver.enqueue(stream) }
        table.cuEventCreate = { event, _ in
            event.pointee = QuietDriver.handle()
            return 0
        }
        table.cuEventDestroy = { _ in 0 }
        table.cuEventRecord = { _, stream in QuietDriver.enqueue(stream) }
        table.cuEventQuery = { _ in 0 }
        table.cuEventSynchronize = { _ in 0 }
    }

    private static func addGraphs(_ table: inout fi_driver_table) {
        table.cuStreamBeginCapture = { stream, _ in
            let status = QuietDriver.enqueue(stream)
            QuietDriver.captured.store(stream, ordering: .relaxed)
            QuietDriver.capturer.store(UInt(pthread_self()), ordering: .relaxed)
            return status
        }
        table.cuStreamEndCapture = { _, graph in
            QuietDriver.capturer.store(0, ordering: .relaxed)
            graph.pointee = QuietDriver.handle()
            return 0
        }
        table.cuGraphInstantiate = { executable, _, _ in
            executable.pointee = QuietDriver.handle()
            return 0
        }
        table.cuGraphLaunch = { _, stream in
            // Only one graph is launched by several threads in these tests.
            if QuietDriver.launchers.add(1, ordering: .relaxed).newValue != 1 {
                QuietDriver.clashes.add(1, ordering: .relaxed)
            }
            sched_yield()
            QuietDriver.launchers.subtract(1, ordering: .relaxed)
            return QuietDriver.enqueue(stream)
        }
        table.cuGraphDestroy = { _ in 0 }
        table.cuGraphExecDestroy = { _ in 0 }
    }
}
