extension TensorView {
    /// The view of `range` along `dimension`; the other dimensions stay whole.
    ///
    /// - Precondition: `range` lies within the dimension.
    public func slice(_ range: Range<Int>, along dimension: Int = 0) -> TensorView {
        precondition(
            range.lowerBound >= 0 && range.upperBound <= shape[dimension],
            "slice \(range) is outside of dimension \(dimension), which has extent \(shape[dimension])")
        var extents = shape
        extents[dimension] = range.count
        return TensorView(
            unchecked: region, byteOffset: byteOffset + range.lowerBound * strides[dimension] * dtype.byteCount,
            dtype: dtype, shape: extents, strides: strides)
    }

    /// The view at one `index` along `dimension`, with that dimension gone.
    ///
    /// - Precondition: `index` lies within the dimension.
    public func select(_ index: Int, along dimension: Int = 0) -> TensorView {
        precondition(
            index >= 0 && index < shape[dimension],
            "index \(index) is outside of dimension \(dimension), which has extent \(shape[dimension])")
        var extents: [Int] = []
        var steps: [Int] = []
        for position in 0..<rank where position != dimension {
            extents.append(shape[position])
            steps.append(strides[position])
        }
        return TensorView(
            unchecked: region, byteOffset: byteOffset + index * strides[dimension] * dtype.byteCount,
            dtype: dtype, shape: Shape(extents), strides: Shape(steps))
    }

    /// The same elements with two dimensions swapped.
    public func transposed(_ first: Int, _ second: Int) -> TensorView {
        var extents = shape
        var steps = strides
        extents[first] = shape[second]
        extents[second] = shape[first]
        steps[first] = strides[second]
        steps[second] = strides[first]
        return TensorView(unchecked: region, byteOffset: byteOffset, dtype: dtype, shape: extents, strides: steps)
    }

    /// The same elements in another row-major shape.
    ///
    /// - Throws: ``FlashInferError/invalidArgument(_:found:expected:)`` where the view is not contiguous or the counts differ.
    public func reshaped(_ extents: Shape) throws(FlashInferError) -> TensorView {
        guard isContiguous, extents.elementCount == elementCount, let rowMajor = extents.contiguousStrides else {
            throw .invalidArgument(
                "reshaped", found: "\(shape) with strides \(strides) to \(extents)",
                expected: "a contiguous tensor and a shape of \(elementCount) elements")
        }
        return TensorView(unchecked: region, byteOffset: byteOffset, dtype: dtype, shape: extents, strides: rowMajor)
    }
}
