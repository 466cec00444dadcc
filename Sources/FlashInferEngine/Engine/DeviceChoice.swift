public import FlashInfer

/// Where a model is to run, as a user says it.
///
/// ```swift
/// let device = try DeviceChoice("auto")!.makeDevice()
/// ```
public enum DeviceChoice: Hashable, Sendable {
    /// The first GPU where that can run a model, else the CPU.
    case automatic
    /// The CPU.
    case cpu
    /// The GPU with this number.
    case cuda(Int)

    /// The choice with this name: "auto", "cpu", "cuda" (the first GPU) or "cuda:N".
    public init?(_ name: String) {
        switch name {
        case "auto": self = .automatic
        case "cpu": self = .cpu
        case "cuda": self = .cuda(0)
        default:
            guard name.hasPrefix("cuda:") else { return nil }
            let digits = name.dropFirst("cuda:".count)
            guard digits.allSatisfy({ ("0"..."9").contains($0) }), let ordinal = Int(digits) else { return nil }
            self = .cuda(ordinal)
        }
    }

    /// The device.
    ///
    /// - Parameter threads: threads of the CPU; `nil` for all processors this process may use. At least 1.
    /// - Throws: ``FlashInferError`` that says what is missing, where a GPU was asked for and cannot run a model.
    public func makeDevice(threads: Int? = nil) throws(FlashInferError) -> any Device {
        switch self {
        case .cpu: return CPUDevice(threads: threads)
        case .cuda(let ordinal): return try Self.usable(Devices.make(named: "cuda:\(ordinal)"))
        case .automatic:
            do throws(FlashInferError) {
                return try Self.usable(Devices.make(named: "cuda:0"))
            } catch {
                return CPUDevice(threads: threads)
            }
        }
    }

    /// A device that has the matrix products of a model, too.
    private static func usable(_ device: any Device) throws(FlashInferError) -> any Device {
        try (device as? CUDADevice)?.requireProducts()
        return device
    }
}
