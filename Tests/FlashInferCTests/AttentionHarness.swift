import CFlashInfer
import FlashInfer
import FlashInferCore
import TestSupport
import Testing

/// The options that a fixture's problem stands for.
struct COptions {
    var options: fi_attention_options
    private let rope: UnsafeMutablePointer<fi_rope_options>

    init(_ problem: AttentionProblem, _ layout: AttentionCase.Layout) {
        rope = .allocate(capacity: 1)
        rope.initialize(to: fi_rope_options())
        options = fi_attention_options()
        let (shape, variant) = (problem.shape, problem.variant)
        options.num_qo_heads = Int32(shape.queryHeads)
        options.num_kv_heads = Int32(shape.kvHeads)
        options.head_dim_qk = Int32(shape.headDimQK)
        options.head_dim_vo = Int32(shape.headDimVO)
        options.q_dtype = problem.queryType.dl
        options.kv_dtype = problem.kvType.dl
        options.o_dtype = problem.outputType.dl
        let isHND = [.combinedHND, .splitHND, .raggedHND].contains(layout)
        options.kv_layout = Int32(isHND ? FI_HND : FI_NHD)
        switch variant.form.mask {
        case .none: options.mask_mode = Int32(FI_MASK_NONE)
        case .causal: options.mask_mode = Int32(FI_MASK_CAUSAL)
        case .custom: options.mask_mode = Int32(FI_MASK_CUSTOM)
        case .customPacked: options.mask_mode = Int32(FI_MASK_CUSTOM_PACKED)
        }
        options.window = variant.windowLeft.map { Int32($0) + 1 } ?? 0
        options.logits_soft_cap = variant.logitsSoftCap ?? 0
        options.sm_scale = variant.scale ?? 0
        options.has_sinks = variant.hasSinks ? 1 : 0
        switch variant.positionEncoding {
        case .none: break
        case .alibi: options.position_encoding = Int32(FI_POSITION_ALIBI)
        case .rope(let parameters):
            options.position_encoding = Int32(FI_POSITION_ROPE)
            rope.pointee = fi_rope_options(parameters)
            options.rope = UnsafePointer(rope)
        }
    }
}

extension fi_rope_options {
    init(_ parameters: RoPEParameters) {
        self.init()
        struct_size = UInt64(MemoryLayout<Self>.size)
        theta = parameters.theta
        rotary_dim = Int32(parameters.rotaryDim ?? 0)
        interleave = parameters.pairing == .interleaved ? 1 : 0
        switch parameters.scaling {
        case .none: break
        case .linear(let factor):
            scaling = Int32(FI_ROPE_LINEAR)
            self.factor = factor
        case .llama3(let factor, let low, let high, let context):
            scaling = Int32(FI_ROPE_LLAMA3)
            (self.factor, low_freq_factor, high_freq_factor) = (factor, low, high)
            original_context = Int32(context)
        case .perPair: break
        }
    }
}

/// A fixture's batch through the C ABI.
struct CBatch {
    let buffers: AttentionBuffers
    private let operation: AttentionOperation
    private let workspace: DeviceTensor

    /// `buffers` are on the device that the handles are of.
    init(_ buffers: AttentionBuffers) throws {
        self.buffers = buffers
        let plan = try buffers.plan()
        workspace = try buffers.workspace(for: plan.size)
        operation = try buffers.operation(plan, in: workspace)
    }

    var fixture: AttentionFixture { buffers.fixture }
    var options: fi_attention_options { COptions(fixture.problem, fixture.test.layout).options }

    /// Plans the batch.
    func plan(_ attention: CAttention, stream: UnsafeMutableRawPointer? = nil) -> fi_status {
        let (geometry, blocks) = (fixture.problem.geometry, fixture.problem.geometry.blocks)
        if blocks.blocksAreRows {
            let kvIndptr = blocks.lengths.reduce(into: [Int32(0)]) { $0.append($0[$0.count - 1] + $1) }
            return fi_attention_plan_ragged(attention.handle, stream, geometry.queryIndptr.c, kvIndptr.c)
        }
        return fi_attention_plan_paged(
            attention.handle, stream, geometry.queryIndptr.c, blocks.indptr.c, blocks.indices.c, lastPageLengths.c,
            Int64(blocks.blockSize), Int64(blocks.blockLimit))
    }

    var lastPageLengths: [Int32] {
        let blocks = fixture.problem.geometry.blocks
        return blocks.lengths.enumerated().map { request, length in
            let pages = blocks.indptr[request + 1] - blocks.indptr[request]
            return pages == 0 ? 0 : length - (pages - 1) * Int32(blocks.blockSize)
        }
    }

    /// The tensors of a run.
    var args: fi_attention_run_args {
        var args = fi_attention_run_args()
        args.q = UnsafePointer(operation.queries.c)
        args.k = UnsafePointer(operation.cache.keys.view.c)
        args.v = UnsafePointer(operation.cache.values.view.c)
        args.out = UnsafePointer(operation.output.c)
        args.lse = UnsafePointer(operation.logSumExp!.c)
        args.mask = (operation.mask?.c).map { UnsafePointer($0) }
        args.alibi_slopes = (operation.alibiSlopes?.c).map { UnsafePointer($0) }
        args.sinks = (operation.sinks?.c).map { UnsafePointer($0) }
        let scales = operation.cache.scales
        args.q_scale = operation.queryScale
        args.q_scales = (operation.queryScalePerHead?.c).map { UnsafePointer($0) }
        args.k_scale = scales.key
        args.v_scale = scales.value
        args.k_scales = (scales.keyPerHead?.c).map { UnsafePointer($0) }
        args.v_scales = (scales.valuePerHead?.c).map { UnsafePointer($0) }
        return args
    }

    /// Plans and runs, and gives what came out.
    func run(_ attention: CAttention, stream: UnsafeMutableRawPointer? = nil) throws -> AttentionResult {
        try buffers.poisonResults()
        try buffers.device.synchronize()
        try ok(plan(attention, stream: stream))
        try ok(attention.run(args, stream: stream))
        return try buffers.results()
    }

    /// Compares with the oracle, as the CPU's kernels work.
    func expectClose(
        _ found: AttentionResult, _ expected: AttentionOracle.Result,
        sourceLocation: SourceLocation = #_sourceLocation
    ) {
        let problem = fixture.problem
        let isNarrow =
            buffers.device.id != .cpu
            || (InstructionSet.detected == .avx512BF16 && [.bfloat16, .float8E4M3].contains(problem.queryType)
                && problem.kvType != .float32 && problem.kvType != .float16)
        let short = buffers.device.id == .cpu ? DType.bfloat16 : problem.queryType
        let mismatch = AttentionTolerance(products: isNarrow ? short : .float32)
            .mismatch(found, expected, problem)
        #expect(mismatch == nil, "\(fixture.test)", sourceLocation: sourceLocation)
    }
}
