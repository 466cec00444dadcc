import CFlashInfer
import FlashInfer
import FlashInferCUDA
import FlashInferCore
import TestSupport
import Testing

/// The GPU of these tests, where there is one.
enum GPU {
    static let isPresent: Bool = {
        var count: Int32 = 0
        return fi_device_count(Int32(FI_CUDA), &count) == FI_OK && count > 0
    }()

    /// Why tests are skipped: `Scripts/gpu-machine` looks for these words.
    static let absence: Comment = "no CUDA device on this machine"

    /// The device of the ABI that all tests share: its kernels are loaded once.
    static let shared = Result { () throws -> CDevice in
        var options = fi_device_options()
        options.device_type = Int32(FI_CUDA)
        return try CDevice(options)
    }
}

extension CUDADevice {
    /// The stream as a caller in C has it.
    var cStream: UnsafeMutableRawPointer? { UnsafeMutableRawPointer(bitPattern: stream) }
}

/// The C ABI on a GPU: the caller's memory and streams, as a framework's would be. The caller is a `CUDADevice` of its own, which the
/// library knows nothing of but its stream.
@Suite(.enabled(if: GPU.isPresent, GPU.absence)) struct GPUTests {
    let device: CDevice
    let caller: CUDADevice

    init() throws {
        device = try GPU.shared.get()
        caller = try CUDADevice()
    }

    /// Everything that the ABI keeps for the caller's stream goes before the stream does.
    private func forget() throws { try ok(fi_device_forget_stream(device.handle, caller.cStream)) }

    private static let lengths = [(1, 37), (5, 80), (0, 9), (17, 300), (1, 900)]

    @Test(arguments: AttentionCase.Layout.allCases) func attention(_ layout: AttentionCase.Layout) throws {
        for feature in [AttentionCase.Feature.causal, .packedWindow, .sinks, .ropeHalf, .alibi] {
            let test = AttentionCase(
                queryType: .bfloat16, cacheType: feature == .sinks ? .float8E4M3 : .bfloat16, layout: layout,
                feature: feature, dimQK: 128, group: 4, lengths: Self.lengths, hasHeadScales: feature == .causal)
            let batch = try CBatch(AttentionBuffers(AttentionFixture(test), on: caller))
            let attention = try CAttention(batch.options, on: device)
            batch.expectClose(try batch.run(attention, stream: caller.cStream), batch.fixture.oracle.evaluate())
        }
        try forget()
    }

    @Test func theLegacyStreamIsNull() throws {
        let test = AttentionCase(queryType: .float16, cacheType: .float16, dimQK: 64, lengths: Self.lengths)
        let batch = try CBatch(AttentionBuffers(AttentionFixture(test), on: caller))
        let attention = try CAttention(batch.options, on: device)
        try batch.buffers.poisonResults()
        try caller.synchronize()
        try ok(batch.plan(attention))
        try ok(attention.run(batch.args))
        try ok(fi_device_synchronize(device.handle, nil))
        batch.expectClose(try batch.buffers.results(), batch.fixture.oracle.evaluate())
    }

    /// Planned on one stream, run on others, one after the other; with tables of a variant that are made at the first use.
    @Test func plansServeEveryStream() throws {
        let test = AttentionCase(
            queryType: .bfloat16, cacheType: .bfloat16, feature: .ropeLlama3, dimQK: 128, group: 4,
            lengths: Self.lengths)
        let batch = try CBatch(AttentionBuffers(AttentionFixture(test), on: caller))
        let expected = batch.fixture.oracle.evaluate()
        let planner = try CUDADevice()
        do {
            let attention = try CAttention(batch.options, on: device)
            try ok(batch.plan(attention, stream: planner.cStream))
            try planner.synchronize()
            let others = try [caller, CUDADevice(), CUDADevice()]
            for other in others {
                try batch.buffers.poisonResults()
                try caller.synchronize()
                try ok(attention.run(batch.args, stream: other.cStream))
                try ok(fi_device_synchronize(device.handle, other.cStream))
                batch.expectClose(try batch.buffers.results(), expected)
                try ok(fi_device_forget_stream(device.handle, other.cStream))
            }
            try ok(fi_device_forget_stream(device.handle, planner.cStream))
            // The plan outlives the stream that it was made on, which is only a handle by now.
            try ok(batch.plan(attention, stream: caller.cStream))
            batch.expectClose(try batch.run(attention, stream: caller.cStream), expected)
        }
        try forget()
    }

    /// The caller captures its own stream; the captured graph runs each new plan, and appends where the slots say.
    @Test func callersCaptureTheirStream() throws {
        func fixture(_ lengths: [(Int, Int)]) throws -> AttentionFixture {
            try AttentionFixture(
                AttentionCase(
                    queryType: .bfloat16, cacheType: .bfloat16, dimQK: 128, group: 4, lengths: lengths,
                    poolPages: 600, seed: 2))
        }
        let fixtures = try [
            [(1, 900), (1, 3), (1, 40)], [(1, 1), (1, 1500), (1, 700)], [(1, 10), (1, 0), (1, 2000)],
        ].map(fixture)
        let batch = try CBatch(AttentionBuffers(fixtures[0], on: caller))
        var options = batch.options
        (options.max_requests, options.max_queries, options.max_request_queries) = (3, 3, 1)
        options.max_pages = 600
        let attention = try CAttention(options, on: device)
        // Once outside the graph, so that kernels are loaded.
        batch.expectClose(
            try batch.run(attention, stream: caller.cStream), fixtures[0].oracle.evaluate())
        let args = batch.args
        let stream = caller.cStream
        let graph = try #require(
            try caller.capture { () throws(FlashInferError) in
                let status = attention.run(args, stream: stream)
                if status != FI_OK { throw .deviceFailure(call: "fi_attention_run", message: lastMessage) }
            })
        for fixture in fixtures + [fixtures[0]] {
            try batch.buffers.load(fixture)
            try batch.buffers.poisonResults()
            let (geometry, blocks) = (fixture.problem.geometry, fixture.problem.geometry.blocks)
            let last = blocks.lengths.enumerated().map { request, length -> Int32 in
                let pages = blocks.indptr[request + 1] - blocks.indptr[request]
                return pages == 0 ? 0 : length - (pages - 1) * Int32(blocks.blockSize)
            }
            try ok(
                fi_attention_plan_paged(
                    attention.handle, stream, geometry.queryIndptr.c, blocks.indptr.c, blocks.indices.c, last.c,
                    Int64(blocks.blockSize), Int64(blocks.blockLimit)))
            try graph.replay()
            let mismatch = AttentionTolerance(products: .bfloat16).mismatch(
                try batch.buffers.results(), fixture.oracle.evaluate(), fixture.problem)
            #expect(mismatch == nil, "\(fixture.test)")
        }
        try caller.synchronize()
        try forget()
    }

    /// Every other operation on the GPU gives what it gives on the CPU, to the rounding of its type.
    @Test func operationsAgreeWithTheCPU() throws {
        let cpu = try CDevice.cpu()
        let script = OperationScript()
        let onHost = try script.run(on: cpu, nil) { host in (host.c, { host.values }) }
        let stream = caller.cStream
        var regions: [MemoryRegion] = []
        let onGPU = try script.run(on: device, stream) { host in
            let region = try caller.allocate(byteCount: host.bytes.count)
            regions.append(region)
            try caller.upload(UnsafeRawBufferPointer(host.bytes), to: region)
            let view = try TensorView(
                region, byteOffset: host.view.byteOffset, dtype: host.view.dtype, shape: host.view.shape,
                strides: host.view.strides)
            return (
                CTensor(view).pointer,
                {
                    try caller.download(region, to: host.bytes)
                    return host.values
                }
            )
        }
        for (name, found) in onGPU {
            let expected = try #require(onHost[name])
            #expect(found.count == expected.count)
            for (index, (a, b)) in zip(found, expected).enumerated() {
                let isClose = a == b || (a.isNaN && b.isNaN) || abs(a - b) <= 0x1p-12 * max(abs(b), 1)
                #expect(isClose, "\(name)[\(index)]: \(a), \(b) on the CPU")
            }
        }
        #expect(onGPU.count == onHost.count)
        try forget()
        for region in regions { caller.deallocate(region) }
    }

    @Test func tensorsOfTheHostAreRefused() throws {
        let x = try OpsTensor(.float32, [2, 16], values: [Double](repeating: 0, count: 32))
        expect(
            fi_rmsnorm(device.handle, nil, x.c, x.c, x.c, 0, 0), FI_INVALID_ARGUMENT, "in is on cpu",
            "must be on cuda:0")
        var name = fi_device_info.sized
        try ok(fi_device_get_info(device.handle, &name))
        #expect(name.device_type == FI_CUDA && name.processors > 0 && name.memory_bytes > 1 << 30)
        #expect(String(cString: fi_device_name(device.handle)).hasPrefix("cuda:0"))
    }
}
