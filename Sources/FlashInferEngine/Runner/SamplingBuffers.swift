internal import FlashInfer
internal import Synchronization

/// What sampling needs beside a step's activations: made when a request first asks for it, and kept.
final class SamplingBuffers: Sendable {
    private struct Content {
        /// Tokens that penalties look at, `[…]`, int32.
        var history: SharedTensor?
        /// `[samples, vocabulary]`: logits before penalties change them.
        var ownLogits: SharedTensor?
        /// `[samples]`, float32.
        var logProbabilities: SharedTensor?
        /// `[samples]`, uint8: the statuses of log-probabilities.
        var status: SharedTensor?
    }

    private let device: any Device
    private let samples: Int
    private let content = Mutex(Content())

    init(samples: Int, on device: any Device) {
        self.samples = samples
        self.device = device
    }

    /// A copy of `tokens` on the device, which stays until the next.
    func history(_ tokens: [Int32]) throws(FlashInferError) -> TensorView {
        try content.withLock { (content) throws(FlashInferError) in
            if let history = content.history, history.view.shape[0] < tokens.count { content.history = nil }
            // Some more than asked for: a request has one token more at each step.
            let view = try ready(&content.history, .int32, [max(1024, tokens.count + tokens.count / 2)])
                .slice(0..<tokens.count)
            try device.write(tokens, to: view)
            return view
        }
    }

    /// A copy of `logits`, which stays until the next.
    func copy(of logits: TensorView) throws(FlashInferError) -> TensorView {
        try content.withLock { (content) throws(FlashInferError) in
            let copy = try ready(&content.ownLogits, logits.dtype, [samples, logits.shape[1]])
                .slice(0..<logits.shape[0])
            try device.run(.add(AddOperation(first: logits, second: nil, output: copy, alpha: 1, beta: 0)))
            return copy
        }
    }

    /// Where `count` log-probabilities and their statuses go.
    func logProbabilities(_ count: Int) throws(FlashInferError) -> (values: TensorView, status: TensorView) {
        try content.withLock { (content) throws(FlashInferError) in
            let values = try ready(&content.logProbabilities, .float32, [samples])
            let status = try ready(&content.status, .uint8, [samples])
            return (values.slice(0..<count), status.slice(0..<count))
        }
    }

    /// What is there, or now is.
    private func ready(
        _ memory: inout SharedTensor?, _ dtype: DType, _ shape: Shape
    ) throws(FlashInferError) -> TensorView {
        if let memory { return memory.view }
        let fresh = try SharedTensor(DeviceBuffer(on: device, dtype: dtype, shape: shape))
        memory = fresh
        return fresh.view
    }
}
