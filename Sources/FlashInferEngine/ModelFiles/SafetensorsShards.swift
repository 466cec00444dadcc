/// The safetensors files of one model: a single file, or the shards that an index names.
public struct SafetensorsShards: Sendable {
    /// The files, in the order of their names.
    public let files: [SafetensorsFile]

    /// Which file holds which tensor.
    private let places: [String: Place]

    private struct Place {
        let file: Int
        let tensor: SafetensorsTensor
    }

    /// Opens `model.safetensors` in `folder`, or, when there is none, the shards of `model.safetensors.index.json`.
    ///
    /// Throws when a shard is missing or damaged, when the index names a file outside the folder, a tensor that its
    /// shard lacks, or when two shards hold one tensor.
    public init(folder: String) throws(ModelFileError) {
        let single = folder + "/model.safetensors"
        if MappedFile.exists(single) {
            try self.init(files: [SafetensorsFile(path: single)])
            return
        }
        let indexPath = folder + "/model.safetensors.index.json"
        guard MappedFile.exists(indexPath) else {
            throw ModelFileError(
                file: folder, problem: .missingFile(name: "model.safetensors or model.safetensors.index.json"))
        }
        let index = try MappedFile(path: indexPath)
        let map = try Self.weightMap(index)
        var files: [SafetensorsFile] = []
        for name in Set(map.values).sorted() {
            guard Self.isPlainFileName(name) else { throw index.error(.unsafeFileName(name)) }
            guard MappedFile.exists(folder + "/" + name) else {
                throw ModelFileError(file: folder, problem: .missingFile(name: name))
            }
            files.append(try SafetensorsFile(path: folder + "/" + name))
        }
        try self.init(files: files)
        let names = Set(map.values).sorted()
        for (tensor, shard) in map {
            guard let place = places[tensor], names[place.file] == shard else {
                throw index.error(.tensorNotInShard(tensor: tensor, shard: shard))
            }
        }
    }

    /// Joins files that are already open.
    public init(files: [SafetensorsFile]) throws(ModelFileError) {
        var places: [String: Place] = [:]
        for (number, file) in files.enumerated() {
            for tensor in file.tensors {
                if let other = places.updateValue(Place(file: number, tensor: tensor), forKey: tensor.name) {
                    throw file.file.error(
                        .tensorInTwoShards(
                            tensor: tensor.name, first: files[other.file].file.path, second: file.file.path))
                }
            }
        }
        self.files = files
        self.places = places
    }

    /// The tensor called `name` and the file that holds it, nil when there is none.
    public func tensor(named name: String) -> (tensor: SafetensorsTensor, file: MappedFile)? {
        places[name].map { ($0.tensor, files[$0.file].file) }
    }

    private static func weightMap(_ index: MappedFile) throws(ModelFileError) -> [String: String] {
        let root = try JSONParser.parse(index, what: "the index")
        guard let members = root["weight_map"]?.object else {
            throw index.error(
                .wrongType(key: "weight_map", expected: "an object", found: root["weight_map"]?.kind ?? "missing"))
        }
        var map: [String: String] = [:]
        for (tensor, value) in members {
            guard let shard = value.string else {
                throw index.error(
                    .wrongType(key: "weight_map.\(tensor)", expected: "a string", found: value.kind))
            }
            map[tensor] = shard
        }
        return map
    }

    private static func isPlainFileName(_ name: String) -> Bool {
        !name.isEmpty && name != "." && name != ".." && !name.utf8.contains { $0 == UInt8(ascii: "/") || $0 == 0 }
    }
}
