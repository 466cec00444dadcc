internal import CFlashInfer
internal import FlashInferCore

extension RoPEParameters {
    /// A caller's options; the defaults for NULL.
    init(_ pointer: UnsafePointer<fi_rope_options>?) throws {
        guard let pointer else {
            self.init()
            return
        }
        let given = try options(pointer, "rope options", empty: fi_rope_options())
        func value(_ number: Float, or standard: Float) -> Float { number == 0 ? standard : number }
        self.init(
            theta: value(given.theta, or: 10_000), rotaryDim: given.rotary_dim == 0 ? nil : Int(given.rotary_dim),
            pairing: try flag("interleave", given.interleave) ? .interleaved : .halfSplit)
        switch Int(given.scaling) {
        case FI_ROPE_UNSCALED: scaling = .none
        case FI_ROPE_LINEAR: scaling = .linear(factor: value(given.factor, or: 1))
        case FI_ROPE_LLAMA3:
            scaling = .llama3(
                factor: value(given.factor, or: 8), lowFrequencyFactor: value(given.low_freq_factor, or: 1),
                highFrequencyFactor: value(given.high_freq_factor, or: 4),
                originalContext: given.original_context == 0 ? 8192 : Int(given.original_context))
        case FI_ROPE_PER_PAIR:
            guard let factors = given.factors, given.factor_count <= 65_536 else {
                throw FlashInferError.invalidArgument(
                    "RoPE factors", found: given.factors == nil ? "NULL" : "\(given.factor_count)",
                    expected: "rotary_dim / 2 numbers")
            }
            scaling = .perPair(factors: Array(UnsafeBufferPointer(start: factors, count: Int(given.factor_count))))
        default:
            throw FlashInferError.invalidArgument("RoPE scaling", found: "\(given.scaling)", expected: "in 0 ... 3")
        }
    }
}
