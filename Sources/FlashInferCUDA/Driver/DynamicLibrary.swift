internal import CCUDA
internal import FlashInferCore

#if canImport(Glibc)
    internal import Glibc
#elseif canImport(Musl)
    internal import Musl
#elseif canImport(Darwin)
    internal import Darwin
#endif

/// A library opened at run time, and never closed: its functions are used to the end of the process.
struct DynamicLibrary {
    /// Where it was found.
    let path: String
    private let handle: UnsafeMutableRawPointer

    /// Opens the first of some paths that can be opened; a name without a slash is looked up where the system looks.
    ///
    /// - Throws: ``FlashInferError/deviceFailure(call:message:)`` that says what was looked for, and why files that are there
    ///   could not be opened.
    init(_ name: String, candidates: [String], help: String) throws(FlashInferError) {
        var obstacles: [String] = []
        for path in candidates {
            let exists = path.contains("/") && access(path, F_OK) == 0
            if path.contains("/") && !exists { continue }
            if let handle = dlopen(path, RTLD_NOW | RTLD_LOCAL) {
                self.handle = handle
                self.path = fi_library_path(handle).map { String(cString: $0) } ?? path
                return
            }
            if exists, let reason = dlerror() { obstacles.append(String(cString: reason)) }
        }
        throw .deviceFailure(
            call: "loading \(name)",
            message: (obstacles.isEmpty ? "not found" : obstacles.joined(separator: "; "))
                + "; looked for \(Self.summary(candidates)). \(help)")
    }

    /// Opens a file that the library will look for by its plain name, and would not find where it lies.
    func preload(_ name: String) {
        guard let slash = path.lastIndex(of: "/") else { return }
        _ = dlopen(path[...slash] + name, RTLD_NOW | RTLD_LOCAL)
    }

    /// Fills a table with the library's functions.
    ///
    /// - Throws: ``FlashInferError/deviceFailure(call:message:)`` naming the first required function that it lacks.
    func fill<Table>(
        _ table: inout Table, _ symbols: UnsafePointer<fi_symbol>, help: String
    ) throws(FlashInferError) {
        let missing = withUnsafeMutableBytes(of: &table) { fi_fill_table(handle, symbols, $0.baseAddress!) }
        guard let missing else { return }
        throw .deviceFailure(
            call: "loading \(path)", message: "it has no function \(String(cString: missing)): it is too old. \(help)")
    }

    /// "libx.so.2 and libx.so.1 where the system's loader looks, in /a, /b, and in 3 folders of Python's packages": names and folders
    /// once each, and Python's, of which there may be dozens, only counted.
    private static func summary(_ candidates: [String]) -> String {
        var names: [String] = []
        var folders: [String] = []
        for path in candidates {
            guard let slash = path.lastIndex(of: "/") else {
                names.append(path)
                continue
            }
            let folder = String(path[..<slash])
            if names.isEmpty { return path }
            if !folders.contains(folder) { folders.append(folder) }
        }
        if names.isEmpty { return "nothing" }
        let python = folders.filter { $0.contains("-packages/") }
        let others = folders.filter { !$0.contains("-packages/") }
        var text = names.joined(separator: " and ") + " where the system's loader looks"
        if !others.isEmpty { text += ", in " + others.joined(separator: ", ") }
        if let first = python.first { text += ", and in \(python.count) folders of Python's packages such as \(first)" }
        return text
    }
}
