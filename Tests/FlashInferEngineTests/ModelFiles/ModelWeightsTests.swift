import FlashInferCore
import FlashInferEngine
import TestSupport
import Testing

struct ModelWeightsTests {
    private func gguf(_ writer: GGUFWriter) throws -> ModelWeights {
        let file = try GGUFFile(MappedFile.guarded(writer.bytes()))
        return try ModelWeights(gguf: file, config: ModelConfig(gguf: file))
    }

    private func error(_ writer: GGUFWriter) throws -> ModelWeightsError? {
        let file = try GGUFFile(MappedFile.guarded(writer.bytes()))
        let config = try ModelConfig(gguf: file)
        do throws(ModelWeightsError) {
            _ = try ModelWeights(gguf: file, config: config)
            return nil
        } catch {
            return error
        }
    }

    private func floats(_ tensor: WeightTensor) -> [Float] {
        (0..<tensor.rows * tensor.columns).map {
            Float(bitPattern: tensor.bytes.loadUnaligned(fromByteOffset: $0 * 4, as: UInt32.self))
        }
    }

    @Test(arguments: TinyModelWriter.Architecture.allCases, [false, true])
    func findsEveryRoleInBothLayouts(architecture: TinyModelWriter.Architecture, tied: Bool) throws {
        var writer = TinyModelWriter(architecture: architecture)
        writer.tiedEmbeddings = tied
        let temporary = try TemporaryFolder()
        try writer.writeHuggingFace(to: temporary.path("m"))
        let folder = try HuggingFaceFolder(path: temporary.path("m"))
        let fromFolder = try ModelWeights(huggingFace: folder, config: ModelConfig(huggingFace: folder))
        let fromGGUF = try gguf(writer.gguf())
        let roles = WeightRole.all(for: fromGGUF.config)
        #expect(roles == WeightRole.all(for: fromFolder.config))
        #expect(roles.count == writer.weights().count)
        for role in roles {
            let (rows, columns) = role.shape(for: fromGGUF.config)
            for tensor in [try fromGGUF.tensor(role), try fromFolder.tensor(role)] {
                #expect(tensor.rows == rows && tensor.columns == columns)
                #expect(tensor.format == .float32)
                #expect(tensor.bytes.count == rows * tensor.bytesPerRow)
            }
        }
        #expect((fromGGUF[.output]?.name == "token_embd.weight") == tied)
        let down = try floats(fromGGUF.tensor(.down(layer: 1)))
        #expect(try down == floats(fromFolder.tensor(.down(layer: 1))))
        #expect(down == writer.weights().first { $0.ggufName == "blk.1.ffn_down.weight" }?.values)
    }

    @Test func keepsTheFileAlive() throws {
        var tensor: WeightTensor?
        do { tensor = try gguf(TinyModelWriter().gguf())[.outputNorm] }
        let kept = try #require(tensor)
        #expect(floats(kept).count == 32)
    }

    @Test(arguments: TinyModelWriter.Precision.allCases)
    func readsEveryPrecision(precision: TinyModelWriter.Precision) throws {
        let weights = try gguf(TinyModelWriter(precision: precision).gguf())
        let tensor = try weights.tensor(.gate(layer: 0))
        #expect(GGMLType(id: precision.ggmlType)?.weightFormat == tensor.format)
        #expect(try weights.tensor(.outputNorm).format == .float32)
    }

    @Test func namesTheTensorThatIsWrong() throws {
        var writer = TinyModelWriter().gguf()
        let place = try #require(writer.tensors.firstIndex { $0.name == "blk.1.ffn_up.weight" })
        let good = writer.tensors[place]
        writer.tensors[place].name = "blk.1.ffn_upp.weight"
        #expect(try error(writer) == .missingTensor("blk.1.ffn_up.weight"))
        writer.tensors[place] = good
        writer.tensors[place].shape = [64, 32]
        #expect(try error(writer) == .wrongShape(tensor: good.name, expected: [64, 32], found: [32, 64]))
        writer.tensors[place].shape = [32 * 64]
        #expect(try error(writer) == .wrongShape(tensor: good.name, expected: [64, 32], found: [2048]))
        writer.tensors[place] = good
        writer.tensors[place].type = 26
        guard case .unsupportedFormat("blk.1.ffn_up.weight", "I32", let supported) = try error(writer) else {
            Issue.record("a matrix of integers was accepted")
            return
        }
        #expect(supported.count == WeightFormat.allCases.count)
    }

    @Test func refusesQuantisedVectors() throws {
        var writer = TinyModelWriter().gguf()
        let place = try #require(writer.tensors.firstIndex { $0.name == "output_norm.weight" })
        writer.tensors[place].type = 8
        writer.tensors[place].bytes = [UInt8](repeating: 0, count: 34)
        #expect(
            try error(writer)
                == .unsupportedFormat(tensor: "output_norm.weight", format: "Q8_0", supported: ["F32", "F16", "BF16"]))
    }

    @Test func refusesWhatItWouldIgnore() throws {
        var writer = TinyModelWriter().gguf()
        writer.tensors.append(.init("blk.0.attn_output.bias", shape: [32], bytes: [UInt8](repeating: 0, count: 128)))
        #expect(try error(writer) == .unexpectedTensor("blk.0.attn_output.bias"))
    }

    @Test func passesOverOtherTowers() throws {
        let temporary = try TemporaryFolder()
        let writer = TinyModelWriter(architecture: .gemma3)
        for prefix in ["language_model.", "model.language_model."] {
            let path = temporary.path(prefix)
            try writer.writeHuggingFace(to: path)
            var safetensors = writer.safetensors()
            for index in safetensors.tensors.indices {
                let name = safetensors.tensors[index].name
                if prefix == "language_model." {
                    safetensors.tensors[index].name = prefix + name
                } else if name.hasPrefix("model.") {
                    safetensors.tensors[index].name = prefix + name.dropFirst(6)
                }
            }
            safetensors.tensors.append(
                .init(
                    "\(prefix.hasPrefix("model.") ? "model." : "")vision_tower.a", type: "I64", shape: [1],
                    bytes: [UInt8](repeating: 0, count: 8)))
            try temporary.write("\(prefix)/model.safetensors", safetensors.bytes())
            let folder = try HuggingFaceFolder(path: path)
            let weights = try ModelWeights(huggingFace: folder, config: ModelConfig(huggingFace: folder))
            #expect(
                weights[.output]?.name
                    == (prefix == "language_model." ? "language_model.lm_head.weight" : "lm_head.weight"))
        }
    }
}
