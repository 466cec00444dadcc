/// The steps of opening a GGUF file: header, metadata, tensor table, and the checks across tensors.
struct GGUFParser {
    private(set) var version = 0
    private(set) var alignment = 32
    private(set) var dataOffset = 0
    private(set) var keys: [String] = []
    private(set) var values: [String: GGUFValue] = [:]
    private(set) var tensors: [GGUFTensor] = []
    private(set) var tensorIndices: [String: Int] = [:]

    private let file: MappedFile
    private var reader: ByteReader

    /// "GGUF", read little-endian.
    private static let magic: UInt32 = 0x4655_4747
    private static let maximumDimensions = 4
    /// No name in use comes near; a longer one is a damaged file.
    private static let maximumNameLength = 65_535

    init(_ file: MappedFile) {
        self.file = file
        reader = ByteReader(file)
    }

    mutating func parse() throws(ModelFileError) {
        let (tensorCount, valueCount) = try parseHeader()
        try parseMetadata(count: valueCount)
        try readAlignment()
        let entries = try parseTensorTable(count: tensorCount)
        try locate(entries)
        try checkOverlaps()
    }

    private mutating func parseHeader() throws(ModelFileError) -> (tensors: UInt64, values: UInt64) {
        let magic = try reader.read(as: UInt32.self, "the magic number")
        guard magic == Self.magic else { throw file.error(.notGGUF(magic: magic)) }
        let version = try reader.read(as: UInt32.self, "the version")
        // A big-endian writer stores version 3 as 00 00 00 03.
        guard version == 0 || version & 0xffff != 0 else { throw file.error(.bigEndian) }
        guard version == 2 || version == 3 else { throw file.error(.unsupportedVersion(version)) }
        self.version = Int(version)
        let tensorCount = try reader.read(as: UInt64.self, "the tensor count")
        let valueCount = try reader.read(as: UInt64.self, "the metadata count")
        // The least a tensor can take: name length, one character, dimension count, type, offset.
        try check(tensorCount, "tensors", leastSize: 8 + 1 + 4 + 4 + 8)
        // The least a value can take: key length, one character, type, one byte.
        try check(valueCount, "metadata values", leastSize: 8 + 1 + 4 + 1)
        return (tensorCount, valueCount)
    }

    private func check(_ count: UInt64, _ what: String, leastSize: Int) throws(ModelFileError) {
        let limit = UInt64(reader.remaining / leastSize)
        guard count <= limit else { throw file.error(.countTooLarge(what: what, value: count, limit: limit)) }
    }

    private mutating func readName(_ what: String) throws(ModelFileError) -> String {
        let start = reader.offset
        let range = try reader.skipString(what)
        guard !range.isEmpty else { throw file.error(.emptyName(what: what, offset: start)) }
        guard range.count <= Self.maximumNameLength else {
            throw file.error(
                .countTooLarge(
                    what: "bytes in \(what)", value: UInt64(range.count), limit: UInt64(Self.maximumNameLength)))
        }
        return file.string(in: range)
    }

    private mutating func parseMetadata(count: UInt64) throws(ModelFileError) {
        for _ in 0..<count {
            let key = try readName("a metadata key")
            let type = try reader.readValueType(key: key)
            let value = try reader.readValue(type, key: key, depth: 0)
            guard values.updateValue(value, forKey: key) == nil else { throw file.error(.duplicateKey(key)) }
            keys.append(key)
        }
    }

    private mutating func readAlignment() throws(ModelFileError) {
        guard let value = values["general.alignment"] else { return }
        guard let number = value.int, number > 0, number < 1 << 31, number & (number - 1) == 0 else {
            throw file.error(.invalidAlignment(value.description))
        }
        alignment = number
    }

    /// A row of the tensor table; the offset counts from the start of the data.
    private struct Entry {
        let name: String
        let type: GGMLType
        let shape: [Int]
        let byteCount: Int
        let offset: UInt64
    }

    private mutating func parseTensorTable(count: UInt64) throws(ModelFileError) -> [Entry] {
        var entries: [Entry] = []
        for _ in 0..<count {
            let name = try readName("a tensor name")
            let what = "the description of tensor \"\(name)\""
            let dimensions = try reader.read(as: UInt32.self, what)
            guard dimensions <= Self.maximumDimensions else {
                throw file.error(
                    .tooManyDimensions(tensor: name, count: UInt64(dimensions), limit: Self.maximumDimensions))
            }
            var shape: [UInt64] = []
            for _ in 0..<dimensions { shape.append(try reader.read(what)) }
            let number = try reader.read(as: UInt32.self, what)
            guard let type = GGMLType(id: number) else {
                throw file.error(.unknownTensorType(tensor: name, type: "\(number)"))
            }
            let byteCount = try byteCount(of: shape, type: type, tensor: name)
            let offset = try reader.read(as: UInt64.self, what)
            guard tensorIndices.updateValue(entries.count, forKey: name) == nil else {
                throw file.error(.duplicateTensor(name))
            }
            let entry = Entry(
                name: name, type: type, shape: shape.map(Int.init), byteCount: byteCount, offset: offset)
            entries.append(entry)
        }
        return entries
    }

    /// The bytes of a tensor, after checking that its shape can be.
    private func byteCount(of shape: [UInt64], type: GGMLType, tensor: String) throws(ModelFileError) -> Int {
        func invalid(_ reason: String) -> ModelFileError {
            file.error(.invalidShape(tensor: tensor, shape: shape, reason: reason))
        }
        var elements = 1
        for extent in shape {
            guard extent > 0 else { throw invalid("an extent is zero") }
            guard let extent = Int(exactly: extent) else { throw invalid("an extent does not fit 63 bits") }
            let (product, overflow) = elements.multipliedReportingOverflow(by: extent)
            guard !overflow else { throw invalid("the number of elements does not fit 63 bits") }
            elements = product
        }
        guard (shape.first ?? 1) % UInt64(type.blockSize) == 0 else {
            throw invalid("a row is not a whole number of \(type.name) blocks of \(type.blockSize)")
        }
        let (bytes, overflow) = (elements / type.blockSize).multipliedReportingOverflow(by: type.bytesPerBlock)
        guard !overflow else { throw invalid("the number of bytes does not fit 63 bits") }
        return bytes
    }

    private mutating func locate(_ entries: [Entry]) throws(ModelFileError) {
        // Neither sum can overflow: the offset is at most the file's size and the alignment below 2^31.
        let aligned = (reader.offset + alignment - 1) / alignment * alignment
        // Without tensors the padding may be missing.
        dataOffset = entries.isEmpty ? min(aligned, file.count) : aligned
        tensors.reserveCapacity(entries.count)
        for entry in entries {
            guard entry.offset % UInt64(alignment) == 0 else {
                throw file.error(
                    .misalignedTensor(tensor: entry.name, offset: entry.offset, alignment: alignment))
            }
            let limit = file.count - dataOffset
            guard limit >= entry.byteCount, entry.offset <= UInt64(limit - entry.byteCount) else {
                throw file.error(
                    .tensorOutOfRange(
                        tensor: entry.name, start: entry.offset, byteCount: UInt64(entry.byteCount),
                        limit: max(0, limit)))
            }
            let start = dataOffset + Int(entry.offset)
            tensors.append(
                GGUFTensor(
                    name: entry.name, type: entry.type, shape: entry.shape, range: start..<start + entry.byteCount))
        }
    }

    private func checkOverlaps() throws(ModelFileError) {
        let sorted = tensors.sorted { $0.range.lowerBound < $1.range.lowerBound }
        for (first, second) in zip(sorted, sorted.dropFirst())
        where first.range.upperBound > second.range.lowerBound {
            throw file.error(.overlappingTensors(first.name, second.name))
        }
    }
}
