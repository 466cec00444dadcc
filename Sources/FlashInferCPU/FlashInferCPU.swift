// FlashInferCPU
