public import FlashInferCore

/// The ways that an output of 8 bits is scaled.
public enum QuantizationWay: Sendable, CaseIterable {
    /// ``OutputQuantization/scale(_:)``
    case scale
    /// ``OutputQuantization/scaleTensor(_:)``
    case tensor
    /// ``OutputQuantization/perRow(scales:)``
    case perRow

    /// All of them.
    public static var all: [QuantizationWay] { allCases }

    /// The scale of those that have it given: some numbers saturate in int8, and none is a power of two away.
    public static let given: Float = 0.011

    /// The way as operations take it.
    public func quantization(scale: TensorView, scales: TensorView) -> OutputQuantization {
        switch self {
        case .scale: .scale(Self.given)
        case .tensor: .scaleTensor(scale)
        case .perRow: .perRow(scales: scales)
        }
    }
}

/// What an operation stored as 8 bits, against the same operation's float32 output and the definition in float64.
public struct QuantizedCheck: Sendable {
    private let type: DType
    private let width: Int

    /// Checks of rows of `width`.
    public init(_ type: DType, width: Int) { (self.type, self.width) = (type, width) }

    /// The first thing wrong with what was found, or `nil`.
    ///
    /// The bytes must be those of `unquantized` (the operation's own float32 output) converted, exactly; and within half a step of the
    /// 8-bit type of `exact`, give or take twice what a plain float32 loop (`reference`) is off.
    public func firstProblem(
        _ found: OpsTensor, scales: [Double]?, unquantized: [Double], exact: [Double], reference: [Double]
    ) -> String? {
        guard let largest = type.quantizedMagnitude else { return "not a type of 8 bits" }
        for (row, start) in stride(from: 0, to: found.count, by: max(width, 1)).enumerated() {
            let range = start..<start + width
            let greatest = range.reduce(Float(0)) { max($0, Float(abs(unquantized[$1]))) }
            let scale = scales == nil ? QuantizationWay.given : max(greatest, 1e-10) / largest
            if let scales, scales[row] != Double(scale) { return "scale of row \(row): \(scales[row]), not \(scale)" }
            let worst = range.reduce(0.0) { max($0, abs(reference[$1] - exact[$1])) }
            for index in range {
                let expected = rounded(Float(unquantized[index]) * (1 / scale), to: type)
                if found[index] != expected {
                    return "element \(index): \(found[index]), the float32 output converted is \(expected)"
                }
                // The definition, with no step of the operation's own.
                let wanted = min(max(exact[index] / Double(scale), -limits.low), limits.high)
                let step = type == .int8 ? 0.5 : halfStep(wanted)
                let slack = (2 * worst + 8 * 0x1p-24 * abs(exact[index])) / Double(scale) + 0x1p-22 * abs(wanted)
                if !(abs(found[index] - wanted) <= step + slack) {
                    return "element \(index): \(found[index]), exactly \(wanted)"
                }
            }
        }
        return nil
    }

    /// The type's range.
    private var limits: (low: Double, high: Double) {
        let largest = Double(type.quantizedMagnitude ?? 0)
        return (type == .int8 ? 128 : largest, largest)
    }

    /// Half the distance of the floats around `value`.
    private func halfStep(_ value: Double) -> Double {
        let (mantissa, least) = type == .float8E4M3 ? (3, -6) : (2, -14)
        let exponent = value == 0 ? least : max(Int(value.exponent), least)
        // A value just below a power of two may round up to it.
        return Double(sign: .plus, exponent: exponent - mantissa - 1, significand: 1)
    }
}
