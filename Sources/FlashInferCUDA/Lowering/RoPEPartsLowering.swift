internal import CUDAKernels
internal import FlashInferCore

/// The kernels of rotary embedding with more to it: heads that are normalised, in two parts, converted or stored in a cache. One for each
/// type of what is read, with all types of outputs and caches; and one for many tokens whose types are all the same.
package enum RoPEPartsKernel {
    /// Kernels of a type and cut: normalised or not, by a table or not, interleaved or not.
    private static let flagCombinations = 8
    private static let cutCount = Cut.allCases.count
    private static let table = SpecTable(count: DType.computeTypes.count * cutCount * flagCombinations)

    /// How a launch's work is cut into blocks.
    private enum Cut: Int, CaseIterable {
        /// A block has some heads of one token: short enough that a single token's heads fill several processors.
        case few
        /// Of many tokens, shorter ones: what they need of a token's heads and wait for at the barrier is less.
        case many
        /// Of many tokens with so many elements each that what a block does once is to be shared by more of them.
        case wide
        /// Of fewer such tokens: blocks of as many as `wide` has would be too few.
        case someWide
        /// Of heads of one type that turn or move as wholes, of any number of tokens: a thread has several heads of a token, so that what is the
        /// same for them, and was most of a thread's instructions, is there once.
        case heads

        init(tokens: Int, threadsOfToken: Int, isNormalised: Bool, isUniform: Bool) {
            let isWide = threadsOfToken >= 2048
            if isUniform && (isNormalised || !isWide) {
                self = .heads
            } else if isWide {
                self = isNormalised || tokens < 32 ? .few : tokens < 512 ? .someWide : .wide
            } else {
                self = tokens < 1024 ? .few : .many
            }
        }

        var threads: Int { self == .many || self == .heads ? 64 : 128 }

        /// Whether blocks of `heads` have whole heads of so many threads.
        static func holds(lanes: Int) -> Bool {
            (1...Cut.heads.threads).contains(lanes) && Cut.heads.threads % lanes == 0
        }

        /// Heads of a thread.
        var heads: Int { self == .heads ? 2 : 1 }

        /// Tokens of a block: two of many, so that a thread has two vectors on their way; four of wide ones, most of which only move. A
        /// batch of fewer than 32 was faster with blocks of one token.
        var tokens: Int {
            switch self {
            case .few, .heads: 1
            case .many, .someWide: 2
            case .wide: 4
            }
        }

        /// As many as registers allow, for loads on their way. Of wide tokens some registers are spilled where pairs turn, which few do.
        func blocksPerProcessor(isNormalised: Bool) -> Int {
            switch self {
            case .few: (isNormalised ? 1024 : 1280) / threads
            case .many: (isNormalised ? 1152 : 1024) / threads
            case .wide, .someWide: 1024 / threads
            case .heads: isNormalised ? 14 : 18
            }
        }

        var label: String {
            switch self {
            case .few: ""
            case .many: " of many tokens"
            case .wide: " of many wide tokens"
            case .someWide: " of wide tokens"
            case .heads: ", several heads a thread"
            }
        }
    }

    /// - Parameter isInterleaved: of the kernel of several heads a thread only; the others take pairs of both kinds.
    private static func spec(
        _ input: DType, isNormalised: Bool, isTabled: Bool, isInterleaved: Bool, _ cut: Cut
    ) -> KernelSpec {
        let isInterleaved = isInterleaved && cut == .heads
        let flags = (isNormalised ? 4 : 0) + (isTabled ? 2 : 0) + (isInterleaved ? 1 : 0)
        let kind = input.kernelNumber * cutCount + cut.rawValue
        return table.spec(kind * flagCombinations + flags) {
            KernelSpec(
                file: cut == .heads ? "portable/rope_heads.cuh" : "portable/rope_parts.cuh",
                entry: cut == .heads ? "rope_heads" : "rope_parts",
                defines: [
                    .init("FI_INPUT", input.kernelNumber), .init("FI_NORMALISED", isNormalised),
                    .init("FI_TABLED", isTabled),
                ]
                    + (cut == .heads
                        ? [.init("FI_HEADS", cut.heads), .init("FI_INTERLEAVED", isInterleaved)]
                        : [.init("FI_TOKENS", cut.tokens)]),
                threads: cut.threads, blocksPerProcessor: cut.blocksPerProcessor(isNormalised: isNormalised),
                label: "rope-parts \(input.label)" + (isNormalised ? " normalised" : "") + (isTabled ? " by table" : "")
                    + cut.label + (isInterleaved ? ", interleaved" : ""))
        }
    }

    /// The specialisations that ship: all.
    package static func shipped() -> [KernelSpec] {
        DType.computeTypes.flatMap { type in
            [(false, Cut.allCases), (true, [.few, .many, .heads])].flatMap { isNormalised, cuts in
                cuts.flatMap { cut in
                    [false, true].flatMap { isTabled in
                        (cut == .heads ? [false, true] : [false]).map {
                            spec(type, isNormalised: isNormalised, isTabled: isTabled, isInterleaved: $0, cut)
                        }
                    }
                }
            }
        }
    }

    /// Heads of one tensor, and where they go.
    struct Part {
        let input: TensorView
        let name: StaticString
        /// A tensor of the input's shape, or the elements of a cache that the input's go to.
        var output: TensorView
        /// The cache that `output` is of.
        var cache: KVTensor?
        var turns: Bool
        var factor: Float = 1
        var scale: Float = 1
        var scales: TensorView?
        var weight: TensorView?

        /// What does not turn stays where it is.
        var isInPlace: Bool { cache == nil && output.address == input.address && output.dtype == input.dtype }
    }

    /// What all parts of a launch share.
    struct Shared {
        var angles: fi_rope_angles
        var positions: TensorView
        var rotaryDim: Int
        var pairing: RoPEParameters.Pairing
        var normalization: HeadNormalization?
        /// The address of the slots, `[2, tokens]`, and the cache that they are of.
        var slots: UInt = 0
        var cache: KVTensor?
    }

    /// The launch of parts of one type, those that turn first.
    static func launch(
        _ parts: [Part], _ shared: Shared
    ) throws(FlashInferError) -> KernelLaunch<fi_rope_parts_params>? {
        guard let first = parts.first?.input else { return nil }
        let (tokens, full) = (first.shape[0], vectorWidth(first.dtype))
        var isAligned = shared.rotaryDim / 2 <= FI_ROPE_TABLE_PAIRS && shared.rotaryDim / 2 % full == 0
        for part in parts {
            try part.input.checkAlignment(part.name)
            try part.output.checkAlignment("output", of: part.name)
            try part.scales?.checkAlignment("scales", of: part.name)
            try part.weight?.checkAlignment("weight", of: part.name)
            let moved = part.input.width - (part.turns ? shared.rotaryDim : 0)
            isAligned =
                isAligned && moved % full == 0 && part.input.hasAlignedRows(vector: full)
                && part.output.hasAlignedRows(vector: full) && (part.weight?.address ?? 0) % 16 == 0
        }
        try shared.positions.checkAlignment("positions")
        let vector = isAligned ? full : 1
        var parameters = fi_rope_parts_params()
        var described: [fi_rope_part] = []
        var items = 0
        for part in parts {
            let one = try describe(part, shared, vector: vector)
            let (threads, overflow) = Int(one.heads).multipliedReportingOverflow(by: Int(one.lanes))
            guard !overflow, items + threads <= Int(Int32.max) else { throw .overflow("heads of \(part.name)") }
            items += threads
            if part.weight != nil {
                (parameters.norm_lanes, parameters.norm_width) = (one.lanes, UInt32(part.input.width))
                parameters.norm_inverse = 1 / Float(part.input.width)
            }
            described.append(one)
        }
        let isNormalised = parameters.norm_lanes != 0
        let areUniform =
            isAligned && (shared.angles.table | UInt64(bitPattern: 4 * shared.angles.table_stride)) % 16 == 0
            && zip(parts, described).allSatisfy { isUniform($0, $1, shared) }
        let cut = Cut(tokens: tokens, threadsOfToken: items, isNormalised: isNormalised, isUniform: areUniform)
        // A block has one part's threads, so that what it needs to know of the part is the same for all of them.
        var tokenBlocks = 0
        for index in described.indices {
            described[index].first_block = UInt32(tokenBlocks)
            let threads = cut.threads * cut.heads
            tokenBlocks += (Int(described[index].heads * described[index].lanes) + threads - 1) / threads
        }
        withUnsafeMutableBytes(of: &parameters.parts) {
            let places = $0.assumingMemoryBound(to: fi_rope_part.self)
            for index in places.indices {
                if index < described.count {
                    places[index] = described[index]
                } else {
                    places[index].first_block = .max
                }
            }
        }
        let together = cut.tokens
        let groups = (tokens + together - 1) / together
        let (blocks, overflow) = groups.multipliedReportingOverflow(by: tokenBlocks)
        guard !overflow, blocks <= Int(Int32.max) else { throw .overflow("elements of \(parts[0].name)") }
        if blocks == 0 { return nil }
        parameters.angles = shared.angles
        parameters.positions = UInt64(shared.positions.address)
        parameters.slots = UInt64(shared.slots)
        parameters.blocks = Int64(shared.cache?.blockCount ?? 0)
        parameters.block_rows = Int64(shared.cache?.blockSize ?? 0)
        parameters.tokens = UInt32(tokens)
        parameters.rotary_dim = UInt32(shared.rotaryDim)
        parameters.token_blocks = UInt32(tokenBlocks)
        parameters.by_token_blocks = fi_division(by: tokenBlocks)
        parameters.epsilon = shared.normalization?.epsilon ?? 0
        parameters.weight_offset = shared.normalization?.weightOffset ?? 0
        parameters.weight_type = Int32((shared.normalization?.queryWeight.dtype ?? .float32).kernelNumber)
        parameters.interleaved = shared.pairing == .interleaved ? 1 : 0
        parameters.vectorised = isAligned ? 1 : 0
        return KernelLaunch(
            spec(
                first.dtype, isNormalised: isNormalised, isTabled: shared.angles.table != 0,
                isInterleaved: shared.pairing == .interleaved, cut),
            blocks: blocks, parameters)
    }

    /// Whether a part's heads turn or move as wholes and all its elements are of one type, which nothing but a norm multiplies.
    private static func isUniform(_ part: Part, _ described: fi_rope_part, _ shared: Shared) -> Bool {
        let lanes = Int(described.lanes)
        return part.output.dtype == part.input.dtype && part.factor == 1 && part.scales == nil
            && (part.weight?.dtype ?? part.input.dtype) == part.input.dtype
            && (part.turns ? part.input.width == shared.rotaryDim : part.weight == nil)
            && lanes == Int(described.turn_items + described.move_items) && Cut.holds(lanes: lanes)
    }

    private static func describe(
        _ part: Part, _ shared: Shared, vector: Int
    ) throws(FlashInferError) -> fi_rope_part {
        let turning = part.turns ? shared.rotaryDim : 0
        let moved = part.isInPlace && part.weight == nil ? 0 : part.input.width - turning
        let (turnItems, moveItems) = (turning / 2 / vector, moved / vector)
        guard part.input.width <= Int(Int32.max) / 4, part.input.shape[1] <= 1 << 24 else {
            throw .overflow("heads of \(part.name)")
        }
        var lanes = turnItems + moveItems
        if part.weight != nil {
            // The power of two that covers a head's items, within a warp.
            var group = 1
            while group < min(lanes, 32) { group *= 2 }
            lanes = group
        }
        let target: fi_heads_tensor
        if let cache = part.cache {
            target = fi_heads_tensor(
                address: UInt64(part.output.address), token: Int64(cache.tokenStride), head: Int64(cache.headStride))
        } else {
            target = fi_heads_tensor(part.output)
        }
        return fi_rope_part(
            source: fi_heads_tensor(part.input), target: target, block: Int64(part.cache?.blockStride ?? 0),
            scales: UInt64(part.scales?.address ?? 0), factor: part.factor, scale: part.scale,
            heads: lanes == 0 ? 0 : UInt32(part.input.shape[1]), turn_items: UInt32(turnItems),
            move_items: UInt32(moveItems), move_start: UInt32(turning), lanes: UInt32(max(lanes, 1)),
            by_lanes: fi_division(by: max(lanes, 1)), first_block: 0,
            type: Int32(part.output.dtype.kernelNumber), is_stored: part.cache == nil ? 0 : 1,
            weight: UInt64(part.weight?.address ?? 0))
    }
}
