import FlashInferEngine
import Foundation
import TestSupport
import Testing

struct MappedFileTests {
    @Test func mapsAllBytes() throws {
        let folder = try TemporaryFolder()
        let contents = (0..<10_000).map { UInt8(truncatingIfNeeded: $0) }
        let file = try MappedFile(path: folder.write("a", contents))
        #expect(file.count == 10_000)
        #expect(Array(file.bytes) == contents)
        #expect(Array(try file.bytes(in: 9_998..<10_000)) == [contents[9_998], contents[9_999]])
        #expect(try file.bytes(in: 10_000..<10_000).isEmpty)
    }

    @Test func mapsAnEmptyFile() throws {
        let folder = try TemporaryFolder()
        let file = try MappedFile(path: folder.write("a", []))
        #expect(file.count == 0)
        #expect(try file.bytes(in: 0..<0).isEmpty)
    }

    @Test func refusesRangesBeyondTheEnd() throws {
        let folder = try TemporaryFolder()
        let file = try MappedFile(path: folder.write("a", [1, 2, 3]))
        for range in [-1..<2, 2..<4, 3..<4, 5..<9, 0..<Int.max] {
            #expect(throws: ModelFileError.self) { _ = try file.bytes(in: range) }
        }
    }

    @Test func refusesWhatIsNoFile() throws {
        let folder = try TemporaryFolder()
        #expect(throws: ModelFileError(file: folder.url.path, problem: .notARegularFile)) {
            _ = try MappedFile(path: folder.url.path)
        }
        // A pipe nobody writes must not hang.
        mkfifo(folder.path("pipe"), 0o600)
        #expect(throws: ModelFileError(file: folder.path("pipe"), problem: .notARegularFile)) {
            _ = try MappedFile(path: folder.path("pipe"))
        }
        #expect(throws: ModelFileError(file: "/no/such", problem: .cannotOpen(reason: "No such file or directory"))) {
            _ = try MappedFile(path: "/no/such")
        }
    }

    @Test func outlivesTheNameOfTheFile() throws {
        let folder = try TemporaryFolder()
        let file = try MappedFile(path: folder.write("a", [7, 8]))
        try FileManager.default.removeItem(atPath: folder.path("a"))
        #expect(Array(file.bytes) == [7, 8])
    }
}
