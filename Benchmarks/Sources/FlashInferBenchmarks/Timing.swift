import CCeilings
import FlashInfer
import Foundation

/// Seconds of `runs` calls of `body`, after one that is not counted.
func time(runs: Int, _ body: () throws -> Void) rethrows -> [Double] {
    try body()
    return try (0..<runs).map { _ in try time(once: body) }
}

extension [Double] {
    /// The middle value.
    var median: Double {
        let ordered = sorted()
        return count % 2 == 1 ? ordered[count / 2] : (ordered[count / 2 - 1] + ordered[count / 2]) / 2
    }
}

/// What this machine can do at most, with all threads at once, measured now.
struct Ceilings: Codable {
    /// float32 fused multiply-adds, GFLOP/s.
    var fma32: Double
    /// bfloat16 dot products, GFLOP/s; 0 where there are none.
    var bf16: Double
    /// Reads from memory, GB/s.
    var read: Double

    /// The best of several tries: a ceiling is what is possible.
    static func measure(on device: CPUDevice) throws -> Ceilings {
        let threads = device.limits.processors
        let pool = ThreadPool(threads: threads)
        let loops: Int64 = 20_000_000
        let bytesPerThread = (512 << 20) / threads / 512 * 512
        // Memory as tensors have it, on huge pages where the system gives them.
        let memory = try DeviceBuffer(on: device, dtype: .uint8, shape: [bytesPerThread * threads])
        try device.fill(memory.region, with: 1)
        nonisolated(unsafe) let base = UnsafeRawPointer(memory.view.pointer!)
        func best(_ tries: Int, _ work: Double, _ body: (Int) -> Void) -> Double {
            if work == 0 { return 0 }
            return work / (time(runs: tries) { pool.run(body) }.min() ?? .infinity) / 1e9
        }
        let count = Double(threads)
        return Ceilings(
            fma32: best(4, count * ceiling_fma32_operations(loops)) { _ in consume(ceiling_fma32(loops)) },
            bf16: best(4, count * ceiling_bf16_dot_operations(loops)) { _ in consume(ceiling_bf16_dot(loops)) },
            read: best(12, Double(bytesPerThread * threads)) { worker in
                consume(ceiling_read(base + worker * bytesPerThread, Int64(bytesPerThread)))
            })
    }
}

/// Reads all of `region` on all threads, as fast as memory gives it.
func readAll(_ region: MemoryRegion, _ pool: ThreadPool) {
    let count = region.byteCount / pool.threads / 512 * 512
    pool.run { worker in
        consume(
            ceiling_read(UnsafeRawPointer(bitPattern: region.address + UInt(worker * count)), Int64(count)))
    }
}

/// Seconds of `body` and of `reference`, in turn: `runs` pairs after one that is not counted. On a machine whose memory is
/// shared with others, only what was measured side by side can be compared.
func timePairs(
    runs: Int, _ body: () throws -> Void, reference: () -> Void
) rethrows -> [(body: Double, reference: Double)] {
    _ = try time(runs: 1) { try body() }
    return try (0..<runs).map { _ in
        let first = time(once: reference)
        let middle = try time(once: body)
        return (middle, (first + time(once: reference)) / 2)
    }
}

/// Seconds of one call.
func time(once body: () throws -> Void) rethrows -> Double { try ContinuousClock().measure(body).inSeconds }

extension Duration {
    /// As a number of seconds.
    var inSeconds: Double { Double(components.seconds) + Double(components.attoseconds) * 1e-18 }
}

/// Keeps a result from being optimised away.
@inline(never)
func consume<T>(_ value: T) {}
