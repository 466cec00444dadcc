import FlashInferCUDA
import Foundation
import Synchronization
import TestSupport
import Testing

/// The real compiler.
@Suite(.enabled(if: TestMachine.hasCompiler, TestMachine.needsCompiler))
struct CompilerTests {
    private let compiler = KernelCompiler(texts: TestKernels.texts)

    private func source(_ folder: TemporaryFolder) throws -> CubinSource {
        let path = try #require(TestMachine.nvrtc).path
        return CubinSource(
            compiler: compiler, driverVersion: nil,
            environment: TestKernels.environment(cache: folder.path("cache"), nvrtc: path))
    }

    @Test(arguments: KernelCatalogue.architectures)
    func makesMachineCode(architecture: Architecture) throws {
        let nvrtc = try #require(TestMachine.nvrtc)
        let output = try compiler.compile(TestKernels.add(), architecture: architecture, with: nvrtc, isVerbose: true)
        #expect(output.cubin.starts(with: [0x7f, UInt8(ascii: "E"), UInt8(ascii: "L"), UInt8(ascii: "F")]))
        #expect(try MachineCode.illegalCopies(in: output.cubin).isEmpty)
        let resources = try #require(KernelResources(log: output.log, entry: "test_add"))
        #expect((1...64).contains(resources.registers))
        #expect(resources.spillByteCount == 0 && resources.stackByteCount == 0 && resources.sharedByteCount == 0)
    }

    @Test func errorsSayFileAndLine() throws {
        let nvrtc = try #require(TestMachine.nvrtc)
        #expect {
            try compiler.compile(TestKernels.wrong, architecture: Architecture("sm_80")!, with: nvrtc)
        } throws: { error in
            let text = "\(error)"
            return text.contains("test/wrong.cuh") && text.contains("test/wrong_inside.cuh(3): error")
                && text.contains("no_such_name")
        }
    }

    @Test func aMacroThatIsMissingIsAnError() throws {
        let nvrtc = try #require(TestMachine.nvrtc)
        let spec = KernelSpec(file: "test/add.cuh", entry: "test_add", threads: 32, label: "test/no-times")
        #expect { try compiler.compile(spec, architecture: Architecture("sm_80")!, with: nvrtc) } throws: {
            "\($0)".contains("FI_TIMES")
        }
    }

    @Test func anArchitectureItDoesNotKnowIsAnError() throws {
        let nvrtc = try #require(TestMachine.nvrtc)
        #expect(!nvrtc.supports(Architecture("sm_990")!))
        let folder = try TemporaryFolder()
        #expect { try source(folder).cubin(for: TestKernels.add(), architecture: Architecture("sm_990")!) } throws: {
            "\($0)".contains("sm_990")
        }
    }

    @Test func compilesOnceAndRemembersOnDisk() throws {
        let folder = try TemporaryFolder()
        let sm80 = Architecture("sm_80")!
        let first = try source(folder)
        let cubin = try first.cubin(for: TestKernels.add(), architecture: sm80)
        #expect(first.statistics == CubinSource.Counts(bundled: 0, cached: 0, compiled: 1))
        let second = try source(folder)
        #expect(try second.cubin(for: TestKernels.add(), architecture: sm80) == cubin)
        #expect(second.statistics == CubinSource.Counts(bundled: 0, cached: 1, compiled: 0))

        // A damaged entry is compiled again, and whole afterwards.
        let name = try #require(FileManager.default.contentsOfDirectory(atPath: folder.path("cache")).first)
        try folder.write("cache/" + name, Array("FICUBIN1 and then nothing of use".utf8))
        let third = try source(folder)
        #expect(try third.cubin(for: TestKernels.add(), architecture: sm80) == cubin)
        #expect(third.statistics.compiled == 1)
        #expect(try source(folder).cubin(for: TestKernels.add(), architecture: sm80) == cubin)
    }

    /// The assembler of 13.0 makes such copies of this text, as kernels do that keep it from knowing a stage's number.
    @Test func copiesThatNoGPUExecutesLoseTheirPolicy() throws {
        let nvrtc = try #require(TestMachine.nvrtc)
        let sm90 = Architecture("sm_90a")!
        let spec = try #require(
            KernelCatalogue.shipped.first {
                $0.label.hasPrefix("attention 16x128 4 warps 2 stages") && $0.label.contains("q float16 kv int8")
            })
        var texts = Dictionary(uniqueKeysWithValues: KernelTexts.shipped.texts.map { ($0.name, $0.text) })
        let hidden = "int stage = FI_QUEUE ? 0 : item.tile - p.tile;"
        let text = try #require(texts[spec.file]).replacingOccurrences(of: hidden, with: "int stage = 0;")
        try #require(texts.updateValue(text, forKey: spec.file) != text)
        let compiler = KernelCompiler(texts: KernelTexts(texts))
        let plain = try compiler.compile(spec, architecture: sm90, with: nvrtc, hasCachePolicies: false).cubin
        let usual = try compiler.compile(spec, architecture: sm90, with: nvrtc).cubin
        let isLegal = MachineCode.isLegal(usual)
        if nvrtc.version == CompilerVersion(major: 13, minor: 0) { #expect(!isLegal) }
        let folder = try TemporaryFolder()
        let source = CubinSource(
            compiler: compiler, driverVersion: nil,
            environment: TestKernels.environment(cache: folder.path("cache"), nvrtc: nvrtc.path))
        let found = try source.cubin(for: spec, architecture: sm90)
        let isRight = found == (isLegal ? usual : plain)
        #expect(isRight)
        #expect(try MachineCode.illegalCopies(in: found).isEmpty)
    }

    @Test func bundlesWhatItCompiles() throws {
        let folder = try TemporaryFolder()
        let nvrtc = try #require(TestMachine.nvrtc)
        let specs = [TestKernels.add(), TestKernels.add(times: 2), TestKernels.stray]
        let items = try KernelBundle.compile(
            specs, architectures: [Architecture("sm_80")!, Architecture("sm_90a")!], with: nvrtc, source: source(folder)
        )
        #expect(items.count == 6)
        try KernelBundle.write(items, to: folder.path("b"))
        let runtime = CubinSource(
            compiler: compiler, driverVersion: 13_000, environment: TestKernels.environment(bundle: folder.path("b")))
        for spec in specs {
            #expect(try runtime.cubin(for: spec, architecture: Architecture("sm_90a")!).count > 100)
            #expect(try runtime.cubin(for: spec, architecture: Architecture("sm_86")!).count > 100)
        }
        #expect(runtime.statistics == CubinSource.Counts(bundled: 6, cached: 0, compiled: 0))
        #expect(throws: FlashInferError.self) {
            try KernelBundle.compile(
                specs + [TestKernels.wrong], architectures: [Architecture("sm_80")!], with: nvrtc,
                source: source(folder))
        }
    }

    @Test func checksSideBySide() throws {
        let nvrtc = try #require(TestMachine.nvrtc)
        let specs = (1...6).map { TestKernels.add(times: $0) } + [TestKernels.wrong]
        let check = try KernelCheck(
            specs, architectures: [Architecture("sm_80")!, Architecture("sm_120")!], compiler: compiler, nvrtc: nvrtc)
        let last = Counter()
        let outcomes = check.run(threads: 4) { done, _ in last.add(done - last.value) }
        #expect(outcomes.count == 14 && last.value == 14)
        for outcome in outcomes {
            switch outcome.result {
            case .success(let resources): #expect(resources.registers > 0)
            case .failure(let error): #expect("\(error)".contains("wrong_inside.cuh(3)"))
            }
        }
        #expect(throws: FlashInferError.self) {
            try KernelCheck(
                [TestKernels.add(), TestKernels.add()], architectures: [Architecture("sm_80")!], compiler: compiler,
                nvrtc: nvrtc)
        }
    }

    @Test func shippedKernelsHaveOneLabelEach() throws {
        let nvrtc = try #require(TestMachine.nvrtc)
        #expect(throws: Never.self) {
            try KernelCheck(KernelCatalogue.shipped, architectures: KernelCatalogue.architectures, nvrtc: nvrtc)
        }
    }
}
