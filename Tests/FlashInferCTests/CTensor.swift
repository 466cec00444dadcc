import CFlashInfer
import FlashInferCore
import Synchronization
import TestSupport
import Testing

/// A tensor as a caller in C has it. It is kept to the process's end, so that no pointer of a test outlives it.
final class CTensor: @unchecked Sendable {
    // Unchecked: a test hands it to one call at a time, or to calls that only read it.

    let pointer: UnsafeMutablePointer<fi_tensor>
    private let shape: UnsafeMutablePointer<Int64>
    private let strides: UnsafeMutablePointer<Int64>
    private let owner: AnyObject?

    private static let kept = Mutex<[CTensor]>([])

    /// The tensor that a view is; `owner` is kept with it.
    init(_ view: TensorView, keeping owner: AnyObject? = nil) {
        pointer = .allocate(capacity: 1)
        shape = .allocate(capacity: max(view.rank, 1))
        strides = .allocate(capacity: max(view.rank, 1))
        self.owner = owner
        for dimension in 0..<view.rank {
            shape[dimension] = Int64(view.shape[dimension])
            strides[dimension] = Int64(view.strides[dimension])
        }
        pointer.initialize(
            to: fi_tensor(
                data: UnsafeMutableRawPointer(bitPattern: view.region.address), device: view.device.dl,
                ndim: Int32(view.rank), dtype: view.dtype.dl, shape: shape, strides: strides,
                byte_offset: UInt64(view.byteOffset)))
        Self.kept.withLock { $0.append(self) }
    }

    /// An int32 vector in host memory.
    convenience init(_ values: [Int32]) {
        let memory = UnsafeMutableBufferPointer<Int32>.allocate(capacity: max(values.count, 1))
        _ = memory.initialize(from: values)
        // The sizes are what they are, so no check can fail.
        let view = try! TensorView(
            MemoryRegion(UnsafeRawBufferPointer(start: memory.baseAddress, count: 4 * values.count)), dtype: .int32,
            shape: [values.count])
        self.init(view)
    }

    /// The int32 values that a vector in host memory holds.
    var int32: [Int32] {
        let count = (0..<Int(pointer.pointee.ndim)).reduce(1) { $0 * Int(shape[$1]) }
        return Array(
            UnsafeBufferPointer(start: pointer.pointee.data?.assumingMemoryBound(to: Int32.self), count: count))
    }
}

extension OpsTensor {
    /// The tensor as a caller in C has it.
    var c: UnsafeMutablePointer<fi_tensor> { CTensor(view, keeping: self).pointer }
}

extension TensorView {
    /// The tensor as a caller in C has it; whoever owns the memory keeps it.
    var c: UnsafeMutablePointer<fi_tensor> { CTensor(self).pointer }
}

extension [Int32] {
    /// A vector in host memory as a caller in C has it.
    var c: UnsafeMutablePointer<fi_tensor> { CTensor(self).pointer }
}

extension DeviceID {
    var dl: fi_dl_device {
        switch self {
        case .cpu, .recording: fi_dl_device(device_type: Int32(FI_CPU), device_id: 0)
        case .cuda(let ordinal): fi_dl_device(device_type: Int32(FI_CUDA), device_id: Int32(ordinal))
        }
    }
}

extension DType {
    var dl: fi_data_type {
        switch self {
        case .float32: fi_data_type(code: UInt8(FI_FLOAT), bits: 32, lanes: 1)
        case .float16: fi_data_type(code: UInt8(FI_FLOAT), bits: 16, lanes: 1)
        case .bfloat16: fi_data_type(code: UInt8(FI_BFLOAT), bits: 16, lanes: 1)
        case .float8E4M3: fi_data_type(code: UInt8(FI_FLOAT8_E4M3FN), bits: 8, lanes: 1)
        case .float8E5M2: fi_data_type(code: UInt8(FI_FLOAT8_E5M2), bits: 8, lanes: 1)
        case .int8: fi_data_type(code: UInt8(FI_INT), bits: 8, lanes: 1)
        case .uint8: fi_data_type(code: UInt8(FI_UINT), bits: 8, lanes: 1)
        case .int32: fi_data_type(code: UInt8(FI_INT), bits: 32, lanes: 1)
        }
    }
}
