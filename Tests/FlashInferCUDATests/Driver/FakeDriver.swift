import CCUDA
import FlashInferCUDA
import Foundation
import Synchronization

/// A driver made of Swift functions: device memory is host memory, streams are lists of work, launches are written down.
///
/// Work waits in its stream until somebody waits for it, as on a GPU that is far behind, so that what is overwritten too early or
/// freed too early shows. C functions carry no context, so there is one fake at a time: tests use it inside ``with(_:)``.
final class FakeDriver: Sendable {
    /// One kernel launch.
    struct Map: Equatable {
        var extents: [UInt64]
        var strides: [UInt64]
        var box: [UInt32]
    }

    struct Launch: Equatable {
        var function: UInt
        var grid: [UInt32]
        var threads: UInt32
        var sharedByteCount: UInt32
        var stream: UInt
        var parameter: [UInt8]
        /// Whether it may start before what was enqueued earlier is done.
        var startsEarly = false
    }

    enum Work {
        case copy(from: UnsafeRawPointer, to: UInt64, byteCount: Int)
        case set(UInt64, UInt8, Int)
        case launch(Launch)
        case event(UInt)
        case graph(UInt)
        case free(UInt64)
    }

    struct State {
        /// Calls by name.
        var calls: [String: Int] = [:]
        /// Statuses that the next calls of a name return, once each.
        var failures: [String: [Int32]] = [:]
        var launches: [Launch] = []
        /// Handles alive, by what they are.
        var live: [String: Set<UInt>] = [:]
        var nextHandle: UInt = 1000
        var contextStack: [UInt: [UInt]] = [:]
        var pending: [Work] = []
        var passedEvents: Set<UInt> = []
        var recordedEvents: Set<UInt> = []
        /// The tensor maps made: extents, strides of all dimensions but the first in bytes, and boxes.
        var maps: [Map] = []
        var capture: [Work]?
        /// 0 global, 1 of this thread, 2 relaxed: of the thread that asks.
        var captureMode: Int32 = 0
        /// Whether calls that are no work of a stream would end a capture.
        var isCaptureUnsafe: Bool { capture != nil && captureMode != 2 }
        var graphs: [UInt: [Work]] = [:]
        var deviceBytes: [UInt64: Int] = [:]
        var capability: (Int32, Int32) = (9, 0)
        var version: Int32 = 13_000
        var deviceCount: Int32 = 1
        var parameterByteCount = 16
        /// The same for launches of so many threads.
        var parameterByteCounts: [UInt32: Int] = [:]
        var streamContext: UInt?
        var freeMemory = 1 << 30
        var imageCount = 0
        /// Whether work runs as it is enqueued.
        var isEager = false
    }

    let state = Mutex(State())

    nonisolated(unsafe) static var current = FakeDriver()
    private static let turn = Mutex(())
    static let context: UInt = 77
    static let function: UInt = 4242

    /// Calls `body` with a fresh driver, which is the only one meanwhile.
    static func with<R>(_ body: (FakeDriver) throws -> R) rethrows -> R {
        try turn.withLock { _ in
            current = FakeDriver()
            return try body(current)
        }
    }

    /// Looks at the state.
    func read<T: Sendable>(_ body: (State) -> T) -> T { state.withLock { body($0) } }

    /// Sets things up.
    func change(_ body: (inout State) -> Void) { state.withLock { body(&$0) } }

    /// How often a function was called.
    func count(_ call: String) -> Int { state.withLock { $0.calls[call] ?? 0 } }

    /// All calls so far.
    var totalCalls: Int { state.withLock { $0.calls.values.reduce(0, +) } }

    /// Makes the next call of a function return a status.
    func fail(_ call: String, _ status: Int, times: Int = 1) {
        state.withLock { $0.failures[call, default: []] += Array(repeating: Int32(status), count: times) }
    }

    /// Handles of a kind that were made and not destroyed.
    func live(_ kind: String) -> Int { state.withLock { $0.live[kind]?.count ?? 0 } }

    /// The driver as the library sees it.
    func driver() throws -> CUDADriver { try CUDADriver(functions: Self.table(), path: "fake") }

    /// A device on it, with a source that compiles nothing.
    func device(stream: UInt? = nil, source: CubinSource? = nil) throws -> CUDADevice {
        try CUDADevice(driver: driver(), stream: stream, source: source)
    }
}

/// Counts a call and runs it, unless it was told to fail. At file scope, as C functions may capture nothing, not even a type.
func fakeCall(_ name: String, _ body: (inout FakeDriver.State) -> Int32 = { _ in 0 }) -> Int32 {
    FakeDriver.current.state.withLock { state in
        state.calls[name, default: 0] += 1
        if var failures = state.failures[name], !failures.isEmpty {
            let status = failures.removeFirst()
            state.failures[name] = failures
            return status
        }
        return body(&state)
    }
}

extension FakeDriver.State {
    mutating func make(_ kind: String, _ result: UnsafeMutablePointer<UInt>) -> Int32 {
        nextHandle += 1
        live[kind, default: []].insert(nextHandle)
        result.pointee = nextHandle
        return 0
    }

    mutating func destroy(_ kind: String, _ handle: UInt) -> Int32 {
        live[kind]?.remove(handle) == nil ? 400 : 0
    }

    mutating func enqueue(_ work: FakeDriver.Work) -> Int32 {
        if capture != nil {
            capture?.append(work)
        } else {
            pending.append(work)
            if isEager { runAll() }
        }
        return 0
    }

    /// Runs what is pending, to an event or to the end.
    mutating func runAll(until event: UInt? = nil) {
        while !pending.isEmpty {
            let work = pending.removeFirst()
            run(work)
            if case .event(let handle) = work, handle == event { return }
        }
    }

    private mutating func run(_ work: FakeDriver.Work) {
        switch work {
        case .copy(let source, let address, let byteCount):
            UnsafeMutableRawPointer(bitPattern: UInt(address))!.copyMemory(from: source, byteCount: byteCount)
        case .set(let address, let byte, let byteCount):
            memset(UnsafeMutableRawPointer(bitPattern: UInt(address))!, Int32(byte), byteCount)
        case .launch(let launch): launches.append(launch)
        case .event(let handle): passedEvents.insert(handle)
        case .graph(let handle): for work in graphs[handle] ?? [] { run(work) }
        case .free(let address):
            deviceBytes[address] = nil
            free(UnsafeMutableRawPointer(bitPattern: UInt(address)))
        }
    }

    mutating func allocate(_ byteCount: Int, _ address: UnsafeMutablePointer<UInt64>) -> Int32 {
        guard byteCount > 0 else { return 1 }
        guard deviceBytes.values.reduce(0, +) + byteCount <= freeMemory else { return 2 }
        var memory: UnsafeMutableRawPointer?
        guard posix_memalign(&memory, 256, byteCount) == 0, let memory else { return 2 }
        // As wrong as memory can be.
        memset(memory, 0xA5, byteCount)
        address.pointee = UInt64(UInt(bitPattern: memory))
        deviceBytes[address.pointee] = byteCount
        return 0
    }

    var currentContext: UInt { contextStack[UInt(pthread_self())]?.last ?? 0 }

    mutating func push(_ context: UInt) { contextStack[UInt(pthread_self()), default: []].append(context) }

    mutating func pop() -> Int32 {
        contextStack[UInt(pthread_self())]?.popLast() == nil ? 201 : 0
    }

    /// What a call that needs a context returns without one.
    func requireContext() -> Int32 { currentContext == FakeDriver.context ? 0 : 201 }
}
