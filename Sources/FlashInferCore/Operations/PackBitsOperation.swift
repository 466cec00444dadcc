/// Flags packed into bits, eight a byte: all in one run, or segment by segment, each from a byte of its own.
///
/// ```
/// byte n = Σ_i (flags[8 n + i] ≠ 0) · 2^i          (lowest first; 2^(7 − i) for highest first)
/// ```
/// Bits past the last flag of the run, or of a segment, are 0. Reads each flag once.
public struct PackBitsOperation: Sendable, Equatable {
    /// Which bit of a byte is the first of its eight flags.
    public enum Order: Sendable, Hashable, CaseIterable {
        /// The least significant: what masks of attention have.
        case lowestFirst
        /// The most significant.
        case highestFirst
    }

    /// Where segments start.
    public struct Segments: Sendable, Equatable {
        /// `[segments + 1]`, int32, contiguous: in flags, from 0 or more, ascending.
        public var flags: TensorView

        /// `[segments + 1]`, int32, contiguous: in bytes; segment `i` has `ceil(its flags / 8)` of them.
        ///
        /// On a GPU neither is checked: nothing is read or written outside of the tensors, whatever they hold.
        public var bytes: TensorView

        /// Segments that start there.
        public init(flags: TensorView, bytes: TensorView) {
            self.flags = flags
            self.bytes = bytes
        }
    }

    /// `[flags]`, uint8, contiguous: nonzero is 1.
    public var flags: TensorView

    /// `[bytes]`, uint8, contiguous: `ceil(flags / 8)`, or what the segments have in all.
    public var output: TensorView

    /// The order of bits in a byte.
    public var order: Order

    /// Where segments start; `nil` for one run.
    public var segments: Segments?

    /// An operation; call ``validate()`` before it is executed.
    public init(flags: TensorView, output: TensorView, order: Order, segments: Segments? = nil) {
        self.flags = flags
        self.output = output
        self.order = order
        self.segments = segments
    }

    /// Checks every tensor, and the segments where the host can read them.
    ///
    /// - Throws: ``FlashInferError`` that names the tensor or the segment, what it is, and what it must be.
    public func validate() throws(FlashInferError) {
        let checks = TensorChecks(device: flags.device)
        guard flags.rank == 1, output.rank == 1 else {
            throw .invalidArgument(
                "flags and output", found: "of rank \(flags.rank) and \(output.rank)", expected: "vectors")
        }
        try checks.vector(flags, "flags", .uint8, flags.shape[0])
        guard let segments else {
            try checks.vector(output, "output", .uint8, (flags.shape[0] + 7) / 8)
            return try checks.distinct(output, "output", from: flags, "flags")
        }
        try checks.vector(output, "output", .uint8, output.shape[0])
        try checks.distinct(output, "output", from: flags, "flags")
        guard segments.flags.rank == 1, segments.flags.shape[0] >= 1 else {
            throw .invalidArgument(
                "segments", found: "of shape \(segments.flags.shape)", expected: "[segments + 1], 1 or more")
        }
        let count = segments.flags.shape[0]
        try checks.vector(segments.flags, "segments", .int32, count)
        try checks.vector(segments.bytes, "bytes of segments", .int32, count)
        try checks.distinct(output, "output", from: segments.flags, "segments")
        try checks.distinct(output, "output", from: segments.bytes, "bytes of segments")
        try validateStarts(segments, count)
    }

    private func validateStarts(_ segments: Segments, _ count: Int) throws(FlashInferError) {
        guard flags.device == .cpu, let starts = segments.flags.pointer?.assumingMemoryBound(to: Int32.self),
            let bytes = segments.bytes.pointer?.assumingMemoryBound(to: Int32.self)
        else { return }
        guard starts[0] >= 0, bytes[0] == 0 else {
            throw .invalidArgument(
                "segments", found: "that start at flag \(starts[0]) and byte \(bytes[0])",
                expected: "from a flag of 0 or more and byte 0")
        }
        for segment in 0..<count - 1 {
            guard starts[segment] <= starts[segment + 1] else {
                throw .indptrNotMonotone(
                    "segments", request: segment, value: Int(starts[segment]), next: Int(starts[segment + 1]))
            }
            let byteCount = (Int(starts[segment + 1]) - Int(starts[segment]) + 7) / 8
            guard Int(bytes[segment + 1]) - Int(bytes[segment]) == byteCount else {
                throw .invalidRequest(
                    segment, argument: "bytes of segment", found: Int(bytes[segment + 1]) - Int(bytes[segment]),
                    expected: "\(byteCount), for its flags")
            }
        }
        guard Int(starts[count - 1]) <= flags.shape[0] else {
            throw .lengthMismatch("flags", found: flags.shape[0], expected: Int(starts[count - 1]))
        }
        guard Int(bytes[count - 1]) == output.shape[0] else {
            throw .lengthMismatch("output", found: output.shape[0], expected: Int(bytes[count - 1]))
        }
    }
}
