/// A weight matrix packed for one device's products: made by ``Device/makeWeights(_:)``, used by ``LinearOperation``.
public protocol DeviceWeights: AnyObject, Sendable {
    /// Output features N.
    var rows: Int { get }
    /// Input features K.
    var columns: Int { get }
    /// Bytes that a product reads.
    var byteCount: Int { get }
    /// Where the weights lie.
    var device: DeviceID { get }

    /// The type of inputs that a product takes as they are; every product also takes float32, and converts it where this is
    /// another type.
    var inputType: DType { get }

    /// `[N, K]`, stride 1 within a row: the weights as a plain tensor, of which ``EmbeddingOperation`` takes rows. `nil` where
    /// they are packed in some other way. Valid while the weights live.
    var table: TensorView? { get }
}

extension DeviceWeights {
    /// float32.
    public var inputType: DType { .float32 }

    /// `nil`: packed.
    public var table: TensorView? { nil }
}
