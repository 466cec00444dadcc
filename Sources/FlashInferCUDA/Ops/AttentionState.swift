internal import FlashInferCore

/// What a device keeps for attention: plans in workspaces, tuning looked up before, and constants in device memory.
final class AttentionState: Sendable {
    /// More resident blocks than any traits ask for.
    static let maximumWorkersPerProcessor = 4

    /// The tiles of one kind of heads.
    struct Tuning: Sendable {
        let heads: AttentionHeads
        let tiles: [AttentionTile]
        /// In the place of Hopper's tile where the copy engine cannot bring a run's tensors.
        let portable: AttentionTile?
        /// The kernel of lists and the longest requests' queue in one launch, where there is one.
        let mixed: AttentionTile?
        let traits: KernelTraits
    }

    let plans = PreparedPlans()
    private let limits: AttentionTuning.Limits
    private let processors: Int
    private let tunings = Locked<[TuningKey: Tuning]>([:])
    private let kept = Locked<[ConstantKey: UInt]>([:])

    private struct TuningKey: Hashable {
        var heads: AttentionHeads
        var kvHeads: Int
    }

    init(_ properties: CUDAProperties) {
        limits = AttentionTuning.Limits(properties)
        processors = properties.processors
    }

    /// The tiles for a problem, or why there are none.
    func tuning(for problem: AttentionProblem, deviceName: String) throws(FlashInferError) -> Tuning {
        guard problem.queryType != .float32 else {
            throw .unsupported(
                "attention with \(problem.queryType) queries", device: deviceName,
                nearest: "float16 or bfloat16 queries, which the convert operation makes")
        }
        let isFloat8 = problem.queryType == .float8E4M3
        guard
            problem.kvType.byteCount == 1 || problem.kvType == problem.queryType
                || (isFloat8 && problem.kvType.byteCount == 2)
        else {
            throw .unsupported(
                "\(problem.queryType) queries over a \(problem.kvType) cache", device: deviceName,
                nearest:
                    "a cache of \(isFloat8 ? "float16, bfloat16" : "\(problem.queryType)"), float8-e4m3, float8-e5m2 or int8"
            )
        }
        try Self.check(problem.variant, deviceName)
        if problem.shape.isLatent { try Self.checkLatent(problem, deviceName) }
        let heads = AttentionHeads(problem)
        let key = TuningKey(heads: heads, kvHeads: problem.shape.kvHeads)
        if let known = tunings.withLock({ $0[key] }) { return known }
        guard let tiles = AttentionTuning.tiles(heads, limits) else {
            throw .unsupported(
                "heads of \(heads.dimQK) and \(heads.dimVO) elements", device: deviceName,
                nearest: "heads of at most 256 elements")
        }
        let tuning = Tuning(
            heads: heads, tiles: tiles.map(\.tile), portable: AttentionTuning.portable(heads, limits),
            mixed: AttentionTuning.mixed(heads, tiles.map(\.tile), limits),
            traits: AttentionTuning.traits(heads, tiles, kvHeads: key.kvHeads, processors: processors))
        tunings.withLock { $0[key] = tuning }
        return tuning
    }

    /// What of variants the kernels lack.
    private static func check(_ variant: AttentionVariant, _ deviceName: String) throws(FlashInferError) {
        if variant.form.parameters.count > VariantText.maximumParameters {
            throw .unsupported(
                "\(variant.form.parameters.count) parameters of variant '\(variant.name)'", device: deviceName,
                nearest: "\(VariantText.maximumParameters)")
        }
    }

    /// What latent attention's kernels lack.
    private static func checkLatent(_ problem: AttentionProblem, _ deviceName: String) throws(FlashInferError) {
        try problem.requireLatentSupport(deviceName: deviceName)
        guard problem.queryType.byteCount == 2 else {
            throw .unsupported(
                "latent attention with \(problem.queryType) queries", device: deviceName,
                nearest: "float16 or bfloat16 queries")
        }
        let (latent, rope) = (problem.shape.headDimVO, problem.shape.latentRopeDim)
        guard latent % 64 == 0, rope % 16 == 0, latent <= 512 else {
            throw .unsupported(
                "latent attention of \(latent) and \(rope) elements", device: deviceName,
                nearest: "a multiple of 64 up to 512, and of 16")
        }
    }

    private enum ConstantKey: Hashable {
        case slopes(heads: Int)
        case turns(RoPEParameters, headDim: Int)
        case sinks(Float, heads: Int)
    }

    /// The addresses of a variant's own slopes, turns and sinks, 0 where it has none. They stay for the device's life: there are few.
    ///
    /// - Parameter isShared: whether other streams than the queue's read them: then they are there when this returns.
    func constants(
        for problem: AttentionProblem, queue: CUDAQueue, isShared: Bool
    ) throws(FlashInferError) -> (slopes: UInt, turns: UInt, sinks: UInt) {
        let shape = problem.shape
        var (slopes, turns, sinks): (UInt, UInt, UInt) = (0, 0, 0)
        if problem.variant.form.readsSlopes {
            slopes = try constant(.slopes(heads: shape.queryHeads), queue, isShared) {
                AttentionVariant.alibiSlopes(heads: shape.queryHeads)
            }
        }
        if let rope = problem.variant.rope {
            turns = try constant(.turns(rope, headDim: shape.headDimQK), queue, isShared) {
                rope.frequencies(headDim: shape.headDimQK).flatMap { frequency in
                    let turns = frequency / (2 * Double.pi)
                    let high = Float(turns)
                    return [high, Float(turns - Double(high))]
                }
            }
        }
        if case .logit(let logit) = problem.variant.sink {
            sinks = try constant(.sinks(logit, heads: shape.queryHeads), queue, isShared) {
                [Float](repeating: logit, count: shape.queryHeads)
            }
        }
        return (slopes, turns, sinks)
    }

    private func constant(
        _ key: ConstantKey, _ queue: CUDAQueue, _ isShared: Bool, _ make: () -> [Float]
    ) throws(FlashInferError) -> UInt {
        if let known = kept.withLock({ $0[key] }) { return known }
        let elements = make()
        let address = try queue.allocate(byteCount: max(elements.count, 1) * 4)
        let result = elements.withUnsafeBytes { bytes in
            Result { () throws(FlashInferError) in try queue.upload(bytes, to: address) }
        }
        try result.get()
        if isShared { try queue.synchronize() }
        // Where two threads made the same, the first stays in use and the other is a few bytes too many.
        return kept.withLock { kept in
            if let earlier = kept[key] { return earlier }
            kept[key] = address
            return address
        }
    }
}
