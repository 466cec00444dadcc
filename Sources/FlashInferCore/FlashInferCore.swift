// FlashInferCore
