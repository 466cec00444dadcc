import CCeilings
import FlashInfer

/// How GPU work is timed: graphs of several launches, replayed; inputs rotate past the L2 cache.
///
/// The same rules as in Peers/flashinfer_peer.py, so that the two are timed alike.
enum CUDATiming {
    /// Rotation outruns the L2 cache of any GPU of today.
    static let rotationByteCount = 256 << 20
    /// A replay lasts about this long, so that its launch and the wait for it are lost in it.
    static let replaySeconds = 0.02
    static let maximumLaunches = 400

    /// Sets of inputs of `byteCount` bytes each that outrun the cache.
    static func setCount(_ byteCount: Int) -> Int { max(1, (rotationByteCount + byteCount - 1) / byteCount) }

    struct Result {
        var seconds: Double
        var launches: Int
        /// The slowest replay over the fastest.
        var spread: Double
    }

    /// Seconds of one launch of `body`, which is given the number of a set of inputs.
    static func measure(
        on device: any Device, sets: Int, samples: Int, _ body: (Int) throws(FlashInferError) -> Void
    ) throws -> Result {
        for set in 0..<min(sets, 3) { try body(set) }
        try device.synchronize()
        let estimate =
            try time {
                for launch in 0..<4 { try body(launch % sets) }
                try device.synchronize()
            } / 4
        let launches = max(sets, min(maximumLaunches, Int((replaySeconds / estimate).rounded(.up))))
        let recorded = try device.capture { () throws(FlashInferError) in
            for launch in 0..<launches { try body(launch % sets) }
        }
        guard let graph = recorded else {
            throw FlashInferError.unsupported("graphs", device: device.name, nearest: "a CUDA device")
        }
        for _ in 0..<2 { try graph.replay() }
        try device.synchronize()
        let times = try (0..<samples).map { _ in
            try time {
                try graph.replay()
                try device.synchronize()
            }
        }
        return Result(
            seconds: times.median / Double(launches), launches: launches,
            spread: (times.max() ?? 0) / (times.min() ?? 1))
    }
}

extension Device {
    /// Fails where a bfloat16 output has infinities or NaNs. A figure for wrong results is worth nothing; whether they are right is the
    /// tests' business.
    func requireFinite(_ output: TensorView, of call: String) throws(FlashInferError) {
        let elements: [BFloat16] = try read(output)
        guard elements.allSatisfy({ Float($0).isFinite }) else {
            throw .deviceFailure(call: call, message: "the output is not finite")
        }
    }
}

/// What the GPU can do at most, measured now. The matrix product is the peer script's, by PyTorch.
struct CUDACeilings: Codable {
    /// GB/s, bytes read and written.
    var copy: Double
    /// GB/s
    var read: Double

    static func measure() -> CUDACeilings {
        let rates = ceiling_cuda_measure(2 << 30, 5)
        return CUDACeilings(copy: rates.copy, read: rates.read)
    }
}

/// What the driver says of the GPU.
struct GPUStatus {
    var name: String
    var freeByteCount: Int

    /// Starts the driver and its context where nobody has.
    ///
    /// - Throws: an error that says why there is no GPU.
    static func look() throws -> GPUStatus {
        let found = ceiling_cuda_look()
        func text<T>(_ characters: T) -> String {
            withUnsafeBytes(of: characters) { bytes in
                String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
            }
        }
        guard found.is_present else {
            throw FlashInferError.deviceFailure(call: "starting the GPU", message: text(found.message))
        }
        return GPUStatus(name: text(found.name), freeByteCount: found.free_bytes)
    }
}
