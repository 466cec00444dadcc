/// One thing a device can do, as a value: what to compute, on which tensors.
///
/// A device's `execute(_:)` takes it, a ``RecordingDevice`` keeps it for a test to look at.
public enum Operation: Sendable {
    /// Attention of a planned batch.
    case attention(AttentionOperation)
}
