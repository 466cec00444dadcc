/// Memory of a device, owned: freed when the buffer goes away.
///
/// ```swift
/// let queries = try DeviceBuffer(on: device, dtype: .bfloat16, shape: [16, 32, 128])
/// let view = queries.view  // valid while `queries` lives
/// ```
public struct DeviceBuffer: ~Copyable, Sendable {
    /// The whole buffer as a row-major tensor.
    public let view: TensorView

    private let device: any Device

    /// The memory itself.
    public var region: MemoryRegion { view.region }

    /// Allocates a row-major tensor of undefined content.
    ///
    /// - Throws: ``FlashInferError`` where the size overflows or the device has no room.
    public init(on device: any Device, dtype: DType, shape: Shape) throws(FlashInferError) {
        guard let count = shape.elementCount,
            case (let bytes, false) = count.multipliedReportingOverflow(by: dtype.byteCount)
        else { throw .overflow("buffer shape \(shape)") }
        // Everything that can be wrong with the shape is found on a stand-in region, before anything is allocated.
        let checked = try TensorView(
            MemoryRegion(address: 0, byteCount: bytes, device: device.id), dtype: dtype, shape: shape, name: "buffer")
        view = TensorView(
            unchecked: try device.allocate(byteCount: bytes), byteOffset: 0, dtype: dtype, shape: shape,
            strides: checked.strides)
        self.device = device
    }

    /// Allocates a row-major tensor and fills it with `elements`.
    ///
    /// - Throws: ``FlashInferError`` where the counts differ or the device has no room.
    public init<Element: TensorElement>(on device: any Device, _ elements: [Element], shape: Shape)
        throws(FlashInferError)
    {
        guard let count = shape.elementCount else { throw .overflow("buffer shape \(shape)") }
        guard count == elements.count else {
            throw .lengthMismatch("elements", found: elements.count, expected: count)
        }
        let buffer = try DeviceBuffer(on: device, dtype: Element.dtype, shape: shape)
        try buffer.write(elements)
        self = buffer
    }

    /// Overwrites the buffer's first elements.
    ///
    /// - Throws: ``FlashInferError`` where the type differs from the buffer's or `elements` do not fit.
    public func write<Element: TensorElement>(_ elements: [Element]) throws(FlashInferError) {
        guard Element.dtype == view.dtype else {
            throw .invalidArgument("elements", found: "\(Element.dtype)", expected: "\(view.dtype)")
        }
        guard elements.count <= view.elementCount else {
            throw .lengthMismatch("elements", found: elements.count, expected: view.elementCount)
        }
        let (device, region) = (device, region)
        let result: Result<Void, FlashInferError> = elements.withUnsafeBytes { bytes in
            Result { () throws(FlashInferError) in
                try device.upload(
                    bytes, to: MemoryRegion(address: region.address, byteCount: bytes.count, device: region.device))
            }
        }
        try result.get()
    }

    /// The buffer's elements, after all work executed before.
    ///
    /// - Throws: ``FlashInferError`` where the type differs from the buffer's or the copy fails.
    public func read<Element: TensorElement>(as type: Element.Type = Element.self) throws(FlashInferError) -> [Element]
    {
        guard Element.dtype == view.dtype else {
            throw .invalidArgument("read type", found: "\(Element.dtype)", expected: "\(view.dtype)")
        }
        let (device, region, count) = (device, region, view.elementCount)
        var failure: FlashInferError?
        let elements = [Element](unsafeUninitializedCapacity: count) { buffer, initialized in
            do throws(FlashInferError) {
                try device.download(region, to: UnsafeMutableRawBufferPointer(buffer))
                initialized = count
            } catch {
                failure = error
            }
        }
        if let failure { throw failure }
        return elements
    }

    deinit { device.deallocate(view.region) }
}
