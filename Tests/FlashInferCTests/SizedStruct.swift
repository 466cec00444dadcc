import CFlashInfer

/// A struct of the C interface that says its size first.
protocol SizedStruct {
    init()
    // swift-format-ignore: AlwaysUseLowerCamelCase
    var struct_size: UInt64 { get set }
}

extension SizedStruct {
    /// All zeros but for the size, as a caller in C starts.
    static var sized: Self {
        var value = Self()
        value.struct_size = UInt64(MemoryLayout<Self>.size)
        return value
    }
}

extension fi_append_args: SizedStruct {}
extension fi_attention_options: SizedStruct {}
extension fi_attention_plan_info: SizedStruct {}
extension fi_communicator_options: SizedStruct {}
extension fi_device_info: SizedStruct {}
extension fi_device_options: SizedStruct {}
extension fi_quantize_options: SizedStruct {}
extension fi_rope_options: SizedStruct {}
extension fi_split_rope_args: SizedStruct {}
