/// A strided, typed window on device memory that somebody else owns.
///
/// A view knows the whole region that it may touch (`region`), so that every operation can check, before it runs,
/// that no element it addresses is outside. Views are values: slicing and transposing make new views and move no data.
///
/// ```swift
/// let buffer = try DeviceBuffer(on: device, dtype: .float32, shape: [6])
/// let matrix = try TensorView(buffer.region, dtype: .float32, shape: [2, 3])
/// matrix.strides  // [3, 1]
/// ```
public struct TensorView: Sendable, Equatable {
    /// The memory that the view may touch.
    public let region: MemoryRegion

    /// Bytes from the region's start to element `[0, …, 0]`.
    public let byteOffset: Int

    /// The type of the elements.
    public let dtype: DType

    /// The extents, outermost first.
    public let shape: Shape

    /// The distance, in elements, between neighbours along each dimension. Never negative.
    public let strides: Shape

    /// A view of `shape` at `byteOffset` of `region`; row-major where `strides` are not given.
    ///
    /// - Throws: ``FlashInferError`` where a size overflows, the strides' rank differs from the shape's, an extent or stride is
    ///   negative, the offset is not a multiple of the element's size, or an element lies outside the region.
    public init(
        _ region: MemoryRegion, byteOffset: Int = 0, dtype: DType, shape: Shape, strides: Shape? = nil,
        name: String = "tensor"
    ) throws(FlashInferError) {
        guard let rowMajor = shape.contiguousStrides, let count = shape.elementCount else {
            throw .invalidArgument(
                "\(name) shape", found: "\(shape)", expected: "non-negative extents whose product fits in 64 bits")
        }
        let strides = strides ?? rowMajor
        guard strides.rank == shape.rank else {
            throw .lengthMismatch("\(name) strides", found: strides.rank, expected: shape.rank)
        }
        for dimension in 0..<shape.rank where strides[dimension] < 0 {
            throw .invalidArgument("\(name) strides", found: "\(strides)", expected: "non-negative")
        }
        guard let span = shape.span(strides: strides) else { throw .overflow("\(name) strides") }
        let (end, overflow) = span.multipliedReportingOverflow(by: dtype.byteCount)
        let (limit, carry) = end.addingReportingOverflow(byteOffset)
        guard !overflow, !carry else { throw .overflow("\(name) strides") }
        guard byteOffset >= 0, byteOffset % dtype.byteCount == 0 else {
            throw .invalidArgument(
                "\(name) byte offset", found: "\(byteOffset)", expected: "a non-negative multiple of \(dtype.byteCount)"
            )
        }
        guard count == 0 || limit <= region.byteCount else {
            throw .invalidArgument(
                "\(name)", found: "\(dtype) \(shape) with strides \(strides), which reaches byte \(limit)",
                expected: "inside its memory of \(region.byteCount) bytes")
        }
        self.region = region
        self.byteOffset = byteOffset
        self.dtype = dtype
        self.shape = shape
        self.strides = strides
    }

    /// Known-good parts, as made by the slicing operations.
    internal init(unchecked region: MemoryRegion, byteOffset: Int, dtype: DType, shape: Shape, strides: Shape) {
        self.region = region
        self.byteOffset = byteOffset
        self.dtype = dtype
        self.shape = shape
        self.strides = strides
    }

    /// The number of dimensions.
    public var rank: Int { shape.rank }

    /// The number of elements.
    public var elementCount: Int { shape.elementCount ?? 0 }

    /// The device whose memory this is.
    public var device: DeviceID { region.device }

    /// The address of element `[0, …, 0]`, in the device's address space.
    public var address: UInt { region.address &+ UInt(bitPattern: byteOffset) }

    /// Whether the elements lie one after another in row-major order.
    public var isContiguous: Bool {
        guard let rowMajor = shape.contiguousStrides else { return false }
        for dimension in 0..<rank where shape[dimension] > 1 && strides[dimension] != rowMajor[dimension] {
            return false
        }
        return true
    }

    /// The address as a pointer: meaningful on the host only when `device` is the CPU.
    public var pointer: UnsafeMutableRawPointer? { UnsafeMutableRawPointer(bitPattern: address) }
}
