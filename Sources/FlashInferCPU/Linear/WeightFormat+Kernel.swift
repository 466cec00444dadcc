internal import CFlashInferCPU
internal import FlashInferCore

extension WeightFormat {
    /// The C name of the same format; raw values agree.
    internal var kernelFormat: fi_weight_format { fi_weight_format(rawValue: UInt32(rawValue)) }
}
