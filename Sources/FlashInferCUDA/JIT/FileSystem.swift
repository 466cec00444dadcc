#if canImport(Glibc)
    internal import Glibc
#elseif canImport(Musl)
    internal import Musl
#elseif canImport(Darwin)
    internal import Darwin
#endif

/// The few things that are done with files here, straight on the system's calls.
package enum FileSystem {
    /// A file of a folder.
    package struct Entry: Sendable {
        package let name: String
        package let byteCount: Int
        /// Seconds since 1970.
        package let modified: Double
    }

    /// A file's bytes, or nil where it cannot be read.
    package static func read(_ path: String) -> [UInt8]? {
        let descriptor = open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { return nil }
        defer { close(descriptor) }
        var status = stat()
        guard fstat(descriptor, &status) == 0, status.st_mode & S_IFMT == S_IFREG else { return nil }
        return read(descriptor, at: 0, byteCount: Int(status.st_size))
    }

    /// Bytes of an open file, or nil where there are fewer.
    package static func read(_ descriptor: Int32, at offset: Int, byteCount: Int) -> [UInt8]? {
        guard offset >= 0, byteCount >= 0 else { return nil }
        var isWhole = true
        let bytes = [UInt8](unsafeUninitializedCapacity: byteCount) { buffer, count in
            while count < byteCount {
                let got = pread(descriptor, buffer.baseAddress! + count, byteCount - count, off_t(offset + count))
                if got < 0 && errno == EINTR { continue }
                guard got > 0 else { break }
                count += got
            }
            isWhole = count == byteCount
        }
        return isWhole ? bytes : nil
    }

    /// Puts a file in place, whole or not at all: readers see the old one or the new one.
    ///
    /// - Returns: nil, or the system's words for why not.
    package static func publish(_ pieces: [[UInt8]], at path: String) -> String? {
        // One name a process and attempt, so that writers of the same file do not meet before the rename.
        let temporary = "\(path).\(getpid()).\(UInt32.random(in: 0 ... .max)).tmp"
        let descriptor = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o644)
        guard descriptor >= 0 else { return reason() }
        var failure: String?
        for piece in pieces where failure == nil {
            piece.withUnsafeBytes { bytes in
                var rest = bytes[...]
                while !rest.isEmpty {
                    let count = write(descriptor, UnsafeRawBufferPointer(rebasing: rest).baseAddress!, rest.count)
                    if count < 0 && errno == EINTR { continue }
                    guard count > 0 else {
                        failure = reason()
                        return
                    }
                    rest = rest.dropFirst(count)
                }
            }
        }
        // What close reports is a write that failed late.
        if close(descriptor) != 0, failure == nil { failure = reason() }
        if failure == nil, rename(temporary, path) != 0 { failure = reason() }
        if failure != nil { unlink(temporary) }
        return failure
    }

    /// Makes a folder and those above it.
    ///
    /// - Returns: nil, or the system's words for why not.
    package static func makeFolder(_ path: String) -> String? {
        if mkdir(path, 0o755) == 0 || isFolder(path) { return nil }
        guard errno == ENOENT, let slash = path.lastIndex(of: "/"), slash > path.startIndex else { return reason() }
        if let failure = makeFolder(String(path[..<slash])) { return failure }
        return mkdir(path, 0o755) == 0 || isFolder(path) ? nil : reason()
    }

    private static func isFolder(_ path: String) -> Bool {
        let code = errno
        defer { errno = code }
        var status = stat()
        return stat(path, &status) == 0 && status.st_mode & S_IFMT == S_IFDIR
    }

    /// Whether files can be made in a folder.
    package static func isWritable(_ folder: String) -> Bool { access(folder, W_OK | X_OK) == 0 }

    /// Whether there is something at a path.
    package static func exists(_ path: String) -> Bool { access(path, F_OK) == 0 }

    /// Names in a folder, hidden ones left out, in no order; none where there is no such folder.
    package static func names(in folder: String) -> [String] {
        guard let directory = opendir(folder) else { return [] }
        defer { closedir(directory) }
        var names: [String] = []
        while let entry = readdir(directory) {
            let name = withUnsafePointer(to: &entry.pointee.d_name) {
                $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
            }
            if !name.hasPrefix(".") { names.append(name) }
        }
        return names
    }

    /// The files of a folder.
    package static func files(in folder: String) -> [Entry] {
        names(in: folder).compactMap { name in
            var status = stat()
            // Another process may have removed it since.
            guard stat("\(folder)/\(name)", &status) == 0, status.st_mode & S_IFMT == S_IFREG else { return nil }
            let modified = status.st_mtim
            return Entry(
                name: name, byteCount: Int(status.st_size),
                modified: Double(modified.tv_sec) + Double(modified.tv_nsec) / 1e9)
        }
    }

    /// Removes a file, if it is there.
    package static func remove(_ path: String) { unlink(path) }

    /// Marks a file as used now.
    package static func touch(_ path: String) { utimensat(AT_FDCWD, path, nil, 0) }

    /// Seconds since 1970.
    package static var now: Double {
        var time = timespec()
        clock_gettime(CLOCK_REALTIME, &time)
        return Double(time.tv_sec) + Double(time.tv_nsec) / 1e9
    }

    /// The folder that the running program is in, or nil where the system does not tell.
    package static var programFolder: String? {
        #if os(Linux)
            var path = [CChar](repeating: 0, count: 4096)
            let count = readlink("/proc/self/exe", &path, path.count)
            guard count > 0, count < path.count else { return nil }
            let text = String(decoding: path.prefix(count).map(UInt8.init(bitPattern:)), as: UTF8.self)
            return text.lastIndex(of: "/").map { String(text[..<$0]) }
        #else
            return nil
        #endif
    }

    private static func reason() -> String { String(cString: strerror(errno)) }
}
