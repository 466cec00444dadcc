/// One `.safetensors` file over mapped bytes: a JSON header and the tensors behind it.
///
/// Opening checks the whole header (github.com/huggingface/safetensors, "Format"): its length, the JSON, every dtype,
/// shape and byte range, and that the ranges cover the data without overlap and without holes. Any bytes at all either
/// open or throw.
public struct SafetensorsFile: Sendable {
    /// The bytes.
    public let file: MappedFile
    /// The texts under `__metadata__`.
    public let metadata: [String: String]
    /// The tensors in the order of their data.
    public let tensors: [SafetensorsTensor]

    private let tensorIndices: [String: Int]

    /// The limit of the format.
    private static let maximumHeaderLength = 100_000_000

    /// Opens and checks the file at `path`.
    public init(path: String) throws(ModelFileError) {
        try self.init(MappedFile(path: path))
    }

    /// Checks the bytes of `file`.
    public init(_ file: MappedFile) throws(ModelFileError) {
        var reader = ByteReader(file)
        let length = try reader.read(as: UInt64.self, "the header length")
        let limit = UInt64(min(Self.maximumHeaderLength, reader.remaining))
        guard length <= limit else {
            throw file.error(.countTooLarge(what: "bytes of header", value: length, limit: limit))
        }
        let header = try reader.skip(length, "the header")
        guard header.count >= 2, file.bytes[header.lowerBound] == UInt8(ascii: "{") else {
            throw file.error(
                .invalidJSON(what: "the header", offset: header.lowerBound, reason: "it does not start with \"{\""))
        }
        let root = try JSONParser.parse(file, range: header, what: "the header")
        var metadata: [String: String] = [:]
        var tensors: [SafetensorsTensor] = []
        let builder = TensorBuilder(file: file, data: header.upperBound..<file.count)
        for (name, value) in root.object ?? [:] {
            if name == "__metadata__" {
                metadata = try builder.metadata(value)
            } else {
                tensors.append(try builder.tensor(name, value))
            }
        }
        // Empty tensors sort before the one that starts at the same byte.
        tensors.sort {
            ($0.range.lowerBound, $0.range.upperBound, $0.name) < ($1.range.lowerBound, $1.range.upperBound, $1.name)
        }
        try builder.checkCoverage(tensors)
        self.file = file
        self.metadata = metadata
        self.tensors = tensors
        tensorIndices = Dictionary(uniqueKeysWithValues: zip(tensors.map(\.name), 0...))
    }

    /// The tensor called `name`, nil when the file has none.
    public func tensor(named name: String) -> SafetensorsTensor? { tensorIndices[name].map { tensors[$0] } }
}

/// One tensor of a safetensors file.
public struct SafetensorsTensor: Hashable, Sendable {
    /// Its name, such as `model.layers.0.self_attn.q_proj.weight`.
    public let name: String
    /// The type of its elements.
    public let type: SafetensorsType
    /// Its extents, row-major: the last one is contiguous in memory.
    public let shape: [Int]
    /// Where its data lies in the file. Not necessarily aligned to the element size.
    public let range: Range<Int>
}

/// Turns the members of a header into tensors.
private struct TensorBuilder {
    let file: MappedFile
    /// Where the data section lies in the file.
    let data: Range<Int>

    func metadata(_ value: JSONNode) throws(ModelFileError) -> [String: String] {
        guard let members = value.object else {
            throw file.error(.wrongType(key: "__metadata__", expected: "an object", found: value.kind))
        }
        var result: [String: String] = [:]
        for (key, value) in members {
            guard let text = value.string else {
                throw file.error(.wrongType(key: "__metadata__.\(key)", expected: "a string", found: value.kind))
            }
            result[key] = text
        }
        return result
    }

    func tensor(_ name: String, _ value: JSONNode) throws(ModelFileError) -> SafetensorsTensor {
        func member(_ key: String, _ expected: String) -> ModelFileError {
            file.error(.wrongType(key: "\(name).\(key)", expected: expected, found: value[key]?.kind ?? "missing"))
        }
        guard let typeName = value["dtype"]?.string else { throw member("dtype", "a string") }
        guard let type = SafetensorsType(name: typeName) else {
            throw file.error(.unknownTensorType(tensor: name, type: typeName))
        }
        guard let shape = naturals(value["shape"]) else { throw member("shape", "an array of natural numbers") }
        guard let offsets = naturals(value["data_offsets"]), offsets.count == 2 else {
            throw member("data_offsets", "two natural numbers")
        }
        let expected = try byteCount(of: shape, type: type, tensor: name)
        guard offsets[0] <= offsets[1], offsets[1] <= data.count else {
            let (count, _) = offsets[1].subtractingReportingOverflow(offsets[0])
            throw file.error(
                .tensorOutOfRange(
                    tensor: name, start: UInt64(offsets[0]), byteCount: UInt64(max(0, count)), limit: data.count))
        }
        guard offsets[1] - offsets[0] == expected else {
            throw file.error(
                .wrongByteCount(
                    tensor: name, expected: UInt64(expected), found: UInt64(offsets[1] - offsets[0])))
        }
        let start = data.lowerBound + offsets[0]
        return SafetensorsTensor(name: name, type: type, shape: shape, range: start..<start + expected)
    }

    private func naturals(_ value: JSONNode?) -> [Int]? {
        guard let elements = value?.array else { return nil }
        let numbers = elements.compactMap(\.int)
        return numbers.count == elements.count && numbers.allSatisfy { $0 >= 0 } ? numbers : nil
    }

    private func byteCount(of shape: [Int], type: SafetensorsType, tensor: String) throws(ModelFileError) -> Int {
        var bytes = type.byteCount
        for extent in shape {
            let (product, overflow) = bytes.multipliedReportingOverflow(by: extent)
            guard !overflow else {
                throw file.error(
                    .invalidShape(
                        tensor: tensor, shape: shape.map(UInt64.init),
                        reason: "the number of bytes does not fit 63 bits"))
            }
            bytes = product
        }
        return bytes
    }

    func checkCoverage(_ tensors: [SafetensorsTensor]) throws(ModelFileError) {
        var end = data.lowerBound
        var last = ""
        for tensor in tensors {
            guard tensor.range.lowerBound >= end else { throw file.error(.overlappingTensors(last, tensor.name)) }
            guard tensor.range.lowerBound == end else {
                throw file.error(.unreferencedBytes(start: end, end: tensor.range.lowerBound))
            }
            end = tensor.range.upperBound
            last = tensor.name
        }
        guard end == data.upperBound else { throw file.error(.unreferencedBytes(start: end, end: data.upperBound)) }
    }
}
