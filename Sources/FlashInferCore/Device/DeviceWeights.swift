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
}
