import FlashInferCPU
import FlashInferCore
import TestSupport
import Testing

/// The harness itself, where no GPU is: its cases, its guards, and that it can fail.
@Suite struct AttentionHarnessTests {
    private static let device = SeparateDevice()

    /// Every fifth: the cases are for another device, this is a sample.
    private static func some(_ cases: [AttentionCase]) -> [AttentionCase] {
        stride(from: 0, to: cases.count, by: 5).map { cases[$0] }
    }

    /// The GPU's cases are sound: the CPU passes them, in memory that is not the host tensors'.
    @Test(arguments: some(AttentionCase.gpuMatrix + AttentionCase.gpuLayouts + AttentionCase.gpuHeadDims))
    func casesOfTheGPU(_ test: AttentionCase) throws { try check(test) }

    @Test(arguments: some(AttentionCase.gpuLarge + AttentionCase.gpuPrefill))
    func largeCasesOfTheGPU(_ test: AttentionCase) throws {
        try check(test)
    }

    @Test(arguments: AttentionCase.gpuReduced) func reducedCasesOfTheGPU(_ test: AttentionCase) throws {
        #expect(test.isRequiredOfGPU)
        try check(test)
    }

    private func check(_ test: AttentionCase) throws {
        let fixture = try AttentionFixture(test)
        let expected = fixture.oracle.evaluate()
        let buffers = try AttentionBuffers(fixture, on: Self.device)
        for processors in [2, 7] {
            let found = try buffers.run(processors: processors)
            let mismatch = AttentionTolerance(products: .float32).mismatch(found, expected, fixture.problem)
            #expect(mismatch == nil, "\(test)")
        }
    }

    /// A second batch in the first one's memory, as a replay finds it.
    @Test func loadsAnotherBatch() throws {
        func fixture(_ lengths: [(Int, Int)]) throws -> AttentionFixture {
            try AttentionFixture(
                AttentionCase(queryType: .float16, cacheType: .int8, group: 3, lengths: lengths, poolPages: 90))
        }
        let (first, second) = (try fixture([(40, 300), (7, 7)]), try fixture([(1, 900), (3, 20), (0, 4)]))
        let buffers = try AttentionBuffers(first, on: Self.device)
        for fixture in [first, second, first] {
            try buffers.load(fixture)
            let mismatch = AttentionTolerance(products: .float32)
                .mismatch(try buffers.run(processors: 2), fixture.oracle.evaluate(), fixture.problem)
            #expect(mismatch == nil)
        }
    }

    @Test func noticesWhatIsWrong() throws {
        let fixture = try AttentionFixture(AttentionCase(lengths: [(3, 20), (2, 0)]))
        let expected = fixture.oracle.evaluate()
        let right = AttentionResult(output: expected.output, logSumExp: expected.logSumExp)
        let tolerance = AttentionTolerance(products: .bfloat16)
        #expect(tolerance.mismatch(right, expected, fixture.problem) == nil)
        for wrong in [Double.nan, .infinity, expected.output[100] + 0.3] {
            var result = right
            result.output[100] = wrong
            let mismatch = try #require(tolerance.mismatch(result, expected, fixture.problem))
            #expect(mismatch.contains("output[request 0, query 0, head 1, d 36]"))
        }
        // The second request has no keys: its LSE is −∞ and nothing else.
        for (row, wrong) in [(0, Double.nan), (0, expected.logSumExp[0] + 0.01), (13, 0), (13, .infinity)] {
            var result = right
            result.logSumExp[row] = wrong
            #expect(tolerance.mismatch(result, expected, fixture.problem)?.contains("lse[") == true)
        }
    }

    @Test(arguments: [-1, 40, 511 + 40]) func noticesWritesOutsideATensor(_ offset: Int) throws {
        let tensor = try DeviceTensor(AttentionTensor(.float32, [10]), on: Self.device)
        let address = UInt(Int(tensor.view.address) + offset)
        try Self.device.fill(MemoryRegion(address: address, byteCount: 1, device: Self.device.id), with: 7)
        #expect {
            try tensor.download()
        } throws: {
            ($0 as? GuardOverwritten)?.offset == offset
        }
    }
}

/// The CPU as a device whose memory is not the host's: uploads copy, and tensors have guards.
final class SeparateDevice: Device {
    let id = DeviceID.recording
    let name = "separate"
    let limits: DeviceLimits
    private let cpu: CPUDevice

    /// - Parameter instructionSet: the best that works in float32, and so under the narrowest tolerance, where not given.
    init(_ instructionSet: InstructionSet? = nil) {
        let sets = InstructionSet.allCases.filter { $0.isAvailable && $0 != .avx512BF16 }
        cpu = CPUDevice(threads: 2, instructionSet: instructionSet ?? sets.last)
        limits = cpu.limits
    }

    func kernelTraits(for problem: AttentionProblem) throws(FlashInferError) -> KernelTraits {
        try cpu.kernelTraits(for: problem)
    }

    func allocate(byteCount: Int) throws(FlashInferError) -> MemoryRegion {
        let region = try cpu.allocate(byteCount: byteCount)
        return MemoryRegion(address: region.address, byteCount: region.byteCount, device: id)
    }

    func deallocate(_ region: MemoryRegion) { cpu.deallocate(host(region)) }

    func upload(_ source: UnsafeRawBufferPointer, to destination: MemoryRegion) throws(FlashInferError) {
        try cpu.upload(source, to: host(destination))
    }

    func download(
        _ source: MemoryRegion, to destination: UnsafeMutableRawBufferPointer
    ) throws(FlashInferError) {
        try cpu.download(host(source), to: destination)
    }

    func fill(_ region: MemoryRegion, with byte: UInt8) throws(FlashInferError) {
        try cpu.fill(host(region), with: byte)
    }

    func makeWeights(_ parts: [WeightRows]) throws(FlashInferError) -> any DeviceWeights { try cpu.makeWeights(parts) }

    func execute(_ operation: Operation) throws(FlashInferError) { try cpu.execute(operation) }

    func synchronize() throws(FlashInferError) {}

    private func host(_ region: MemoryRegion) -> MemoryRegion {
        MemoryRegion(address: region.address, byteCount: region.byteCount, device: .cpu)
    }
}
