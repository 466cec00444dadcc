/// Which device a piece of memory or a plan belongs to.
public enum DeviceID: Hashable, Sendable {
    /// The host's processors and memory.
    case cpu
    /// The CUDA device with this ordinal.
    case cuda(Int)
    /// A ``RecordingDevice``, which has an address space but no memory behind it.
    case recording
}

extension DeviceID: CustomStringConvertible {
    /// The text shown to people.
    public var description: String {
        switch self {
        case .cpu: "cpu"
        case .cuda(let ordinal): "cuda:\(ordinal)"
        case .recording: "recording"
        }
    }
}
