import FlashInfer
import FlashInferCUDA
import FlashInferCore
import TestSupport
import Testing

/// The GPU of the operations' tests, where there is one.
enum OpsGPU {
    static let device: CUDADevice? = try? CUDADevice()
    static let isThere = device != nil

    static func require() throws -> CUDADevice { try #require(device) }
}

/// The GPU's memory of one test, freed at its end: a view keeps no memory alive, so each suite has one of these for its tensors.
final class GPUScope {
    private var regions: [MemoryRegion] = []
    private let own: CUDADevice?

    /// Memory of the device that all tests share, or of one that a test has to itself: nobody else may use a device that captures.
    init(on device: CUDADevice? = nil) { own = device }

    /// A tensor of undefined (poisoned) content.
    func tensor(_ dtype: DType, _ shape: [Int], padding: Int = 0, lead: Int = 0) throws -> GPUTensor {
        try tensor(OpsTensor(dtype, shape, padding: padding, lead: lead))
    }

    /// A tensor of values rounded to its type.
    func tensor(
        _ dtype: DType, _ shape: [Int], padding: Int = 0, lead: Int = 0, values: [Double]
    ) throws -> GPUTensor {
        try tensor(OpsTensor(dtype, shape, padding: padding, lead: lead, values: values))
    }

    /// A copy of a host tensor.
    func tensor(_ host: OpsTensor) throws -> GPUTensor {
        let device = try own ?? OpsGPU.require()
        let region = try device.allocate(byteCount: host.bytes.count)
        regions.append(region)
        try device.upload(UnsafeRawBufferPointer(host.bytes), to: region)
        return GPUTensor(
            device: device, host: host,
            view: try TensorView(
                region, byteOffset: host.view.byteOffset, dtype: host.view.dtype, shape: host.view.shape,
                strides: host.view.strides))
    }

    deinit { for region in regions { (own ?? OpsGPU.device)?.deallocate(region) } }
}

/// A tensor on the GPU whose every unused byte is poison, with its image in host memory.
struct GPUTensor {
    /// Where it is.
    let device: CUDADevice
    /// The image: what was uploaded, and after ``fetch()`` what the GPU holds.
    let host: OpsTensor
    /// The tensor on the GPU.
    let view: TensorView

    /// The elements, as they are on the GPU now.
    @discardableResult
    func fetch() throws -> [Double] {
        try device.download(view.region, to: host.bytes)
        return host.values
    }

    /// The elements' bits, as fetched.
    var bits: [UInt32] { (0..<host.count).map(host.bits) }
}

/// Validates and runs an operation on the GPU.
func runOnGPU(_ operation: FlashInferCore.Operation) throws {
    try operation.validate()
    try OpsGPU.require().execute(operation)
}

extension OpsRunner {
    /// A runner on the GPU that all tests share, whose tensors live as long as the runner and `scope` do.
    static func gpu(_ scope: GPUScope) -> OpsRunner {
        OpsRunner(
            place: { host in
                let tensor = try scope.tensor(host)
                return PlacedTensor(host, view: tensor.view) { try tensor.fetch() }
            }, execute: { try OpsGPU.require().execute($0) })
    }
}

/// Types of two inputs and an output.
struct GPUTypes: Sendable, CustomTestStringConvertible {
    var first: DType
    var second: DType
    var output: DType

    static let all: [GPUTypes] = [
        GPUTypes(first: .float32, second: .float32, output: .float32),
        GPUTypes(first: .float16, second: .float16, output: .float16),
        GPUTypes(first: .bfloat16, second: .bfloat16, output: .bfloat16),
        GPUTypes(first: .bfloat16, second: .float32, output: .float16),
    ]

    var testDescription: String { "\(first), \(second) to \(output)" }
}

/// Where rows lie: elements after each row and before the first.
struct GPULayout: Sendable, CustomTestStringConvertible {
    var padding = 0
    var lead = 0

    /// One after another; apart by whole vectors; apart by odd elements; off alignment from the start.
    static let all = [GPULayout(), GPULayout(padding: 16), GPULayout(padding: 3), GPULayout(padding: 0, lead: 1)]

    var testDescription: String { "padding \(padding), lead \(lead)" }
}
