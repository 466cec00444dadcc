/// The checks that the small operations share. Each names the tensor, what it is and what it must be.
struct TensorChecks {
    /// Every tensor must be on this device.
    let device: DeviceID

    /// A float32, float16 or bfloat16 tensor of rows: rank 1 to 3, elements of a row next to each other.
    func rows(_ view: TensorView, _ name: String) throws(FlashInferError) {
        guard view.dtype.isComputeType else {
            throw .invalidArgument(name, found: "\(view.dtype)", expected: "float32, float16 or bfloat16")
        }
        try anyRows(view, name)
    }

    /// The same, of any type.
    func anyRows(_ view: TensorView, _ name: String) throws(FlashInferError) {
        guard view.rank >= 1, view.rank <= 3 else {
            throw .invalidArgument(name, found: "of shape \(view.shape)", expected: "of rank 1, 2 or 3")
        }
        guard view.strides[-1] == 1 || view.shape[-1] <= 1 else {
            throw .invalidArgument("\(name) strides", found: "\(view.strides)", expected: "1 in the last dimension")
        }
        try here(view, name)
    }

    /// Rows of the same shape as `model`'s.
    func rows(_ view: TensorView, _ name: String, like model: TensorView) throws(FlashInferError) {
        try shape(view, name, model.shape)
        try rows(view, name)
    }

    /// A tensor of exactly this shape.
    func shape(_ view: TensorView, _ name: String, _ expected: Shape) throws(FlashInferError) {
        guard view.shape == expected else {
            throw .invalidArgument(name, found: "of shape \(view.shape)", expected: "\(expected)")
        }
    }

    /// A contiguous vector of `count` elements of one type.
    func vector(_ view: TensorView, _ name: String, _ dtype: DType, _ count: Int) throws(FlashInferError) {
        guard view.dtype == dtype, view.rank == 1, view.shape[0] == count, view.isContiguous else {
            throw .invalidArgument(
                name, found: "\(view.dtype) \(view.shape)", expected: "contiguous \(dtype) [\(count)]")
        }
        try here(view, name)
    }

    /// On the device.
    func here(_ view: TensorView, _ name: String) throws(FlashInferError) {
        guard view.device == device else {
            throw .invalidArgument(name, found: "on \(view.device)", expected: "on \(device)")
        }
    }

    /// A tensor no two of whose elements share memory, so that writing it in any order gives one result.
    func writable(_ view: TensorView, _ name: String) throws(FlashInferError) {
        // What has no elements is not written.
        if view.elementCount == 0 { return }
        // Dimensions by increasing stride, picked one at a time: nothing is allocated on the way to a kernel.
        var picked = 0
        var reach = 0
        while true {
            var next: Int?
            for dimension in 0..<view.rank where view.shape[dimension] > 1 && picked & 1 << dimension == 0 {
                if next.map({ view.strides[dimension] < view.strides[$0] }) ?? true { next = dimension }
            }
            guard let dimension = next else { return }
            picked |= 1 << dimension
            guard view.strides[dimension] > reach else {
                throw .invalidArgument(
                    "\(name) strides", found: "\(view.strides) for shape \(view.shape)",
                    expected: "such that no two elements overlap, as it is written")
            }
            reach += (view.shape[dimension] - 1) * view.strides[dimension]
        }
    }

    /// `output` and `input` share no memory, or are the same elements in the same places.
    func distinct(_ output: TensorView, _ name: String, from input: TensorView, _ other: String)
        throws(FlashInferError)
    {
        guard mayOverlap(output, input) else { return }
        throw .invalidArgument(
            name, found: "partly over the memory of \(other)", expected: "apart from it, or exactly in its place")
    }

    /// Whether writing one element of `output` could change another element of `input`. False alarms are possible only
    /// for tensors of different strides in one range of memory.
    private func mayOverlap(_ output: TensorView, _ input: TensorView) -> Bool {
        let (first, second) = (Self.extent(output), Self.extent(input))
        if first.isEmpty || second.isEmpty || !first.overlaps(second) { return false }
        guard output.dtype == input.dtype, output.shape == input.shape else { return true }
        var step = Int.max
        for dimension in 0..<output.rank - 1 where output.shape[dimension] > 1 {
            if output.strides[dimension] != input.strides[dimension] { return true }
            step = min(step, output.strides[dimension])
        }
        if output.address == input.address { return false }
        // Equal strides: side by side in the same rows, such as the two halves of a fused projection.
        for dimension in 0..<output.rank - 1 where output.shape[dimension] > 1 {
            if step == 0 || output.strides[dimension] % step != 0 { return true }
        }
        let distance = Int(bitPattern: first.lowerBound &- second.lowerBound) / output.dtype.byteCount
        if step == Int.max { return true }
        let width = output.shape[-1]
        let offset = ((distance % step) + step) % step
        return offset < width || step - offset < width
    }

    /// `output` and `input` share no memory, though their rows may alternate in it, as heads of one fused projection do.
    func apart(_ output: TensorView, _ name: String, from input: TensorView, _ other: String) throws(FlashInferError) {
        let (first, second) = (Self.extent(output), Self.extent(input))
        if first.isEmpty || second.isEmpty || !first.overlaps(second) { return }
        // Rows of both come again after as many bytes: then one of each says it all.
        let period = output.strides[0] * output.dtype.byteCount
        if period > 0, period == input.strides[0] * input.dtype.byteCount {
            let distance = Int(bitPattern: second.lowerBound &- first.lowerBound) % period
            let between = distance < 0 ? distance + period : distance
            if between >= Self.rowExtent(output), period - between >= Self.rowExtent(input) { return }
        }
        if Self.liesBeside(output, input) { return }
        throw .invalidArgument(name, found: "over the memory of \(other)", expected: "apart from it")
    }

    /// Whether two tensors are different columns of one, as the two parts of every head are.
    private static func liesBeside(_ first: TensorView, _ second: TensorView) -> Bool {
        guard first.rank == second.rank, first.dtype.byteCount == second.dtype.byteCount else { return false }
        var step = Int.max
        for dimension in 0..<first.rank - 1 where max(first.shape[dimension], second.shape[dimension]) > 1 {
            if first.strides[dimension] != second.strides[dimension] { return false }
            step = min(step, first.strides[dimension])
        }
        if step == 0 || step == Int.max { return false }
        for dimension in 0..<first.rank - 1 where max(first.shape[dimension], second.shape[dimension]) > 1 {
            if first.strides[dimension] % step != 0 { return false }
        }
        let distance = Int(bitPattern: second.address &- first.address)
        guard distance % first.dtype.byteCount == 0 else { return false }
        let offset = distance / first.dtype.byteCount % step
        let between = offset < 0 ? offset + step : offset
        return between >= first.shape[-1] && step - between >= second.shape[-1]
    }

    /// Bytes that one index of the first dimension spans.
    private static func rowExtent(_ view: TensorView) -> Int {
        var last = 0
        for dimension in 1..<view.rank { last += (view.shape[dimension] - 1) * view.strides[dimension] }
        return (last + 1) * view.dtype.byteCount
    }

    /// The addresses that a view spans.
    private static func extent(_ view: TensorView) -> Range<UInt> {
        guard view.elementCount > 0 else { return view.address..<view.address }
        var last = 0
        for dimension in 0..<view.rank { last += (view.shape[dimension] - 1) * view.strides[dimension] }
        return view.address..<(view.address + UInt((last + 1) * view.dtype.byteCount))
    }

    /// Every id of a host-readable vector is in `0 ..< limit`. Ids in a device's memory are its kernel's to check.
    func ids(_ view: TensorView, _ name: String, below limit: Int) throws(FlashInferError) {
        guard view.device == .cpu, view.elementCount > 0, let pointer = view.pointer else { return }
        let ids = UnsafeBufferPointer(
            start: pointer.assumingMemoryBound(to: Int32.self), count: view.shape[0])
        // One pass with no branch per id finds whether anything is wrong; only then is the culprit looked for.
        var largest: UInt32 = 0
        for id in ids { largest = max(largest, UInt32(bitPattern: id)) }
        if Int(largest) < limit { return }
        for (index, id) in ids.enumerated() where id < 0 || Int(id) >= limit {
            throw .invalidArgument("\(name)[\(index)]", found: "\(id)", expected: "in 0 ..< \(limit)")
        }
    }
}
