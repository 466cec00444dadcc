public import Foundation

/// The folder where models live on this machine, and the way they get there.
///
/// The folder is `$FLASHINFER_CACHE/models`, else `$XDG_CACHE_HOME/flashinfer/models`, else
/// `~/.cache/flashinfer/models`.
public struct ModelStore: Sendable {
    /// The folder of the models; made when the first one is fetched.
    public let folder: URL

    /// Variables for the programs that a fetch starts; PATH says where Python is.
    let environment: [String: String]

    /// The store of the user whose environment this is.
    public init(environment: [String: String] = ProcessInfo.processInfo.environment) {
        func variable(_ name: String) -> String? { environment[name].flatMap { $0.isEmpty ? nil : $0 } }
        let cache =
            if let own = variable("FLASHINFER_CACHE") {
                URL(fileURLWithPath: own, isDirectory: true)
            } else if let shared = variable("XDG_CACHE_HOME") {
                URL(fileURLWithPath: shared, isDirectory: true).appendingPathComponent("flashinfer")
            } else {
                URL(fileURLWithPath: variable("HOME") ?? NSHomeDirectory(), isDirectory: true)
                    .appendingPathComponent(".cache/flashinfer")
            }
        self.init(folder: cache.appendingPathComponent("models"), environment: environment)
    }

    /// A store in `folder`; `environment` goes to the programs that a fetch starts.
    public init(folder: URL, environment: [String: String] = ProcessInfo.processInfo.environment) {
        self.folder = folder
        self.environment = environment
    }

    /// Where `model` lies once it has been fetched.
    public func location(of model: CatalogueModel) -> URL { folder.appendingPathComponent(model.fileName) }

    /// Whether `model` has been fetched: a file of the right size, which was checked before it got its name.
    public func contains(_ model: CatalogueModel) -> Bool {
        let size = try? FileManager.default.attributesOfItem(atPath: location(of: model).path)[.size] as? Int
        return size == model.byteCount
    }

    /// Finds a model on this machine by what a user would call it: a name of the catalogue, the path of a GGUF file or
    /// of a Hugging Face folder, or the name of a file or a folder in the store, with or without `.gguf`.
    ///
    /// Throws `notFetched` for a name of the catalogue that is not here yet; `fetch` then brings it.
    public func locate(_ nameOrPath: String) throws(ModelStoreError) -> URL {
        if let model = Self.catalogueModel(named: nameOrPath) {
            guard contains(model) else {
                throw .notFetched(name: model.name, downloadBytes: model.downloadBytes)
            }
            return location(of: model)
        }
        guard !nameOrPath.isEmpty else { throw .unknownModel("", known: CatalogueModel.all.map(\.name)) }
        var candidates = [URL(fileURLWithPath: nameOrPath)]
        if !nameOrPath.contains("/"), !nameOrPath.hasPrefix(".") {
            candidates.append(folder.appendingPathComponent(nameOrPath))
            candidates.append(folder.appendingPathComponent(nameOrPath + ".gguf"))
        }
        guard let found = candidates.first(where: { FileManager.default.fileExists(atPath: $0.path) }) else {
            throw .unknownModel(nameOrPath, known: CatalogueModel.all.map(\.name))
        }
        return found
    }

    /// The model of the catalogue that a user calls `name`, in any case of letters.
    public static func catalogueModel(named name: String) -> CatalogueModel? {
        CatalogueModel.all.first { $0.name == name.lowercased() }
    }
}

extension ModelStore {
    /// SmolLM2 135M Instruct, the model of the demonstration.
    public static var smolLM2: CatalogueModel { CatalogueModel.smolLM2 }
}
