/// A model as Hugging Face lays it out: a folder with `config.json`, safetensors and the tokenizer's files.
public struct HuggingFaceFolder: Sendable {
    /// The folder as it was given.
    public let path: String
    /// The weights.
    public let weights: SafetensorsShards

    /// `config.json`.
    package let config: JSONNode
    /// `generation_config.json`, `.null` when there is none.
    package let generationConfig: JSONNode
    /// `tokenizer_config.json`, `.null` when there is none.
    package let tokenizerConfig: JSONNode

    /// Where the tokenizer is; nil when the folder has no `tokenizer.json`.
    public let tokenizerPath: String?
    /// Where the tokenizer's settings are; nil when the folder has no `tokenizer_config.json`.
    public let tokenizerConfigPath: String?
    /// The chat template that newer models keep in a file of its own; nil when there is no `chat_template.jinja`.
    public let chatTemplatePath: String?

    /// No settings file in use comes near.
    private static let maximumSettingsSize = 16 << 20

    /// Opens and checks the folder at `path`.
    ///
    /// Throws when `config.json` or the weights are missing or any of the files is damaged.
    public init(path: String) throws(ModelFileError) {
        self.path = path
        guard let config = try Self.settings(path, "config.json") else {
            throw ModelFileError(file: path, problem: .missingFile(name: "config.json"))
        }
        self.config = config
        generationConfig = try Self.settings(path, "generation_config.json") ?? .null
        tokenizerConfig = try Self.settings(path, "tokenizer_config.json") ?? .null
        func present(_ name: String) -> String? {
            MappedFile.exists(path + "/" + name) ? path + "/" + name : nil
        }
        tokenizerPath = present("tokenizer.json")
        tokenizerConfigPath = present("tokenizer_config.json")
        chatTemplatePath = present("chat_template.jinja")
        weights = try SafetensorsShards(folder: path)
    }

    private static func settings(_ folder: String, _ name: String) throws(ModelFileError) -> JSONNode? {
        guard MappedFile.exists(folder + "/" + name) else { return nil }
        let file = try MappedFile(path: folder + "/" + name)
        guard file.count <= maximumSettingsSize else {
            throw file.error(
                .countTooLarge(what: "bytes", value: UInt64(file.count), limit: UInt64(maximumSettingsSize)))
        }
        let root = try JSONParser.parse(file, what: name)
        guard root.object != nil else {
            throw file.error(.wrongType(key: name, expected: "an object", found: root.kind))
        }
        return root
    }
}
