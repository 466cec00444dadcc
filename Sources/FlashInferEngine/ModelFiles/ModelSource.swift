import Foundation

/// A model on disk, in either of the two layouts that the engine reads.
public enum ModelSource: Sendable {
    /// A GGUF file.
    case gguf(GGUFFile)
    /// A Hugging Face folder.
    case huggingFace(HuggingFaceFolder)

    /// Opens what is at `path`: a folder as Hugging Face's, anything else as GGUF.
    public static func open(_ path: String) throws(ModelFileError) -> ModelSource {
        var isFolder: ObjCBool = false
        if FileManager.default.fileExists(atPath: path, isDirectory: &isFolder), isFolder.boolValue {
            return .huggingFace(try HuggingFaceFolder(path: path))
        }
        return .gguf(try GGUFFile(path: path))
    }

    /// The model's settings.
    public func config() throws(ModelConfigError) -> ModelConfig {
        switch self {
        case .gguf(let file): try ModelConfig(gguf: file)
        case .huggingFace(let folder): try ModelConfig(huggingFace: folder)
        }
    }

    /// The model's weights, checked against `config`.
    public func weights(_ config: ModelConfig) throws(ModelWeightsError) -> ModelWeights {
        switch self {
        case .gguf(let file): try ModelWeights(gguf: file, config: config)
        case .huggingFace(let folder): try ModelWeights(huggingFace: folder, config: config)
        }
    }
}
