// One import gives a user the core's values, the devices and the operations on them.
@_exported public import FlashInferCPU
@_exported public import FlashInferCUDA
@_exported public import FlashInferCore
