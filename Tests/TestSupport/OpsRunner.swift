public import FlashInferCore

/// A host tensor's copy where operations run.
public struct PlacedTensor {
    /// The image in host memory.
    public let host: OpsTensor
    /// The tensor where it is.
    public let view: TensorView
    private let download: () throws -> Void

    /// A copy at `view`, which `download` brings back to the image.
    public init(_ host: OpsTensor, view: TensorView, download: @escaping () throws -> Void) {
        (self.host, self.view, self.download) = (host, view, download)
    }

    /// The elements as they are now.
    @discardableResult
    public func fetch() throws -> [Double] {
        try download()
        return host.values
    }
}

/// Somewhere to run operations: a CPU's instruction set, or a GPU. The same checks run on all of them.
public final class OpsRunner {
    private let place: (OpsTensor) throws -> PlacedTensor
    private let execute: (Operation) throws -> Void
    /// The tensors of the check that runs: a view keeps no memory alive.
    private var kept: [PlacedTensor] = []

    /// A runner that puts tensors with `place` and runs validated operations with `execute`.
    public init(
        place: @escaping (OpsTensor) throws -> PlacedTensor, execute: @escaping (Operation) throws -> Void
    ) {
        (self.place, self.execute) = (place, execute)
    }

    /// A runner on a device whose memory is the host's.
    public static func host(_ device: any Device) -> OpsRunner {
        OpsRunner(place: { host in PlacedTensor(host, view: host.view) {} }, execute: { try device.execute($0) })
    }

    /// Starts a check: the tensors of the one before may go.
    func begin() { kept = [] }

    /// A tensor of values, or of poison. It lives until the next check.
    public func tensor(
        _ dtype: DType, _ shape: [Int], padding: Int = 0, lead: Int = 0, values: [Double] = []
    ) throws -> PlacedTensor {
        let tensor = try place(OpsTensor(dtype, shape, padding: padding, lead: lead, values: values))
        kept.append(tensor)
        return tensor
    }

    /// Validates and runs.
    public func run(_ operation: Operation) throws {
        try withExtendedLifetime(self) {
            try operation.validate()
            try execute(operation)
        }
    }
}

/// Where rows lie: elements after each row and before the first.
public struct OpsLayout: Sendable {
    /// Unused elements after each row.
    public var padding: Int
    /// Unused elements before the first row.
    public var lead: Int

    /// One after another; apart by whole vectors; apart by odd elements; off alignment from the start.
    public static let all = [(0, 0), (16, 0), (3, 0), (0, 1)].map { OpsLayout(padding: $0.0, lead: $0.1) }
}

/// Whether `found` is what `wanted` rounds to in `type`, give or take `slack` before the rounding. Saturating types saturate.
public func isRounded(_ found: Double, _ wanted: Double, _ type: DType, slack: Double) -> Bool {
    if wanted.isNaN { return found.isNaN || (type == .int8 && found == 0) }
    let limit = type.quantizedMagnitude.map(Double.init) ?? .infinity
    let low = Float(min(max(wanted - slack, type == .int8 ? -128 : -limit), limit))
    let high = Float(min(max(wanted + slack, type == .int8 ? -128 : -limit), limit))
    return found >= rounded(low, to: type) - (type == .float32 ? Double(low.ulp) : 0)
        && found <= rounded(high, to: type) + (type == .float32 ? Double(high.ulp) : 0)
}
