// FlashInfer
