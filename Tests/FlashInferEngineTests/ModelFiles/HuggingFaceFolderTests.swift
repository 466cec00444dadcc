import FlashInferEngine
import Foundation
import TestSupport
import Testing

struct HuggingFaceFolderTests {
    private func problem(_ path: String) -> ModelFileError.Problem? {
        do throws(ModelFileError) {
            _ = try HuggingFaceFolder(path: path)
            return nil
        } catch {
            return error.problem
        }
    }

    @Test func opensAFolder() throws {
        let temporary = try TemporaryFolder()
        try TinyModelWriter().writeHuggingFace(to: temporary.path("m"))
        let folder = try HuggingFaceFolder(path: temporary.path("m"))
        #expect(folder.tokenizerPath == temporary.path("m/tokenizer.json"))
        #expect(folder.tokenizerConfigPath == temporary.path("m/tokenizer_config.json"))
        #expect(folder.chatTemplatePath == nil)
        #expect(folder.config["model_type"]?.string == "llama")
        #expect(folder.weights.tensor(named: "model.norm.weight")?.tensor.shape == [32])
        // The test writer's own JSON must be what it is meant to be.
        let tokenizer = try JSONNode(parsing: MappedFile(path: temporary.path("m/tokenizer.json")))
        #expect(tokenizer["model"]?["vocab"]?.object?.count == TinyVocabulary.tokens.count)
        #expect(folder.tokenizerConfig["chat_template"]?.string == TinyVocabulary.chatTemplate)
    }

    @Test func joinsShards() throws {
        let temporary = try TemporaryFolder()
        try TinyModelWriter().writeHuggingFace(to: temporary.path("one"))
        try TinyModelWriter().writeHuggingFace(to: temporary.path("three"), shards: 3)
        let one = try HuggingFaceFolder(path: temporary.path("one"))
        let three = try HuggingFaceFolder(path: temporary.path("three"))
        #expect(three.weights.files.count == 3)
        let config = try ModelConfig(huggingFace: three)
        let whole = try ModelWeights(huggingFace: one, config: config)
        let split = try ModelWeights(huggingFace: three, config: config)
        for role in WeightRole.all(for: config) {
            #expect(try whole.tensor(role).bytes.elementsEqual(split.tensor(role).bytes))
        }
    }

    @Test func namesWhatIsMissing() throws {
        let temporary = try TemporaryFolder()
        #expect(problem(temporary.url.path) == .missingFile(name: "config.json"))
        try temporary.write("config.json", "{}".utf8)
        #expect(
            problem(temporary.url.path)
                == .missingFile(name: "model.safetensors or model.safetensors.index.json"))
        try temporary.write("config.json", "[]".utf8)
        #expect(problem(temporary.url.path) == .wrongType(key: "config.json", expected: "an object", found: "an array"))
        try temporary.write("config.json", "{\"a\":}".utf8)
        guard case .invalidJSON("config.json", _, _) = problem(temporary.url.path) else {
            Issue.record("a broken config.json was accepted")
            return
        }
    }

    @Test func refusesBadIndices() throws {
        let temporary = try TemporaryFolder()
        try temporary.write("config.json", "{}".utf8)
        func index(_ text: String) throws -> ModelFileError.Problem? {
            try temporary.write("model.safetensors.index.json", text.utf8)
            return problem(temporary.url.path)
        }
        #expect(try index("{}") == .wrongType(key: "weight_map", expected: "an object", found: "missing"))
        for name in ["../a.safetensors", "/etc/passwd", "..", "", "a/b"] {
            #expect(try index("{\"weight_map\":{\"t\":\"\(name)\"}}") == .unsafeFileName(name))
        }
        #expect(try index(#"{"weight_map":{"t":"a"}}"#) == .missingFile(name: "a"))
        #expect(
            try index(#"{"weight_map":{"t":1}}"#)
                == .wrongType(key: "weight_map.t", expected: "a string", found: "the number 1"))
        let tensor = SafetensorsWriter.Tensor("u", type: "U8", shape: [1], bytes: [1])
        try temporary.write("a", SafetensorsWriter([tensor]).bytes())
        #expect(try index(#"{"weight_map":{"t":"a"}}"#) == .tensorNotInShard(tensor: "t", shard: "a"))
        try temporary.write("b", SafetensorsWriter([tensor]).bytes())
        #expect(
            try index(#"{"weight_map":{"u":"a","v":"b"}}"#)
                == .tensorInTwoShards(tensor: "u", first: temporary.path("a"), second: temporary.path("b")))
    }
}
