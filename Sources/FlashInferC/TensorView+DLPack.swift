internal import CFlashInfer
internal import FlashInferCore

/// What a tensor's elements may be, for those that are not numbers in a cache.
enum ElementKind {
    /// Any type that tensors here have.
    case number
    /// int32.
    case index
    /// uint8, or bool taken as such.
    case bits
}

extension TensorView {
    /// More bytes than any processor addresses. A tensor that claims more is wrong, and sums of its sizes could overflow later on.
    private static let addressSpace = 1 << 57

    /// A caller's tensor as it lies, on `device`; nothing is copied.
    ///
    /// - Throws: ``FlashInferError`` that names the tensor, for NULL, a type or device that is not taken, more than five dimensions,
    ///   negative extents or strides, sizes that overflow, and elements that are not aligned to their size.
    init(
        _ tensor: UnsafePointer<fi_tensor>?, _ name: String, on device: DeviceID, _ kind: ElementKind = .number
    ) throws(FlashInferError) {
        let tensor = try required(tensor, name)
        guard try tensor.pointee.place(name, near: device) == device else {
            throw .invalidArgument(
                name, found: "on \(try tensor.pointee.place(name, near: device))", expected: "on \(device)")
        }
        try self.init(anywhere: tensor, name, device, kind)
    }

    /// A caller's tensor, or `nil` for NULL.
    init?(
        optional tensor: UnsafePointer<fi_tensor>?, _ name: String, on device: DeviceID, _ kind: ElementKind = .number
    ) throws(FlashInferError) {
        guard let tensor else { return nil }
        try self.init(tensor, name, on: device, kind)
    }

    /// A caller's tensor that was found to be on `device`.
    init(
        anywhere tensor: UnsafePointer<fi_tensor>, _ name: String, _ device: DeviceID, _ kind: ElementKind
    ) throws(FlashInferError) {
        let dtype = try tensor.pointee.elementType(name, kind)
        let (shape, strides) = try tensor.pointee.layout(name)
        // The memory is as large as the tensor says: from its first element to the last that its strides reach.
        guard let span = shape.span(strides: strides),
            case (let bytes, false) = span.multipliedReportingOverflow(by: dtype.byteCount)
        else { throw .overflow("\(name) strides") }
        let (start, carry) = UInt(bitPattern: tensor.pointee.data).addingReportingOverflow(
            UInt(tensor.pointee.byte_offset))
        guard !carry, tensor.pointee.byte_offset <= Int.max, bytes <= Self.addressSpace else {
            throw .invalidArgument(
                name, found: "of \(bytes) bytes at byte offset \(tensor.pointee.byte_offset)",
                expected: "inside a processor's address space")
        }
        let isEmpty = (0..<shape.rank).contains { shape[$0] == 0 }
        guard isEmpty || tensor.pointee.data != nil else {
            throw .invalidArgument("\(name) data", found: "NULL", expected: "memory, as shape \(shape) has elements")
        }
        guard start % UInt(dtype.byteCount) == 0 else {
            throw .invalidArgument(
                "\(name) address", found: "0x" + String(start, radix: 16), expected: "a multiple of \(dtype.byteCount)")
        }
        try self.init(
            MemoryRegion(address: start, byteCount: isEmpty ? 0 : bytes, device: device), dtype: dtype, shape: shape,
            strides: strides, name: name)
    }
}

extension fi_tensor {
    /// Where the tensor's memory is.
    func place(_ name: String, near callDevice: DeviceID) throws(FlashInferError) -> DeviceID {
        switch Int(device.device_type) {
        case FI_CPU, FI_CUDA_HOST: return .cpu
        case FI_CUDA: return .cuda(Int(device.device_id))
        case FI_CUDA_MANAGED: return callDevice
        default:
            throw .invalidArgument(
                "\(name) device", found: "DLPack's type \(device.device_type)",
                expected: "the CPU (1), CUDA (2), CUDA's pinned (3) or managed memory (13)")
        }
    }

    func elementType(_ name: String, _ kind: ElementKind) throws(FlashInferError) -> DType {
        let found = DType(dtype)
        switch kind {
        case .number:
            if let found { return found }
            throw .invalidArgument(
                name, found: dtype.text,
                expected: "float32, float16, bfloat16, float8-e4m3fn, float8-e5m2, int8, uint8 or int32")
        case .index:
            if found == .int32 { return .int32 }
            throw .invalidArgument(name, found: dtype.text, expected: "int32")
        case .bits:
            if found == .uint8 || dtype.isBool { return .uint8 }
            throw .invalidArgument(name, found: dtype.text, expected: "uint8 or bool")
        }
    }

    /// Extents and strides.
    func layout(_ name: String) throws(FlashInferError) -> (shape: Shape, strides: Shape) {
        guard ndim >= 0, Int(ndim) <= Shape.maximumRank else {
            throw .invalidArgument("\(name) dimensions", found: "\(ndim)", expected: "at most \(Shape.maximumRank)")
        }
        let rank = Int(ndim)
        var extents = Shape(repeating: 0, rank: rank)
        guard rank == 0 || shape != nil else {
            throw .invalidArgument("\(name) shape", found: "NULL", expected: "\(rank) extents")
        }
        for dimension in 0..<rank {
            let extent = Int(shape[dimension])
            guard extent >= 0 else {
                throw .invalidArgument("\(name) shape[\(dimension)]", found: "\(extent)", expected: "0 or more")
            }
            extents[dimension] = extent
        }
        // Of a tensor without elements no stride means anything: NumPy's are 0.
        let isEmpty = (0..<rank).contains { extents[$0] == 0 }
        guard let strides, !isEmpty else {
            guard let rowMajor = extents.contiguousStrides else { throw .overflow("\(name) shape") }
            return (extents, rowMajor)
        }
        var steps = Shape(repeating: 0, rank: rank)
        // The elements that the dimensions further in take up.
        var span = 1
        for dimension in (0..<rank).reversed() {
            // An extent of 1 takes no steps, and frameworks leave any stride there. It gets that of a contiguous tensor.
            guard extents[dimension] > 1 else {
                steps[dimension] = span
                continue
            }
            let stride = Int(strides[dimension])
            guard stride >= 0 else {
                throw .invalidArgument("\(name) strides[\(dimension)]", found: "\(stride)", expected: "0 or more")
            }
            steps[dimension] = stride
            let (reach, overflow) = stride.multipliedReportingOverflow(by: extents[dimension])
            guard !overflow else { throw .overflow("\(name) strides") }
            span = max(span, reach)
        }
        return (extents, steps)
    }
}
