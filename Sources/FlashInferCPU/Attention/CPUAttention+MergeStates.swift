internal import CFlashInferCPU
public import FlashInferCore

extension CPUAttention {
    /// Merges states of attention over disjoint keys: with `m = max lse`, `w = 2^(lse − m)`,
    /// `output = Σ w · values / Σ w` and `lse = m + log2 Σ w`. Empty states (LSE −∞) count for nothing; rows whose states are all
    /// empty get output 0 and LSE −∞.
    ///
    /// - Parameters:
    ///   - values: `[states, rows, heads, headDim]`, float32, float16 or bfloat16, stride 1 within a head.
    ///   - logSumExp: `[states, rows, heads]`, float32, base 2.
    ///   - output: `[rows, heads, headDim]` of `values`' type or another of the three; `mergedLogSumExp`: `[rows, heads]`, float32.
    /// - Throws: ``FlashInferError`` that names the tensor; then nothing has been written.
    public func mergeStates(
        values: TensorView, logSumExp: TensorView, into output: TensorView, mergedLogSumExp: TensorView? = nil
    ) throws(FlashInferError) {
        guard values.rank == 4 else {
            throw .invalidArgument("values", found: "of shape \(values.shape)", expected: "of rank 4")
        }
        let (states, rows, heads, width) = (values.shape[0], values.shape[1], values.shape[2], values.shape[3])
        try expect(values, "values", nil, [states, rows, heads, width])
        try expect(logSumExp, "logSumExp", .float32, [states, rows, heads])
        try expect(output, "output", nil, [rows, heads, width])
        if let mergedLogSumExp { try expect(mergedLogSumExp, "mergedLogSumExp", .float32, [rows, heads]) }
        guard width % 8 == 0, width > 0, width <= Self.maximumHeadDim else {
            throw .unsupported(
                "head dim \(width)", device: "cpu", nearest: "a multiple of 8 up to \(Self.maximumHeadDim)")
        }
        if rows == 0 || heads == 0 { return }
        let merge = StatesMerge(kernels.pointee, values, logSumExp, output, mergedLogSumExp)
        let total = rows * heads
        pool.run { worker in
            merge.run(total * worker / pool.threads..<total * (worker + 1) / pool.threads)
        }
    }

    /// Merges two states; see ``mergeStates(values:logSumExp:into:mergedLogSumExp:)``.
    ///
    /// - Parameters:
    ///   - values, otherValues: `[rows, heads, headDim]`, of one type, and one may be the output.
    ///   - logSumExp, otherLogSumExp: `[rows, heads]`, float32, base 2; one may be `mergedLogSumExp`.
    public func mergeState(
        values: TensorView, logSumExp: TensorView, otherValues: TensorView, otherLogSumExp: TensorView,
        into output: TensorView, mergedLogSumExp: TensorView? = nil
    ) throws(FlashInferError) {
        guard values.rank == 3 else {
            throw .invalidArgument("values", found: "of shape \(values.shape)", expected: "of rank 3")
        }
        let (rows, heads, width) = (values.shape[0], values.shape[1], values.shape[2])
        for (view, name) in [(values, "values"), (otherValues, "otherValues"), (output, "output")] {
            try expect(view, name, nil, [rows, heads, width])
        }
        guard otherValues.dtype == values.dtype else {
            throw .invalidArgument("otherValues", found: "\(otherValues.dtype)", expected: "\(values.dtype), as values")
        }
        try expect(logSumExp, "logSumExp", .float32, [rows, heads])
        try expect(otherLogSumExp, "otherLogSumExp", .float32, [rows, heads])
        if let mergedLogSumExp { try expect(mergedLogSumExp, "mergedLogSumExp", .float32, [rows, heads]) }
        guard width % 8 == 0, width > 0, width <= Self.maximumHeadDim else {
            throw .unsupported(
                "head dim \(width)", device: "cpu", nearest: "a multiple of 8 up to \(Self.maximumHeadDim)")
        }
        if rows == 0 || heads == 0 { return }
        let merge = StatesMerge(
            kernels.pointee, values, logSumExp, output, mergedLogSumExp, other: (otherValues, otherLogSumExp))
        let total = rows * heads
        pool.run { worker in
            merge.run(total * worker / pool.threads..<total * (worker + 1) / pool.threads)
        }
    }

    private func expect(
        _ view: TensorView, _ name: String, _ dtype: DType?, _ shape: Shape
    ) throws(FlashInferError) {
        guard dtype.map({ $0 == view.dtype }) ?? view.dtype.isComputeType else {
            throw .invalidArgument(
                name, found: "\(view.dtype)", expected: dtype.map { "\($0)" } ?? "float32, float16 or bfloat16")
        }
        guard view.shape == shape else {
            throw .invalidArgument(name, found: "of shape \(view.shape)", expected: "\(shape)")
        }
        guard view.strides[-1] == 1 || shape[-1] <= 1 || dtype == .float32 else {
            throw .invalidArgument("\(name) strides", found: "\(view.strides)", expected: "1 in the last dimension")
        }
        guard view.device == .cpu else {
            throw .invalidArgument(name, found: "on \(view.device)", expected: "on cpu")
        }
    }
}

/// A merge of states as plain pointers: state `s` of row `r`, head `h`.
private struct StatesMerge {
    let kernels: fi_attention_kernels
    let states: Int
    let heads: Int
    let width: Int
    let values: TensorView
    let logSumExp: TensorView
    let output: TensorView
    let merged: TensorView?
    let other: (values: TensorView, logSumExp: TensorView)?

    init(
        _ kernels: fi_attention_kernels, _ values: TensorView, _ logSumExp: TensorView, _ output: TensorView,
        _ merged: TensorView?, other: (TensorView, TensorView)? = nil
    ) {
        self.kernels = kernels
        (self.values, self.logSumExp, self.output, self.merged, self.other) = (values, logSumExp, output, merged, other)
        states = other == nil ? values.shape[0] : 2
        heads = output.shape[1]
        width = output.shape[2]
    }

    /// The address of a state's element, in the stacked tensor or in one of the two.
    private func address(_ stacked: TensorView, _ second: TensorView?, _ state: Int, _ row: Int, _ head: Int)
        -> UnsafeMutableRawPointer?
    {
        let view = state > 0 ? second ?? stacked : stacked
        let lead = other == nil ? 1 : 0
        let element =
            (lead == 1 ? state * view.strides[0] : 0) + row * view.strides[lead] + head * view.strides[lead + 1]
        return view.pointer.map { $0 + element * view.dtype.byteCount }
    }

    private func lse(_ state: Int, _ row: Int, _ head: Int) -> Float {
        address(logSumExp, other?.logSumExp, state, row, head)?.load(as: Float.self) ?? -.infinity
    }

    func run(_ range: Range<Int>) {
        // Two rows of at most `maximumHeadDim`: one state, and the sum.
        withUnsafeTemporaryAllocation(of: Float.self, capacity: 2 * CPUAttention.maximumHeadDim) { buffer in
            guard let sum = buffer.baseAddress else { return }
            let row = sum + CPUAttention.maximumHeadDim
            for index in range { merge(index / heads, index % heads, sum, row) }
        }
    }

    private func merge(
        _ row: Int, _ head: Int, _ sum: UnsafeMutablePointer<Float>, _ values: UnsafeMutablePointer<Float>
    ) {
        let weights = StateMerge(count: states) { lse($0, row, head) }
        let stride = Int64(width)
        sum.update(repeating: 0, count: width)
        let zero: Int64 = 0
        for state in 0..<states {
            let weight = weights.weight(lse(state, row, head))
            // An empty state's output counts for nothing, whatever it holds.
            if weight == 0 { continue }
            withUnsafePointer(to: zero) { zero in
                kernels.f32.gather(
                    values, stride,
                    fi_attn_rows(
                        base: address(self.values, other?.values, state, row, head), offsets: zero, count: 1,
                        type: self.values.dtype.attentionType), Int32(width))
            }
            kernels.accumulate(sum, values, weight, Int32(width))
        }
        var scale = weights.scale
        var offset = Int64((row * output.strides[0] + head * output.strides[1]) * output.dtype.byteCount)
        kernels.store(output.pointer, &offset, output.dtype.attentionType, sum, stride, &scale, 1, Int32(width))
        if let merged, let base = merged.pointer {
            base.storeBytes(
                of: weights.logSumExp, toByteOffset: (row * merged.strides[0] + head * merged.strides[1]) * 4,
                as: Float.self)
        }
    }
}
