import Foundation

/// A whole file mapped read-only into memory; unmapped when the last reference goes.
///
/// Opening costs no read: pages come in as they are touched and can leave again under memory pressure. The file must
/// not be made shorter while it is mapped (the operating system would end the process at the first touch beyond the
/// new end); replacing it by a rename is safe, since the mapping keeps the old contents.
public final class MappedFile: Sendable {
    /// The path as it was given.
    public let path: String

    /// All bytes of the file. They live exactly as long as this object: keep it while you keep pointers.
    ///
    /// Never written after `init`, hence safe to share between threads.
    public nonisolated(unsafe) let bytes: UnsafeRawBufferPointer

    /// What has to be unmapped; larger than `bytes` only in tests.
    private nonisolated(unsafe) let mapping: UnsafeMutableRawBufferPointer

    /// The number of bytes in the file.
    public var count: Int { bytes.count }

    /// Maps the file at `path`.
    ///
    /// Throws when the path cannot be opened, or is a folder, a pipe or a device. An empty file is mapped as no bytes.
    public init(path: String) throws(ModelFileError) {
        // O_NONBLOCK: opening a pipe that nobody writes must fail, not hang.
        let descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
        guard descriptor >= 0 else {
            throw ModelFileError(file: path, problem: .cannotOpen(reason: String(cString: strerror(errno))))
        }
        defer { close(descriptor) }
        var status = stat()
        guard fstat(descriptor, &status) == 0 else {
            throw ModelFileError(file: path, problem: .cannotOpen(reason: String(cString: strerror(errno))))
        }
        guard status.st_mode & S_IFMT == S_IFREG else { throw ModelFileError(file: path, problem: .notARegularFile) }
        self.path = path
        let count = Int(status.st_size)
        guard count > 0 else {
            mapping = UnsafeMutableRawBufferPointer(start: nil, count: 0)
            bytes = UnsafeRawBufferPointer(start: nil, count: 0)
            return
        }
        guard let base = mmap(nil, count, PROT_READ, MAP_PRIVATE, descriptor, 0), base != MAP_FAILED else {
            throw ModelFileError(file: path, problem: .cannotOpen(reason: String(cString: strerror(errno))))
        }
        mapping = UnsafeMutableRawBufferPointer(start: base, count: count)
        bytes = UnsafeRawBufferPointer(start: base, count: count)
    }

    /// Takes over a mapping made elsewhere; `bytes` must lie inside it.
    package init(path: String, mapping: UnsafeMutableRawBufferPointer, bytes: UnsafeRawBufferPointer) {
        self.path = path
        self.mapping = mapping
        self.bytes = bytes
    }

    deinit {
        if let base = mapping.baseAddress { munmap(base, mapping.count) }
    }

    /// A copy of all bytes, which outlives this object.
    public func copy() -> [UInt8] {
        // Without this the file may be unmapped as soon as `bytes` has been read, before what they point to has been.
        withExtendedLifetime(self) { Array(bytes) }
    }

    /// The bytes of `range`, counted from the start of the file. They live as long as this object.
    ///
    /// Throws when the range leaves the file.
    public func bytes(in range: Range<Int>) throws(ModelFileError) -> UnsafeRawBufferPointer {
        guard range.lowerBound >= 0, range.upperBound <= count else {
            throw error(
                .truncated(
                    what: "a byte range", offset: range.lowerBound, needed: UInt64(range.count),
                    available: max(0, count - max(0, range.lowerBound))))
        }
        return UnsafeRawBufferPointer(rebasing: bytes[range])
    }

    /// Whether there is something at `path` that the user may read.
    static func exists(_ path: String) -> Bool { access(path, R_OK) == 0 }

    /// An error about this file.
    func error(_ problem: ModelFileError.Problem) -> ModelFileError { ModelFileError(file: path, problem: problem) }
}
