import FlashInferCUDA
import Foundation
import TestSupport
import Testing

/// What names a compiled kernel.
struct KernelKeyTests {
    private let sm90 = Architecture("sm_90a")!

    private func key(_ texts: [String: String], _ spec: KernelSpec, _ architecture: Architecture) throws -> String {
        try KernelCompiler(texts: KernelTexts(texts)).sourceKey(for: spec, architecture: architecture)
    }

    @Test func everythingThatMattersChangesTheKey() throws {
        let texts = [
            "a.cuh": "#include \"b.cuh\"\nint a;", "b.cuh": "  # include \"c.cuh\"\nint b;", "c.cuh": "int c;",
            "d.cuh": "int d;",
        ]
        func spec(
            file: String = "a.cuh", entry: String = "k", defines: [KernelSpec.Define] = [.init("FI_A", 1)],
            threads: Int = 32, blocks: Int = 1, fast: Bool = false
        ) -> KernelSpec {
            KernelSpec(
                file: file, entry: entry, defines: defines, threads: threads, blocksPerProcessor: blocks,
                usesFastMath: fast, label: "k")
        }
        var keys = [try key(texts, spec(), sm90)]
        for change in ["a.cuh", "b.cuh", "c.cuh"] {
            var changed = texts
            changed[change]! += " "
            keys.append(try key(changed, spec(), sm90))
        }
        for other in [
            spec(file: "b.cuh"), spec(entry: "l"), spec(defines: []), spec(defines: [.init("FI_A", 2)]),
            spec(defines: [.init("FI_A", 1), .init("FI_B", true)]), spec(threads: 64), spec(blocks: 2),
            spec(fast: true),
        ] {
            keys.append(try key(texts, other, sm90))
        }
        keys.append(try key(texts, spec(), Architecture("sm_90")!))
        keys.append(try key(texts, spec(), Architecture("sm_80")!))
        keys.append(KernelCompiler.key(sourceKey: keys[0], version: CompilerVersion(major: 13, minor: 0)))
        keys.append(KernelCompiler.key(sourceKey: keys[0], version: CompilerVersion(major: 12, minor: 9)))
        #expect(Set(keys).count == keys.count)
        #expect(keys.allSatisfy { $0.utf8.count == 64 })

        // What is not included, the label and the dynamic shared memory do not matter.
        var changed = texts
        changed["d.cuh"] = "int e;"
        #expect(try key(changed, spec(), sm90) == keys[0])
        let renamed = KernelSpec(
            file: "a.cuh", entry: "k", defines: [.init("FI_A", 1)], threads: 32, sharedByteCount: 100, label: "other")
        #expect(try key(texts, renamed, sm90) == keys[0])
    }

    @Test func anIncludeThatIsNotThereIsAnErrorThatNamesIt() {
        #expect { try TestKernels.texts.digest(of: "test/lost.cuh") } throws: {
            "\($0)".contains("no/such.cuh") && "\($0)".contains("test/lost.cuh")
        }
        #expect { try TestKernels.texts.digest(of: "test/absent.cuh") } throws: { "\($0)".contains("test/absent.cuh") }
    }

    @Test func includesInACircleEnd() throws {
        let texts = KernelTexts(["a": "#include \"b\"", "b": "#include \"a\"\n#include \"b\""])
        #expect(try texts.closure(of: "a") == ["a", "b"])
    }

    @Test func specsAreEqualByContent() {
        #expect(TestKernels.add() == TestKernels.add())
        #expect(TestKernels.add().hashValue == TestKernels.add(label: "x").hashValue)
        #expect(TestKernels.add() != TestKernels.add(times: 2))
        #expect(TestKernels.add() != TestKernels.add(threads: 32))
    }

    @Test func theShippedTextsIncludeOnlyEachOther() throws {
        for (name, text) in KernelTexts.shipped.texts {
            #expect(throws: Never.self) { try KernelTexts.shipped.closure(of: name) }
            #expect(!text.contains("#include <"), "\(name)")
        }
    }

    @Test func aFolderReplacesTextsByName() throws {
        let folder = try TemporaryFolder()
        let name = "portable/convert.cuh"
        #expect(FileSystem.makeFolder(folder.path("portable")) == nil)
        try folder.write(name, "// other".utf8)
        let replaced = KernelTexts.shipped(replacedFrom: folder.url.path)
        #expect(replaced[name] == "// other")
        #expect(replaced["portable/add.cuh"] == KernelTexts.shipped(replacedFrom: nil)["portable/add.cuh"])
        #expect(replaced.texts.count == KernelTexts.shipped(replacedFrom: nil).texts.count)
    }

    private static let module = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
        .appendingPathComponent("../../../Sources/CUDAKernels").standardizedFileURL.path

    /// A file that is not in the list would be found missing only by the kernel that includes it.
    @Test(
        .enabled(if: FileManager.default.fileExists(atPath: module), "the sources are not on the machine of the tests"))
    func theListOfShippedTextsIsComplete() throws {
        let module = Self.module
        let files = try #require(FileManager.default.enumerator(atPath: module))
        var expected: [String] = []
        for case let file as String in files {
            if file.hasSuffix(".cuh") { expected.append(file) }
            if file.hasPrefix("include/fi_"), file.hasSuffix(".h") { expected.append(String(file.dropFirst(8))) }
        }
        #expect(KernelTexts.shipped.texts.map(\.name) == expected.sorted())
        for (name, text) in KernelTexts.shipped.texts {
            let path = module + (name.contains("/") ? "/" : "/include/") + name
            #expect(try String(contentsOfFile: path, encoding: .utf8) == text, "\(name) was changed after the build")
        }
    }

    @Test(arguments: [
        ("sm_80", Architecture(major: 8, minor: 0)), ("sm_90a", Architecture(major: 9, minor: 0, isSpecific: true)),
        ("sm_120", Architecture(major: 12, minor: 0)), ("sm_103a", Architecture(major: 10, minor: 3, isSpecific: true)),
    ])
    func architecturesHaveNames(name: String, architecture: Architecture) {
        #expect(Architecture(name) == architecture)
        #expect("\(architecture)" == name)
    }

    @Test(arguments: ["", "sm_", "80", "sm_8", "sm_80b", "sm_a", "compute_80", "sm_-80", "sm_80aa"])
    func otherNamesAreNone(name: String) { #expect(Architecture(name) == nil) }

    @Test func codeForALowerMinorVersionRunsToo() {
        #expect(Architecture("sm_89")!.fallbacks.map(\.description).starts(with: ["sm_89", "sm_88", "sm_87", "sm_86"]))
        #expect(Architecture("sm_89")!.fallbacks.last?.description == "sm_80")
        #expect(sm90.fallbacks.map(\.description) == ["sm_90a", "sm_90"])
    }
}
