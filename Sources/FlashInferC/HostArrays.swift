internal import CFlashInfer
internal import FlashInferCore

/// Small tensors that the host reads and writes, wherever they lie.
struct HostArrays {
    /// The device of the call, on the call's stream: it copies what is not the host's.
    let device: any Device

    /// The elements of a contiguous int32 vector.
    func int32(_ tensor: UnsafePointer<fi_tensor>?, _ name: String) throws(FlashInferError) -> [Int32] {
        try elements(vector(required(tensor, name), name, .index))
    }

    /// The same, or `nil` for NULL.
    func int32(optional tensor: UnsafePointer<fi_tensor>?, _ name: String) throws(FlashInferError) -> [Int32]? {
        guard let tensor else { return nil }
        return try int32(tensor, name)
    }

    /// The elements of a contiguous vector of uint8 or bool.
    func bytes(_ tensor: UnsafePointer<fi_tensor>?, _ name: String) throws(FlashInferError) -> [UInt8] {
        try elements(vector(required(tensor, name), name, .bits))
    }

    /// The elements of a contiguous float32 vector; none for NULL.
    func floats(_ tensor: UnsafePointer<fi_tensor>?, _ name: String) throws(FlashInferError) -> [Float] {
        guard let tensor else { return [] }
        let view = try vector(tensor, name, .number)
        guard view.dtype == .float32 else {
            throw .invalidArgument(name, found: "\(view.dtype)", expected: "float32")
        }
        return try elements(view)
    }

    /// The elements of an int32 matrix with any distance between rows, row-major, and its columns.
    func matrix(
        _ tensor: UnsafePointer<fi_tensor>?, _ name: String
    ) throws(FlashInferError) -> (elements: [Int32], stride: Int, rows: Int, columns: Int) {
        let tensor = try required(tensor, name)
        let view = try self.view(tensor, name, .index)
        guard view.rank == 2, view.strides[1] == 1 || view.shape[1] <= 1 else {
            throw .invalidArgument(
                name, found: "of shape \(view.shape) with strides \(view.strides)",
                expected: "of rank 2 with stride 1 in the last dimension")
        }
        let span = try TensorView(
            view.region, dtype: .int32, shape: [view.region.byteCount / 4], name: name)
        try checkCount(span, name)
        return (try elements(span), view.strides[0], view.shape[0], view.shape[1])
    }

    /// Writes a contiguous int32 vector, or matrix in row-major order.
    func write(_ values: [Int32], to tensor: UnsafePointer<fi_tensor>?, _ name: String) throws(FlashInferError) {
        let view = try output(tensor, name, count: values.count)
        try copy(values, to: view)
    }

    /// A contiguous int32 tensor of `count` elements, to be written.
    func output(
        _ tensor: UnsafePointer<fi_tensor>?, _ name: String, count: Int
    ) throws(FlashInferError) -> TensorView {
        let view = try self.view(required(tensor, name), name, .index)
        guard view.isContiguous else {
            throw .invalidArgument("\(name) strides", found: "\(view.strides)", expected: "contiguous")
        }
        guard view.elementCount == count else {
            throw .lengthMismatch(name, found: view.elementCount, expected: count)
        }
        return view
    }

    func copy(_ values: [Int32], to view: TensorView) throws(FlashInferError) {
        let result: Result<Void, FlashInferError> = values.withUnsafeBytes { bytes in
            Result { () throws(FlashInferError) in
                guard view.device == .cpu else { return try device.upload(bytes, to: view.region) }
                if let base = bytes.baseAddress, bytes.count > 0 {
                    view.pointer?.copyMemory(from: base, byteCount: bytes.count)
                }
            }
        }
        try result.get()
    }

    /// A tensor of the host or of the call's device.
    func view(
        _ tensor: UnsafePointer<fi_tensor>, _ name: String, _ kind: ElementKind
    ) throws(FlashInferError) -> TensorView {
        let place = try tensor.pointee.place(name, near: device.id)
        guard place == .cpu || place == device.id else {
            throw .invalidArgument(
                name, found: "on \(place)", expected: device.id == .cpu ? "on cpu" : "on cpu or \(device.id)")
        }
        return try TensorView(anywhere: tensor, name, place, kind)
    }

    private func vector(
        _ tensor: UnsafePointer<fi_tensor>, _ name: String, _ kind: ElementKind
    ) throws(FlashInferError) -> TensorView {
        let view = try view(tensor, name, kind)
        guard view.rank == 1, view.isContiguous else {
            throw .invalidArgument(
                name, found: "of shape \(view.shape) with strides \(view.strides)", expected: "a contiguous vector")
        }
        try checkCount(view, name)
        return view
    }

    /// What is copied to the host is counted in 32 bits from then on.
    private func checkCount(_ view: TensorView, _ name: String) throws(FlashInferError) {
        guard view.elementCount <= Int(Int32.max) else {
            throw .invalidArgument(name, found: "\(view.elementCount) elements", expected: "at most \(Int32.max)")
        }
    }

    /// The elements of a contiguous vector.
    private func elements<Element: BitwiseCopyable>(_ view: TensorView) throws(FlashInferError) -> [Element] {
        let count = view.elementCount
        guard count > 0 else { return [] }
        if view.device == .cpu {
            return Array(UnsafeBufferPointer(start: view.pointer?.assumingMemoryBound(to: Element.self), count: count))
        }
        var failure: FlashInferError?
        let elements = [Element](unsafeUninitializedCapacity: count) { buffer, initialized in
            do throws(FlashInferError) {
                try device.download(
                    view.region,
                    to: UnsafeMutableRawBufferPointer(start: buffer.baseAddress, count: view.region.byteCount))
                initialized = count
            } catch {
                failure = error
            }
        }
        if let failure { throw failure }
        return elements
    }
}

extension HostArrays {
    /// Slots `page · page_size + row` of a contiguous int32 or int64 vector.
    func slots(_ tensor: UnsafePointer<fi_tensor>?) throws(FlashInferError) -> [Int32] {
        let name = "slot_mapping"
        guard let tensor, Int(tensor.pointee.dtype.code) == FI_INT, tensor.pointee.dtype.bits == 64 else {
            return try int32(tensor, name)
        }
        // An int64 vector is an int32 matrix of two columns; the host's order is low half first.
        var halves = tensor.pointee
        halves.dtype = fi_data_type(code: UInt8(FI_INT), bits: 32, lanes: 1)
        let (extents, strides) = try tensor.pointee.layout(name)
        guard extents.rank == 1, strides[0] == 1 || extents[0] <= 1 else {
            throw .invalidArgument(
                name, found: "of shape \(extents) with strides \(strides)", expected: "a contiguous vector")
        }
        let (count, overflow) = extents[0].multipliedReportingOverflow(by: 2)
        guard !overflow else { throw .overflow("\(name) shape") }
        var length = Int64(count)
        var elements: [Int32] = []
        var failure: FlashInferError?
        withUnsafeMutablePointer(to: &length) { length in
            halves.shape = length
            halves.strides = nil
            do throws(FlashInferError) { elements = try int32(&halves, name) } catch { failure = error }
        }
        if let failure { throw failure }
        var slots: [Int32] = []
        slots.reserveCapacity(extents[0])
        for token in 0..<extents[0] {
            let value = Int64(elements[2 * token + 1]) << 32 | Int64(UInt32(bitPattern: elements[2 * token]))
            guard let slot = Int32(exactly: max(value, -1)) else {
                throw .invalidArgument("\(name)[\(token)]", found: "\(value)", expected: "at most \(Int32.max)")
            }
            slots.append(slot)
        }
        return slots
    }
}
