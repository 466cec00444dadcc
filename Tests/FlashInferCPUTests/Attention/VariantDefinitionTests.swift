import FlashInferCPU
import FlashInferCore
import TestSupport
import Testing

/// What is built in, against definitions that were written without an expression.
@Suite struct VariantDefinitionTests {
    @Test(arguments: VariantDefinition.all.indices) func onTheCPU(_ index: Int) throws {
        let definition = VariantDefinition.all[index]
        for (mode, dtype, limit) in [
            (Planner.Mode.balanced, DType.float32, 2e-5), (.batchInvariant(splitSize: 128), .float32, 2e-5),
            (.balanced, .bfloat16, 0.02),
        ] {
            let error = try definition.error(on: CPUDevice(threads: 2), dtype: dtype, mode: mode)
            #expect(error < limit, "\(definition.name), \(dtype)")
        }
    }

    @Test func namesAreThoseOfModels() {
        #expect(AttentionVariant.gemma2() == AttentionVariant(mask: .causal, windowLeft: 4095, logitsSoftCap: 50))
        #expect(AttentionVariant.mistral() == AttentionVariant(mask: .causal, windowLeft: 4095))
        #expect(AttentionVariant.gptOSS(window: nil) == AttentionVariant(mask: .causal, hasSinks: true))
        for variant in [AttentionVariant.gemma2(), .mistral(), .gptOSS()] { #expect(variant.form.isFused) }
    }
}
