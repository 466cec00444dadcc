import FlashInferCUDA
import Foundation
import TestSupport
import Testing

/// The folder of compiled kernels.
struct DiskCacheTests {
    private func bytes(_ count: Int, seed: Int = 1) -> [UInt8] {
        (0..<count).map { UInt8(truncatingIfNeeded: ($0 &+ seed) &* 2_654_435_761 >> 7) }
    }

    private func key(_ index: Int) -> String { String(repeating: "0", count: 60) + String(1000 + index) }

    @Test func keepsAndGives() throws {
        let folder = try TemporaryFolder()
        // The folder and those above it are made.
        let cache = DiskCache(folder: folder.path("a/b/c"))
        #expect(cache.cubin(for: key(0)) == nil)
        for size in [0, 1, 79, 80, 100_000] {
            #expect(cache.keep(bytes(size), for: key(size)) == nil)
            #expect(cache.cubin(for: key(size)) == bytes(size))
        }
        #expect(cache.size().count == 5)
    }

    @Test func everyTruncationIsFoundAndRemoved() throws {
        let folder = try TemporaryFolder()
        let cache = DiskCache(folder: folder.path("."))
        cache.keep(bytes(50), for: key(0))
        let path = folder.path(key(0) + ".cubin")
        let whole = try Data(contentsOf: URL(fileURLWithPath: path))
        for length in 0..<whole.count {
            try whole.prefix(length).write(to: URL(fileURLWithPath: path))
            #expect(cache.cubin(for: key(0)) == nil)
            #expect(!FileManager.default.fileExists(atPath: path))
        }
        try (whole + [0]).write(to: URL(fileURLWithPath: path))
        #expect(cache.cubin(for: key(0)) == nil)
        try whole.write(to: URL(fileURLWithPath: path))
        #expect(cache.cubin(for: key(0)) == bytes(50))
    }

    @Test func everyChangedByteIsFound() throws {
        let folder = try TemporaryFolder()
        let cache = DiskCache(folder: folder.path("."))
        cache.keep(bytes(40), for: key(0))
        let path = folder.path(key(0) + ".cubin")
        let whole = try Data(contentsOf: URL(fileURLWithPath: path))
        for position in whole.indices {
            var changed = whole
            changed[position] ^= 0x40
            try changed.write(to: URL(fileURLWithPath: path))
            #expect(cache.cubin(for: key(0)) == nil, "byte \(position)")
        }
    }

    /// As many writers and readers as there may be processes: what is read is whole, whoever wrote it.
    @Test func writersAndReadersMeetUnharmed() throws {
        let folder = try TemporaryFolder()
        let cache = DiskCache(folder: folder.path("shared"))
        let payloads = (0..<4).map { bytes(20_000 + $0, seed: $0) }
        let broken = Counter()
        let hits = Counter()
        ParallelWork.forEach(8, threads: 8) { worker in
            for round in 0..<40 {
                let key = key(round % 3)
                if worker % 2 == 0 { cache.keep(payloads[(worker + round) % 4], for: key) }
                if let cubin = cache.cubin(for: key) {
                    hits.add(1)
                    if !payloads.contains(cubin) { broken.add(1) }
                }
            }
        }
        #expect(broken.value == 0)
        #expect(hits.value > 0)
        let left = try FileManager.default.contentsOfDirectory(atPath: folder.path("shared"))
        #expect(left.allSatisfy { $0.hasSuffix(".cubin") })
    }

    @Test func theLongestUnusedGoFirst() throws {
        let folder = try TemporaryFolder()
        let cache = DiskCache(folder: folder.path("."), byteLimit: 5000)
        for index in 0..<4 {
            cache.keep(bytes(1000), for: key(index))
            setAge(of: folder.path(key(index) + ".cubin"), seconds: 1000 - index)
        }
        // Use makes the oldest the youngest.
        #expect(cache.cubin(for: key(0)) != nil)
        cache.keep(bytes(1000), for: key(4))
        #expect(cache.size().byteCount <= 4500)
        #expect(cache.cubin(for: key(1)) == nil)
        for kept in [0, 2, 3, 4] { #expect(cache.cubin(for: key(kept)) != nil, "\(kept)") }
    }

    @Test func whatDeadWritersLeftGoesAfterAnHour() throws {
        let folder = try TemporaryFolder()
        let cache = DiskCache(folder: folder.path("."))
        try folder.write("old.cubin.1.2.tmp", [1])
        try folder.write("new.cubin.1.2.tmp", [1])
        try folder.write("of-somebody-else", [1])
        for name in ["old.cubin.1.2.tmp", "of-somebody-else"] { setAge(of: folder.path(name), seconds: 4000) }
        cache.keep(bytes(10), for: key(0))
        let left = Set(try FileManager.default.contentsOfDirectory(atPath: folder.path(".")))
        #expect(left == ["new.cubin.1.2.tmp", "of-somebody-else", key(0) + ".cubin"])
    }

    @Test func aFolderThatCannotBeMadeIsNoError() throws {
        let folder = try TemporaryFolder()
        try folder.write("file", [1])
        let cache = DiskCache(folder: folder.path("file/below"))
        #expect(cache.keep(bytes(10), for: key(0)) != nil)
        #expect(cache.cubin(for: key(0)) == nil)
        #expect(cache.size() == (0, 0))
    }

    @Test func theEnvironmentSaysWhere() {
        var environment = CUDAEnvironment()
        #expect(DiskCache(environment: environment) == nil)
        environment.home = "/home/a"
        #expect(DiskCache(environment: environment)?.folder == "/home/a/.cache/flashinfer/kernels")
        environment.cacheHome = "/caches"
        #expect(DiskCache(environment: environment)?.folder == "/caches/flashinfer/kernels")
        environment.cache = "/mine"
        #expect(DiskCache(environment: environment)?.folder == "/mine")
    }

    private func setAge(of path: String, seconds: Int) {
        try? FileManager.default.setAttributes(
            [.modificationDate: Date(timeIntervalSinceNow: -Double(seconds))], ofItemAtPath: path)
    }
}
