/// How an output of 8 bits is scaled: a stored number stands for `stored · scale`.
///
/// What is stored is `saturate(round(value · (1 / scale)))`, the value and the reciprocal in float32, to nearest, ties to even:
/// float8-e4m3 saturates at ±448, float8-e5m2 at ±57,344, int8 at −128 and 127. NaN stays NaN (0 in int8).
public enum OutputQuantization: Sendable, Equatable {
    /// One scale, finite and above 0, as is its reciprocal.
    case scale(Float)

    /// One scale in a tensor, `[1]`, float32, read when the operation runs. The host can check it in host memory only.
    case scaleTensor(TensorView)

    /// A scale for each row, computed by the operation and written to `[rows]`, float32, contiguous: `max(amax, 1e-10) / largest`,
    /// `amax` being the row's greatest magnitude and `largest` 448, 57,344 or 127.
    ///
    /// A row with a NaN has a NaN for its scale, so that int8, which has none, does not hide it.
    case perRow(scales: TensorView)

    /// A scale for each group of `size` neighbouring elements of a row, computed as ``perRow(scales:)``'s and written to
    /// `[rows, width / size]`, float32, of any strides: `[groups, 1]`, or `[1, rows]` and more for scales by columns.
    ///
    /// `size` is 32, 64 or 128 and divides the width.
    case perGroup(size: Int, scales: TensorView)

    /// The sizes of groups.
    package static let groupSizes = [32, 64, 128]

    /// The least `amax` that a row's scale is computed of: a row of zeros has a scale that divides.
    package static let leastMagnitude: Float = 1e-10
}

extension DType {
    /// The greatest magnitude that a quantised output's scale is made for: 448, 57,344 or 127. `nil` for types of more bits.
    package var quantizedMagnitude: Float? {
        switch self {
        case .float8E4M3: Float8E4M3.greatestFiniteMagnitude
        case .float8E5M2: Float8E5M2.greatestFiniteMagnitude
        case .int8: 127
        case .float32, .float16, .bfloat16, .uint8, .int32: nil
        }
    }
}

extension TensorChecks {
    /// An output of the shape of `model`: of a compute type, or of 8 bits where it is quantised.
    func output(
        _ view: TensorView, like model: TensorView, _ modelName: String, _ quantization: OutputQuantization?
    ) throws(FlashInferError) {
        guard let quantization else {
            try rows(view, "output", like: model)
            return try writable(view, "output")
        }
        try shape(view, "output", model.shape)
        try quantized(view, "output")
        try anyRows(view, "output")
        try writable(view, "output")
        switch quantization {
        case .scale(let scale):
            try self.scale(scale, "output scale")
        case .scaleTensor(let scale):
            try vector(scale, "output scale", .float32, 1)
            try distinct(view, "output", from: scale, "output scale")
            if scale.device == .cpu, let pointer = scale.pointer {
                try self.scale(pointer.load(as: Float.self), "output scale")
            }
        case .perRow(let scales):
            try vector(scales, "row scales", .float32, view.rowCount)
            try distinct(scales, "row scales", from: view, "output")
            try distinct(scales, "row scales", from: model, modelName)
        case .perGroup(let size, let scales):
            guard OutputQuantization.groupSizes.contains(size), view.shape[-1] % size == 0 else {
                throw .invalidArgument(
                    "group size", found: "\(size) for rows of \(view.shape[-1])",
                    expected: "32, 64 or 128, and a divisor of the width")
            }
            try shape(scales, "group scales", [view.rowCount, view.shape[-1] / size])
            guard scales.dtype == .float32 else {
                throw .invalidArgument("group scales", found: "\(scales.dtype)", expected: "float32")
            }
            try here(scales, "group scales")
            try writable(scales, "group scales")
            try distinct(scales, "group scales", from: view, "output")
            try distinct(scales, "group scales", from: model, modelName)
        }
    }

    /// A tensor of 8 bits.
    func quantized(_ view: TensorView, _ name: String) throws(FlashInferError) {
        guard view.dtype.quantizedMagnitude != nil else {
            throw .invalidArgument(
                name, found: "\(view.dtype)", expected: "float8-e4m3, float8-e5m2 or int8, as it is quantised")
        }
    }

    /// A scale that numbers can be divided by, and by whose reciprocal they can be multiplied.
    func scale(_ scale: Float, _ name: String) throws(FlashInferError) {
        guard scale > 0, scale.isFinite, (1 / scale).isFinite else {
            throw .invalidArgument(
                name, found: "\(scale)", expected: "finite and above 0, and so its reciprocal")
        }
    }
}
