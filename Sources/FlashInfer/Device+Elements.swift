public import FlashInferCore

extension Device {
    /// The elements of a contiguous view, after all work executed before.
    ///
    /// - Throws: ``FlashInferError`` where the type differs from the view's or the view is not contiguous.
    public func read<Element: TensorElement>(
        _ view: TensorView, as type: Element.Type = Element.self
    ) throws(FlashInferError) -> [Element] {
        let region = try contiguousRegion(of: view, Element.self)
        var failure: FlashInferError?
        let elements = [Element](unsafeUninitializedCapacity: view.elementCount) { buffer, initialized in
            do throws(FlashInferError) {
                try download(
                    region,
                    to: UnsafeMutableRawBufferPointer(
                        rebasing: UnsafeMutableRawBufferPointer(buffer)[..<region.byteCount]))
                initialized = view.elementCount
            } catch {
                failure = error
            }
        }
        if let failure { throw failure }
        return elements
    }

    /// Overwrites the elements of a contiguous view.
    ///
    /// - Throws: ``FlashInferError`` where type or count differ from the view's or the view is not contiguous.
    public func write<Element: TensorElement>(_ elements: [Element], to view: TensorView) throws(FlashInferError) {
        guard elements.count == view.elementCount else {
            throw .lengthMismatch("elements", found: elements.count, expected: view.elementCount)
        }
        let region = try contiguousRegion(of: view, Element.self)
        let result: Result<Void, FlashInferError> = elements.withUnsafeBytes { bytes in
            Result { () throws(FlashInferError) in try upload(bytes, to: region) }
        }
        try result.get()
    }

    private func contiguousRegion<Element: TensorElement>(
        of view: TensorView, _ type: Element.Type
    ) throws(FlashInferError) -> MemoryRegion {
        guard view.dtype == Element.dtype else {
            throw .invalidArgument("element type", found: "\(Element.dtype)", expected: "\(view.dtype)")
        }
        guard view.isContiguous else {
            throw .invalidArgument("view", found: "strides \(view.strides)", expected: "contiguous")
        }
        return MemoryRegion(
            address: view.address, byteCount: view.elementCount * view.dtype.byteCount, device: view.device)
    }
}
