/// One thing a device can do, as a value: what to compute, on which tensors.
///
/// A device's `execute(_:)` takes it, a ``RecordingDevice`` keeps it for a test to look at.
public enum Operation: Sendable {
    /// Attention of a planned batch.
    case attention(AttentionOperation)
    /// A product with packed weights.
    case linear(LinearOperation)
}

extension Operation {
    /// Checks every tensor and parameter; see each operation for what it throws.
    public func validate() throws(FlashInferError) {
        switch self {
        case .attention(let operation): try operation.validate()
        case .linear(let operation): try operation.validate()
        }
    }
}
