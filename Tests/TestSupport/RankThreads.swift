internal import CRanks
import Foundation
import Synchronization

/// Runs `body` once for each of some values, each on a thread of its own; a task would hold a thread that others wait for.
///
/// - Returns: the results in order.
/// - Throws: the first thread's error, in order.
package func onThreads<Value: Sendable, Result: Sendable>(
    _ values: [Value], _ body: @escaping @Sendable (Value) throws -> Result
) throws -> [Result] {
    try outcomes(values, body).map { try $0.get() }
}

/// The same with what each thread threw.
package func outcomes<Value: Sendable, Result: Sendable>(
    _ values: [Value], _ body: @escaping @Sendable (Value) throws -> Result
) -> [Swift.Result<Result, any Error>] {
    let results = Results<Result>(count: values.count)
    let done = DispatchSemaphore(value: 0)
    for (index, value) in values.enumerated() {
        Thread.detachNewThread {
            results.set(index, Swift.Result { try body(value) })
            done.signal()
        }
    }
    for _ in values { done.wait() }
    return results.all
}

/// Starts `body` once for each of some values, each on a thread of its own, and waits for none of them.
package func startThreads<Value: Sendable>(_ values: [Value], _ body: @escaping @Sendable (Value) -> Void) {
    for value in values { Thread.detachNewThread { body(value) } }
}

/// Blocks the thread.
package func pause(seconds: Double) { Thread.sleep(forTimeInterval: seconds) }

private final class Results<Value: Sendable>: Sendable {
    private let results: Mutex<[Swift.Result<Value, any Error>?]>

    init(count: Int) { results = Mutex([Swift.Result<Value, any Error>?](repeating: nil, count: count)) }

    func set(_ index: Int, _ result: Swift.Result<Value, any Error>) { results.withLock { $0[index] = result } }

    var all: [Swift.Result<Value, any Error>] { results.withLock { $0.map { $0! } } }
}

/// A port of this machine that was free a moment ago, another one at each call.
package func freePort() -> Int {
    var port: UInt16 = 0
    let socket = fi_socket_listen("127.0.0.1", 0, &port)
    if socket >= 0 { fi_socket_close(socket) }
    return Int(port)
}
