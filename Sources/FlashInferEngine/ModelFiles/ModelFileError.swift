/// Why a model file could not be read: which file, and what is wrong with it.
public struct ModelFileError: Error, Equatable, Sendable, CustomStringConvertible {
    /// The path of the file, as it was given.
    public let file: String

    /// What is wrong.
    public let problem: Problem

    /// Makes an error about `file`.
    public init(file: String, problem: Problem) {
        self.file = file
        self.problem = problem
    }

    /// One line for a person: the file, the problem, the values and the limits; what the file says of itself is escaped.
    public var description: String { "\(file): \(problem)".escapedForTerminals }

    /// What can be wrong with a model file.
    public enum Problem: Equatable, Sendable {
        /// The operating system refused to open, read or map the file.
        case cannotOpen(reason: String)
        /// The path is a folder, a pipe or a device.
        case notARegularFile
        /// A folder lacks a file that it must have.
        case missingFile(name: String)
        /// A file name inside an index leads out of the model's folder.
        case unsafeFileName(String)
        /// The file ends inside `what`, which starts at byte `offset`.
        case truncated(what: String, offset: Int, needed: UInt64, available: Int)
        /// The first four bytes are not `GGUF`.
        case notGGUF(magic: UInt32)
        /// The file is a GGUF of the other byte order.
        case bigEndian
        /// A GGUF version other than 2 and 3.
        case unsupportedVersion(UInt32)
        /// A count or a length larger than what the rest of the file could hold, or than the format allows.
        case countTooLarge(what: String, value: UInt64, limit: UInt64)
        /// A text that is not UTF-8.
        case invalidUTF8(what: String, offset: Int)
        /// A key or a name of no characters.
        case emptyName(what: String, offset: Int)
        /// A metadata value type that no GGUF version defines.
        case unknownValueType(key: String, type: UInt32)
        /// A boolean that is neither 0 nor 1.
        case invalidBoolean(key: String, value: UInt8)
        /// Arrays inside arrays, or objects inside objects, deeper than `limit`.
        case nestedTooDeep(what: String, limit: Int)
        /// A metadata key that appears twice.
        case duplicateKey(String)
        /// A tensor name that appears twice.
        case duplicateTensor(String)
        /// `general.alignment` is not a power of two that fits 32 bits.
        case invalidAlignment(String)
        /// More dimensions than the format allows.
        case tooManyDimensions(tensor: String, count: UInt64, limit: Int)
        /// A shape that cannot be: a zero, an overflow, a row that is no whole number of blocks.
        case invalidShape(tensor: String, shape: [UInt64], reason: String)
        /// A tensor type that this reader has never heard of.
        case unknownTensorType(tensor: String, type: String)
        /// Tensor data that does not start at a multiple of the file's alignment.
        case misalignedTensor(tensor: String, offset: UInt64, alignment: Int)
        /// Tensor data that leaves the file.
        case tensorOutOfRange(tensor: String, start: UInt64, byteCount: UInt64, limit: Int)
        /// Two tensors that share bytes.
        case overlappingTensors(String, String)
        /// Bytes that belong to no tensor, where the format forbids them.
        case unreferencedBytes(start: Int, end: Int)
        /// A byte range that does not agree with the shape and the type.
        case wrongByteCount(tensor: String, expected: UInt64, found: UInt64)
        /// A text that is not JSON, or not the JSON that belongs there.
        case invalidJSON(what: String, offset: Int, reason: String)
        /// A metadata value, or a JSON field, of another type than the one that belongs there.
        case wrongType(key: String, expected: String, found: String)
        /// A tensor that the index puts in a shard that does not hold it.
        case tensorNotInShard(tensor: String, shard: String)
        /// A tensor that two shards hold.
        case tensorInTwoShards(tensor: String, first: String, second: String)
    }
}

extension ModelFileError.Problem: CustomStringConvertible {
    /// One line for a person.
    public var description: String {
        switch self {
        case .cannotOpen(let reason): "cannot be opened: \(reason)"
        case .notARegularFile: "is not a regular file"
        case .missingFile(let name): "has no \(name)"
        case .unsafeFileName(let name): "names the file \"\(name)\", which is not a plain file name in the same folder"
        case .truncated(let what, let offset, let needed, let available):
            "ends inside \(what) at byte \(offset): \(needed) bytes needed, \(available) left"
        case .notGGUF(let magic): "is not a GGUF file: it starts with 0x\(String(magic, radix: 16)), not 0x46554747"
        case .bigEndian: "is a big-endian GGUF; only little-endian files can be read"
        case .unsupportedVersion(let version): "is GGUF version \(version); versions 2 and 3 can be read"
        case .countTooLarge(let what, let value, let limit): "claims \(value) \(what), more than the possible \(limit)"
        case .invalidUTF8(let what, let offset): "\(what) at byte \(offset) is not UTF-8"
        case .emptyName(let what, let offset): "\(what) at byte \(offset) is empty"
        case .unknownValueType(let key, let type): "metadata \"\(key)\" has the unknown value type \(type)"
        case .invalidBoolean(let key, let value): "metadata \"\(key)\" has the boolean \(value), neither 0 nor 1"
        case .nestedTooDeep(let what, let limit): "\(what) is nested deeper than \(limit) levels"
        case .duplicateKey(let key): "the key \"\(key)\" appears twice"
        case .duplicateTensor(let name): "the tensor \"\(name)\" appears twice"
        case .invalidAlignment(let value): "general.alignment is \(value), not a power of two below 2^31"
        case .tooManyDimensions(let tensor, let count, let limit):
            "tensor \"\(tensor)\" has \(count) dimensions, more than \(limit)"
        case .invalidShape(let tensor, let shape, let reason): "tensor \"\(tensor)\" has the shape \(shape): \(reason)"
        case .unknownTensorType(let tensor, let type): "tensor \"\(tensor)\" has the unknown type \(type)"
        case .misalignedTensor(let tensor, let offset, let alignment):
            "tensor \"\(tensor)\" starts at \(offset), not a multiple of the alignment \(alignment)"
        case .tensorOutOfRange(let tensor, let start, let byteCount, let limit):
            "tensor \"\(tensor)\" takes \(byteCount) bytes from \(start) on, but the data ends at \(limit)"
        case .overlappingTensors(let first, let second): "tensors \"\(first)\" and \"\(second)\" overlap"
        case .unreferencedBytes(let start, let end): "the data bytes \(start) ..< \(end) belong to no tensor"
        case .wrongByteCount(let tensor, let expected, let found):
            "tensor \"\(tensor)\" has \(found) bytes; its shape and type need \(expected)"
        case .invalidJSON(let what, let offset, let reason): "\(what) is not valid at byte \(offset): \(reason)"
        case .wrongType(let key, let expected, let found): "\"\(key)\" is \(found), not \(expected)"
        case .tensorNotInShard(let tensor, let shard): "tensor \"\(tensor)\" should be in \(shard), but is not"
        case .tensorInTwoShards(let tensor, let first, let second):
            "tensor \"\(tensor)\" is in both \(first) and \(second)"
        }
    }
}
