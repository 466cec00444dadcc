/// A GGUF file of version 2 or 3: metadata by key and tensors by name, over a mapped file.
///
/// Opening checks everything that is in the header and touches no tensor data; a 100 MB file opens in milliseconds.
/// Any bytes at all either open or throw a `ModelFileError`, and opening takes no more memory than a small multiple of
/// the header. Format: github.com/ggml-org/ggml, docs/gguf.md.
public struct GGUFFile: Sendable {
    /// The bytes.
    public let file: MappedFile
    /// 2 or 3.
    public let version: Int
    /// Every tensor's data starts at a multiple of this many bytes from `dataOffset`.
    public let alignment: Int
    /// Where the tensor data starts in the file.
    public let dataOffset: Int
    /// The metadata keys in the order of the file.
    public let keys: [String]
    /// The tensors in the order of the file.
    public let tensors: [GGUFTensor]

    private let values: [String: GGUFValue]
    private let tensorIndices: [String: Int]

    /// Opens and checks the file at `path`.
    public init(path: String) throws(ModelFileError) {
        try self.init(MappedFile(path: path))
    }

    /// Checks the bytes of `file`.
    public init(_ file: MappedFile) throws(ModelFileError) {
        var parser = GGUFParser(file)
        try parser.parse()
        self.file = file
        version = parser.version
        alignment = parser.alignment
        dataOffset = parser.dataOffset
        keys = parser.keys
        values = parser.values
        tensors = parser.tensors
        tensorIndices = parser.tensorIndices
    }

    /// The metadata value of `key`, nil when the file has none.
    public subscript(key: String) -> GGUFValue? { values[key] }

    /// The tensor called `name`, nil when the file has none.
    public func tensor(named name: String) -> GGUFTensor? { tensorIndices[name].map { tensors[$0] } }

    /// The data of one of this file's tensors. The pointer lives as long as `file`.
    public func bytes(of tensor: GGUFTensor) throws(ModelFileError) -> UnsafeRawBufferPointer {
        try file.bytes(in: tensor.range)
    }
}

/// One tensor of a GGUF file.
public struct GGUFTensor: Hashable, Sendable {
    /// Its name, such as `blk.0.attn_q.weight`.
    public let name: String
    /// How its numbers are stored.
    public let type: GGMLType
    /// Its extents in ggml's order: `shape[0]` is the number of columns, the extent that is contiguous in memory.
    public let shape: [Int]
    /// Where its data lies in the file.
    public let range: Range<Int>

    /// The number of elements.
    public var elementCount: Int { shape.reduce(1, *) }
}

extension GGUFFile {
    /// The text of `key`; nil when absent. Throws when it is something else.
    public func string(_ key: String) throws(ModelFileError) -> String? { try typed(key, "a string", \.string) }

    /// The integer of `key`, of any width; nil when absent. Throws when it is something else or does not fit `Int`.
    public func int(_ key: String) throws(ModelFileError) -> Int? { try typed(key, "an integer", \.int) }

    /// The number of `key`, integer or floating point; nil when absent. Throws when it is something else.
    public func double(_ key: String) throws(ModelFileError) -> Double? { try typed(key, "a number", \.double) }

    /// The boolean of `key`; nil when absent. Throws when it is something else.
    public func bool(_ key: String) throws(ModelFileError) -> Bool? { try typed(key, "a boolean", \.bool) }

    /// The array of `key`, not decoded; nil when absent. Throws when it is something else.
    public func array(_ key: String) throws(ModelFileError) -> GGUFArray? { try typed(key, "an array", \.array) }

    /// The texts of the array of `key`, decoded anew at each call; nil when absent. Throws when it is something else.
    public func strings(_ key: String) throws(ModelFileError) -> [String]? {
        try typed(key, "an array of strings") { $0.array?.strings }
    }

    /// The integers of the array of `key`, decoded anew at each call; nil when absent. Throws when it is something else.
    public func ints(_ key: String) throws(ModelFileError) -> [Int]? {
        try typed(key, "an array of integers") { $0.array?.ints }
    }

    /// The numbers of the array of `key`, decoded anew at each call; nil when absent. Throws when it is something else.
    public func floats(_ key: String) throws(ModelFileError) -> [Float]? {
        try typed(key, "an array of numbers") { $0.array?.floats }
    }

    private func typed<T>(
        _ key: String, _ expected: String, _ convert: (GGUFValue) -> T?
    ) throws(ModelFileError) -> T? {
        guard let value = values[key] else { return nil }
        guard let result = convert(value) else {
            throw file.error(.wrongType(key: key, expected: expected, found: value.typeDescription))
        }
        return result
    }
}

extension GGUFValue {
    /// The type in words, with an array's element type.
    var typeDescription: String {
        if case .array(let array) = self { "an array of \(array.elementType)" } else { "\(type) \(self)" }
    }
}
