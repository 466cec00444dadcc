extension TensorView {
    /// This tensor and `other`, wherever they lie, as one with a first dimension of two: `nil` where their types, shapes or strides
    /// differ, or their distance is no multiple of an element.
    ///
    /// The first stride is their distance, which is negative where `other` lies before: the one kind of view whose strides are, for
    /// operations that only read it and check no extent, as ``MergeStatesOperation`` does. So two states are merged in the order
    /// given, and the result does not depend on where they were allocated.
    package func paired(with other: TensorView) -> TensorView? {
        guard dtype == other.dtype, device == other.device, shape == other.shape, strides == other.strides,
            rank < Shape.maximumRank
        else { return nil }
        let distance = Int(bitPattern: other.address &- address)
        guard distance % dtype.byteCount == 0 else { return nil }
        var extents = Shape(repeating: 2, rank: rank + 1)
        var steps = Shape(repeating: distance / dtype.byteCount, rank: rank + 1)
        for dimension in 0..<rank {
            extents[dimension + 1] = shape[dimension]
            steps[dimension + 1] = strides[dimension]
        }
        return TensorView(unchecked: region, byteOffset: byteOffset, dtype: dtype, shape: extents, strides: steps)
    }
}
