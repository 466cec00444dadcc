import CFlashInfer
import FlashInfer
import FlashInferCore
import TestSupport
import Testing

/// Variants in their JSON form through the C ABI.
@Suite struct CVariantTests {
    @Test func variantsWithParameters() throws {
        let sample = try #require(VariantSample.builtIns.first { $0.variant.name == "documents" })
        let fixture = try AttentionFixture(AttentionCase(lengths: [(5, 80), (17, 100)], seed: 3, sample: sample))
        let batch = try CBatch(AttentionBuffers(fixture, on: CPUDevice(threads: 2)))
        var options = batch.options
        options.mask_mode = Int32(FI_MASK_NONE)
        let device = try CDevice.cpu()
        let ids = try #require(sample.values(fixture.problem.geometry, fixture.problem.shape)["documents"])
        let tensor = try AttentionTensor(.int32, [2, ids.count / 2])
        ids.withBytes { tensor.bytes.copyMemory(from: $0) }
        let found = try sample.variant.json.withCString { json in
            options.variant = json
            let attention = try CAttention(options, on: device)
            try ok(batch.plan(attention))
            try batch.buffers.poisonResults()
            try "documents".withCString { name in
                let view = CTensor(tensor.view, keeping: tensor)
                try withUnsafePointer(to: fi_parameter(name: name, tensor: UnsafePointer(view.pointer))) { parameter in
                    var args = batch.args
                    #expect(attention.run(args) != FI_OK, "the parameter is missing")
                    (args.parameters, args.parameter_count) = (parameter, 1)
                    try ok(attention.run(args))
                }
            }
            return try batch.buffers.results()
        }
        batch.expectClose(found, fixture.oracle.evaluate())
    }

    @Test func optionsDoNotMix() throws {
        let device = try CDevice.cpu()
        var options = fi_attention_options()
        (options.num_qo_heads, options.num_kv_heads, options.head_dim_qk) = (2, 2, 64)
        options.q_dtype = DType.float32.dl
        for json in [#"{"mask":["le","keyPosition","queryPosition"]}"#, #"{"mask":["le","keyPosition"]}"#] {
            json.withCString { json in
                options.variant = json
                options.window = json.pointee == 0 ? 0 : 5
                #expect(throws: (any Error).self) { try CAttention(options, on: device) }
                options.window = 0
            }
        }
    }
}
