// FlashInferEngine
