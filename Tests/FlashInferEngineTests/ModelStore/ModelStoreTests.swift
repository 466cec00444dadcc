import FlashInferEngine
import Foundation
import TestSupport
import Testing

struct ModelStoreTests {
    @Test func livesWhereTheEnvironmentSays() {
        func path(_ environment: [String: String]) -> String { ModelStore(environment: environment).folder.path }
        #expect(path(["FLASHINFER_CACHE": "/a", "XDG_CACHE_HOME": "/b", "HOME": "/c"]) == "/a/models")
        #expect(path(["XDG_CACHE_HOME": "/b", "HOME": "/c"]) == "/b/flashinfer/models")
        #expect(path(["FLASHINFER_CACHE": "", "XDG_CACHE_HOME": "", "HOME": "/c"]) == "/c/.cache/flashinfer/models")
    }

    @Test func findsModels() throws {
        let temporary = try TemporaryFolder()
        let store = ModelStore(folder: temporary.url)
        try temporary.write("tiny.gguf", [1])
        try FileManager.default.createDirectory(
            at: temporary.url.appendingPathComponent("folder"), withIntermediateDirectories: true)
        #expect(try store.locate("tiny").path == temporary.path("tiny.gguf"))
        #expect(try store.locate("tiny.gguf").path == temporary.path("tiny.gguf"))
        #expect(try store.locate("folder").path == temporary.path("folder"))
        #expect(try store.locate(temporary.path("tiny.gguf")).path == temporary.path("tiny.gguf"))
        let known = ["smollm2", "gemma3-270m"]
        for name in ["", "no such model", "../tiny", "./tiny", "/no/such/file"] {
            #expect(throws: ModelStoreError.unknownModel(name, known: known)) { _ = try store.locate(name) }
        }
    }

    @Test func knowsTheCatalogue() throws {
        let temporary = try TemporaryFolder()
        let store = ModelStore(folder: temporary.url)
        #expect(ModelStore.catalogueModel(named: "SmolLM2") == ModelStore.smolLM2)
        #expect(throws: ModelStoreError.notFetched(name: "smollm2", downloadBytes: 92_871_040)) {
            _ = try store.locate("smollm2")
        }
        // A file of another size is not the model.
        try temporary.write(ModelStore.smolLM2.fileName, [1, 2, 3])
        #expect(!store.contains(.smolLM2))
        #expect(Set(CatalogueModel.all.map(\.name)).count == CatalogueModel.all.count)
        for model in CatalogueModel.all {
            #expect(model.sha256.count == 64 && model.sha256 == model.sha256.lowercased())
            #expect(!model.fileName.contains("/"))
        }
    }
}
