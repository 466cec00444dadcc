/// A cursor over a mapped file that checks every step against the end and reads little-endian.
struct ByteReader {
    let file: MappedFile
    private(set) var offset: Int
    private let end: Int

    /// Starts at byte `offset` of `file`; nothing at or after `end` (the end of the file by default) is read.
    init(_ file: MappedFile, offset: Int = 0, end: Int? = nil) {
        self.file = file
        self.end = min(end ?? file.count, file.count)
        self.offset = min(max(0, offset), self.end)
    }

    /// How many bytes are left.
    var remaining: Int { end - offset }

    /// Reads one little-endian number; `what` names it in the error.
    mutating func read<T: FixedWidthInteger>(
        as type: T.Type = T.self, _ what: @autoclosure () -> String
    ) throws(ModelFileError) -> T {
        let size = MemoryLayout<T>.size
        try require(UInt64(size), what())
        let value = file.bytes.loadUnaligned(fromByteOffset: offset, as: T.self)
        offset += size
        return T(littleEndian: value)
    }

    /// Steps over `count` bytes and returns where they were.
    mutating func skip(_ count: UInt64, _ what: @autoclosure () -> String) throws(ModelFileError) -> Range<Int> {
        try require(count, what())
        let start = offset
        offset += Int(count)
        return start..<offset
    }

    /// Reads a 64-bit length and steps over that many bytes, which must be UTF-8; returns where they were.
    mutating func skipString(_ what: @autoclosure () -> String) throws(ModelFileError) -> Range<Int> {
        let length = try read(as: UInt64.self, what())
        let start = offset
        let range = try skip(length, what())
        guard file.isUTF8(in: range) else { throw file.error(.invalidUTF8(what: what(), offset: start)) }
        return range
    }

    /// Reads a 64-bit length and as much UTF-8 text.
    mutating func readString(_ what: @autoclosure () -> String) throws(ModelFileError) -> String {
        file.string(in: try skipString(what()))
    }

    private func require(_ count: UInt64, _ what: @autoclosure () -> String) throws(ModelFileError) {
        guard count <= UInt64(remaining) else {
            throw file.error(.truncated(what: what(), offset: offset, needed: count, available: remaining))
        }
    }
}

extension MappedFile {
    /// Whether the bytes of `range`, which must lie inside the file, are UTF-8. Allocates nothing.
    func isUTF8(in range: Range<Int>) -> Bool {
        bytes[range].withMemoryRebound(to: UInt8.self) { (text: UnsafeBufferPointer<UInt8>) -> Bool in
            do {
                _ = try UTF8Span(validating: text.span)
                return true
            } catch {
                return false
            }
        }
    }

    /// The text of `range`, which must lie inside the file.
    func string(in range: Range<Int>) -> String { String(decoding: bytes[range], as: UTF8.self) }
}
