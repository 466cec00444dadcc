internal import FlashInferCore

#if canImport(Glibc)
    internal import Glibc
#elseif canImport(Musl)
    internal import Musl
#elseif canImport(Darwin)
    internal import Darwin
#endif

/// Cubins compiled ahead, in one file: what a program ships that must start with no compiler on the machine.
///
/// Cubins are found by the hash of their text and options, so a bundle made for other texts gives none rather than wrong ones.
///
/// Layout: "FIBUNDL1", the index's length (8 bytes, little-endian), its SHA-256 (64 hexadecimal digits), the index, the cubins. The
/// index has a line for each cubin: source key, SHA-256 of the cubin, offset among the cubins, length, architecture, NVRTC's version,
/// label.
package final class KernelBundle: Sendable {
    /// One cubin of a bundle.
    package struct Entry: Sendable {
        /// ``KernelCompiler/sourceKey(for:architecture:)``
        package let sourceKey: String
        package let architecture: Architecture
        package let version: CompilerVersion
        package let label: String
        fileprivate let digest: String
        fileprivate let offset: Int
        fileprivate let byteCount: Int
    }

    /// A cubin to be put in a bundle.
    package struct Item: Sendable {
        package let sourceKey: String
        package let architecture: Architecture
        package let version: CompilerVersion
        package let label: String
        package let cubin: [UInt8]

        package init(
            sourceKey: String, architecture: Architecture, version: CompilerVersion, label: String, cubin: [UInt8]
        ) {
            self.sourceKey = sourceKey
            self.architecture = architecture
            self.version = version
            self.label = label
            self.cubin = cubin
        }
    }

    /// The file.
    package let path: String
    /// What it holds, by source key.
    package let entries: [String: Entry]
    private let descriptor: Int32
    private let start: Int

    private static let magic = Array("FIBUNDL1".utf8)
    private static let headerByteCount = 8 + 8 + 64
    /// The name of a bundle that is used when it lies beside the program.
    package static let usualName = "flashinfer.bundle"

    /// Opens a bundle and reads its index.
    ///
    /// - Throws: ``FlashInferError/deviceFailure(call:message:)`` where it cannot be read or is damaged.
    package init(path: String) throws(FlashInferError) {
        func failure(_ message: String) -> FlashInferError {
            .deviceFailure(call: "opening the bundle \(path)", message: message)
        }
        let descriptor = open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { throw failure(String(cString: strerror(errno))) }
        var isOpen = true
        defer { if isOpen { close(descriptor) } }
        guard let header = FileSystem.read(descriptor, at: 0, byteCount: Self.headerByteCount),
            header.starts(with: Self.magic)
        else { throw failure("not a bundle of kernels; make one with 'flashinfer compile'") }
        let length = header.withUnsafeBytes {
            UInt64(littleEndian: $0.loadUnaligned(fromByteOffset: 8, as: UInt64.self))
        }
        // An index of more than this is damage: it would be a million kernels.
        guard length <= 1 << 28,
            let index = FileSystem.read(descriptor, at: Self.headerByteCount, byteCount: Int(length)),
            SHA256.digest(of: index).utf8.elementsEqual(header[16...])
        else { throw failure("damaged; make it again with 'flashinfer compile'") }
        var entries: [String: Entry] = [:]
        for line in String(decoding: index, as: UTF8.self).split(separator: "\n") {
            guard let entry = Self.entry(line) else { throw failure("made by another version of this library") }
            entries[entry.sourceKey] = entry
        }
        self.path = path
        self.entries = entries
        self.descriptor = descriptor
        start = Self.headerByteCount + Int(length)
        isOpen = false
    }

    deinit { close(descriptor) }

    private static func entry(_ line: Substring) -> Entry? {
        let fields = line.split(separator: " ", maxSplits: 6).map(String.init)
        guard fields.count == 7, let offset = Int(fields[2]), let byteCount = Int(fields[3]), offset >= 0,
            byteCount >= 0, let architecture = Architecture(fields[4]), let version = CompilerVersion(fields[5])
        else { return nil }
        return Entry(
            sourceKey: fields[0], architecture: architecture, version: version, label: fields[6], digest: fields[1],
            offset: offset, byteCount: byteCount)
    }

    /// The cubin of an entry.
    ///
    /// - Throws: ``FlashInferError/deviceFailure(call:message:)`` where the file is damaged.
    package func cubin(_ entry: Entry) throws(FlashInferError) -> [UInt8] {
        guard let cubin = FileSystem.read(descriptor, at: start + entry.offset, byteCount: entry.byteCount),
            SHA256.digest(of: cubin) == entry.digest
        else {
            throw .deviceFailure(
                call: "reading \(entry.label) from the bundle \(path)",
                message: "damaged; make it again with 'flashinfer compile'")
        }
        return cubin
    }

    /// Writes a bundle, whole or not at all.
    ///
    /// - Throws: ``FlashInferError/deviceFailure(call:message:)`` with the system's words.
    package static func write(_ items: [Item], to path: String) throws(FlashInferError) {
        var index = ""
        var offset = 0
        for item in items {
            index += "\(item.sourceKey) \(SHA256.digest(of: item.cubin)) \(offset) \(item.cubin.count) "
            index += "\(item.architecture) \(item.version) \(item.label)\n"
            offset += item.cubin.count
        }
        var header = magic
        withUnsafeBytes(of: UInt64(index.utf8.count).littleEndian) { header.append(contentsOf: $0) }
        header.append(contentsOf: SHA256.digest(of: Array(index.utf8)).utf8)
        if let failure = FileSystem.publish([header, Array(index.utf8)] + items.map(\.cubin), at: path) {
            throw .deviceFailure(call: "writing \(path)", message: failure)
        }
    }
}
