import Foundation

/// A file being written, hashed on the way.
struct HashedOutput: ~Copyable {
    /// Where the file is.
    let url: URL
    private let descriptor: Int32
    private var hash = SHA256()

    private static let chunk = 1 << 20

    /// Makes the file, which must not exist.
    init(_ url: URL) throws(ModelStoreError) {
        self.url = url
        descriptor = open(url.path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o644)
        guard descriptor >= 0 else { throw .cannotWrite(path: url.path, reason: String(cString: strerror(errno))) }
    }

    deinit { close(descriptor) }

    /// Adds the contents of another file. Throws `cancelled` when the task is.
    mutating func append(contentsOf source: URL) throws(ModelStoreError) {
        let file: MappedFile
        do throws(ModelFileError) {
            file = try MappedFile(path: source.path)
        } catch {
            throw .cannotWrite(path: source.path, reason: "\(error.problem)")
        }
        for start in stride(from: 0, to: file.count, by: Self.chunk) {
            guard !Task.isCancelled else { throw .cancelled }
            let piece = UnsafeRawBufferPointer(rebasing: file.bytes[start..<min(start + Self.chunk, file.count)])
            hash.update(piece)
            try write(piece)
        }
    }

    private func write(_ bytes: UnsafeRawBufferPointer) throws(ModelStoreError) {
        var rest = bytes[...]
        while let base = UnsafeRawBufferPointer(rebasing: rest).baseAddress, !rest.isEmpty {
            let count = Foundation.write(descriptor, base, rest.count)
            guard count > 0 || errno == EINTR else {
                throw .cannotWrite(path: url.path, reason: String(cString: strerror(errno)))
            }
            rest = rest.dropFirst(max(0, count))
        }
    }

    /// Brings the file to the disk and returns its SHA-256.
    func finish() throws(ModelStoreError) -> String {
        guard fsync(descriptor) == 0 else {
            throw .cannotWrite(path: url.path, reason: String(cString: strerror(errno)))
        }
        return hash.finish()
    }
}
