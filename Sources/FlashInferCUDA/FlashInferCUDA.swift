@_exported public import FlashInferCore
