internal import FlashInferCore

/// Cubins in a folder, one file each, shared by all processes of a user.
///
/// A file is put in place by a rename, so readers never see half of one; what is damaged anyway (a full disk, a power cut) fails its
/// checksum, is removed and compiled again. Nothing here throws: a cache that cannot be read or written is a slower start.
///
/// Layout of a file: "FICUBIN1", the length (8 bytes, little-endian), the SHA-256 of the cubin (64 hexadecimal digits), the cubin.
package struct DiskCache: Sendable {
    /// Where the files are.
    package let folder: String
    /// The most bytes kept; beyond, those used longest ago go.
    package let byteLimit: Int

    /// Enough for some thousands of kernels.
    package static let usualByteLimit = 512 << 20

    private static let magic = Array("FICUBIN1".utf8)
    private static let headerByteCount = 8 + 8 + 64
    private static let suffix = ".cubin"

    package init(folder: String, byteLimit: Int = DiskCache.usualByteLimit) {
        self.folder = folder
        self.byteLimit = byteLimit
    }

    /// The user's cache, or nil where there is no home to put it in.
    package init?(environment: CUDAEnvironment) {
        if let folder = environment.cache {
            self.init(folder: folder)
        } else if let folder = environment.cacheHome ?? environment.home.map({ $0 + "/.cache" }) {
            self.init(folder: folder + "/flashinfer/kernels")
        } else {
            return nil
        }
    }

    private func path(of key: String) -> String { "\(folder)/\(key)\(Self.suffix)" }

    /// The cubin kept under a key, or nil.
    package func cubin(for key: String) -> [UInt8]? {
        let path = path(of: key)
        guard let file = FileSystem.read(path) else { return nil }
        guard let cubin = Self.unwrap(file) else {
            FileSystem.remove(path)
            return nil
        }
        // The time of modification is the time of last use: times of access are off on many systems.
        FileSystem.touch(path)
        return cubin
    }

    /// Keeps a cubin under a key, and removes the longest unused where there are too many bytes.
    ///
    /// - Returns: nil, or the system's words for why it was not kept.
    @discardableResult
    package func keep(_ cubin: [UInt8], for key: String) -> String? {
        if let failure = FileSystem.makeFolder(folder) { return failure }
        var header = Self.magic
        withUnsafeBytes(of: UInt64(cubin.count).littleEndian) { header.append(contentsOf: $0) }
        header.append(contentsOf: SHA256.digest(of: cubin).utf8)
        if let failure = FileSystem.publish([header, cubin], at: path(of: key)) { return failure }
        evict()
        return nil
    }

    private static func unwrap(_ file: [UInt8]) -> [UInt8]? {
        guard file.count >= headerByteCount, file.starts(with: magic) else { return nil }
        let length = file.withUnsafeBytes { UInt64(littleEndian: $0.loadUnaligned(fromByteOffset: 8, as: UInt64.self)) }
        let cubin = Array(file[headerByteCount...])
        guard length == UInt64(cubin.count), SHA256.digest(of: cubin).utf8.elementsEqual(file[16..<headerByteCount])
        else { return nil }
        return cubin
    }

    /// Removes what was used longest ago until the rest fits, and what writers that died have left.
    private func evict() {
        var total = 0
        var cubins: [FileSystem.Entry] = []
        for file in FileSystem.files(in: folder) {
            if file.name.hasSuffix(Self.suffix) {
                cubins.append(file)
                total += file.byteCount
            } else if file.name.hasSuffix(".tmp"), file.modified < FileSystem.now - 3600 {
                FileSystem.remove("\(folder)/\(file.name)")
            }
        }
        guard total > byteLimit else { return }
        // A tenth more than needed, so that not every new kernel evicts one.
        let target = byteLimit / 10 * 9
        for file in cubins.sorted(by: { $0.modified < $1.modified }) {
            guard total > target else { break }
            FileSystem.remove("\(folder)/\(file.name)")
            total -= file.byteCount
        }
    }

    /// Entries and bytes.
    package func size() -> (count: Int, byteCount: Int) {
        let files = FileSystem.files(in: folder).filter { $0.name.hasSuffix(Self.suffix) }
        return (files.count, files.reduce(0) { $0 + $1.byteCount })
    }
}
