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

/// What a caller's options hold besides parameters: tensors, which attention does not take.
struct RoPEExtras {
    var table: TensorView?
    var normalization: HeadNormalization?

    /// Those of a call on a device; none for NULL.
    init(_ pointer: UnsafePointer<fi_rope_options>?, on id: DeviceID) throws {
        guard let pointer else { return }
        let given = try options(pointer, "rope options", empty: fi_rope_options())
        table = try TensorView(optional: given.cos_sin_cache, "cos_sin_cache", on: id)
        let weight = try TensorView(optional: given.q_norm_weight, "q_norm_weight", on: id)
        let keyWeight = try TensorView(optional: given.k_norm_weight, "k_norm_weight", on: id)
        guard let weight else {
            guard keyWeight == nil, given.norm_eps == 0, given.norm_weight_offset == 0 else {
                throw FlashInferError.invalidArgument(
                    "q_norm_weight", found: "NULL", expected: "a tensor, as the rest of a normalisation is given")
            }
            return
        }
        normalization = HeadNormalization(
            queryWeight: weight, keyWeight: keyWeight, epsilon: given.norm_eps == 0 ? 1e-6 : given.norm_eps,
            weightOffset: given.norm_weight_offset)
    }

    /// Refuses what attention does not take.
    static func refuse(_ pointer: UnsafePointer<fi_rope_options>?) throws {
        guard let pointer else { return }
        let given = try options(pointer, "rope options", empty: fi_rope_options())
        guard given.cos_sin_cache == nil, given.q_norm_weight == nil, given.k_norm_weight == nil else {
            throw FlashInferError.invalidArgument(
                "rope options", found: "with tensors", expected: "without cos_sin_cache and norm weights, for attention"
            )
        }
    }
}
