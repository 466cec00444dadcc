internal import CFlashInferCPU
internal import FlashInferCore

/// How large the tiles of a plan get.
struct AttentionScratchSize: Equatable {
    /// Packed rows of an item, all heads that it works on at once.
    var rows: Int
    /// Elements of a row of queries or keys, rounded up to whole vectors.
    var queryStride: Int
    /// Elements of a row of output, rounded up to whole vectors.
    var outputStride: Int

    init(_ plan: Plan) {
        let shape = plan.problem.shape
        rows = 16
        for tile in plan.traits.tiles {
            let longest = min(tile.queryRows, max(plan.problem.geometry.queryCount * shape.group, 1))
            let heads = min(tile.kvHeads, shape.kvHeads)
            // Only short requests take several heads at once.
            rows = max(rows, longest, min(longest, CPUAttention.streamRows) * heads)
        }
        rows = (rows + 15) & ~15
        queryStride = (shape.headDimQK + 31) & ~31
        outputStride = (shape.headDimVO + 31) & ~31
    }
}

/// One thread's working memory: pointers into a single allocation that only grows.
final class AttentionScratch {
    /// `[rows][queryStride]` in the work format.
    private(set) var queries: UnsafeMutableRawPointer
    /// `[tileKeys][queryStride]` float32: keys (or queries) to be rotated.
    private(set) var rotated: UnsafeMutablePointer<Float>
    /// `[tileKeys][queryStride]`: rotated keys in the work format.
    private(set) var narrowed: UnsafeMutableRawPointer
    private(set) var keyPanels: UnsafeMutableRawPointer
    private(set) var valuePanels: UnsafeMutableRawPointer
    /// `[rows][tileKeys]`
    private(set) var scores: UnsafeMutablePointer<Float>
    /// `[rows][tileKeys]` in the work format.
    private(set) var weights: UnsafeMutableRawPointer
    /// `[rows][outputStride]`
    private(set) var output: UnsafeMutablePointer<Float>
    private(set) var rowMax: UnsafeMutablePointer<Float>
    private(set) var rowSum: UnsafeMutablePointer<Float>
    private(set) var rowScale: UnsafeMutablePointer<Float>
    /// Rows' sinks where they are computed, and their log-sum-exp: base 2.
    private(set) var rowSink: UnsafeMutablePointer<Float>
    private(set) var rowLSE: UnsafeMutablePointer<Float>
    /// `[tileKeys][outputStride]` float32, and in the work format: values that a variant changes.
    private(set) var valueRows: UnsafeMutablePointer<Float>
    private(set) var narrowValues: UnsafeMutableRawPointer
    /// `[tileKeys][tileKeys]`: some of their elements.
    private(set) var elements: UnsafeMutablePointer<Float>
    private(set) var slopes: UnsafeMutablePointer<Float>
    private(set) var distance: UnsafeMutablePointer<Int32>
    private(set) var first: UnsafeMutablePointer<Int32>
    private(set) var last: UnsafeMutablePointer<Int32>
    private(set) var rowOffsets: UnsafeMutablePointer<Int64>
    private(set) var maskStarts: UnsafeMutablePointer<Int64>
    /// `[2][tileKeys]` each: byte offsets of the tile's keys and values, and of the next block's.
    private(set) var keyOffsets: UnsafeMutablePointer<Int64>
    private(set) var valueOffsets: UnsafeMutablePointer<Int64>
    /// `[tileKeys]`: byte offsets of the rows of `rotated` or `narrowed`.
    private(set) var bufferOffsets: UnsafeMutablePointer<Int64>
    /// `[tileKeys]`: the positions that masks see.
    private(set) var positions: UnsafeMutablePointer<Int32>
    /// `[rows][tileKeys]`: mask bytes of block-sparse tiles.
    private(set) var mask: UnsafeMutablePointer<UInt8>
    private(set) var cosines: UnsafeMutablePointer<UnsafePointer<Float>?>
    private(set) var sines: UnsafeMutablePointer<UnsafePointer<Float>?>

    /// The registers of the variant's program; `nil` for none.
    private(set) var variant: VariantScratch?
    /// Those of the programs of values, sinks, sums and outputs.
    private(set) var values: VariantScratch?
    private(set) var sinks: VariantScratch?
    private(set) var sums: VariantScratch?
    private(set) var outputs: VariantScratch?

    private var memory: UnsafeMutableRawPointer
    private var size: AttentionScratchSize?

    init() {
        memory = .allocate(byteCount: 64, alignment: 64)
        let bytes = memory
        (queries, narrowed, keyPanels, valuePanels, weights) = (bytes, bytes, bytes, bytes, bytes)
        let floats = memory.assumingMemoryBound(to: Float.self)
        (rotated, scores, output, rowMax, rowSum) = (floats, floats, floats, floats, floats)
        (rowScale, slopes) = (floats, floats)
        (rowSink, rowLSE, valueRows, elements, narrowValues) = (floats, floats, floats, floats, bytes)
        let words = memory.assumingMemoryBound(to: Int32.self)
        (distance, first, last, positions) = (words, words, words, words)
        let longs = memory.assumingMemoryBound(to: Int64.self)
        (rowOffsets, maskStarts, keyOffsets, valueOffsets, bufferOffsets) = (longs, longs, longs, longs, longs)
        mask = memory.assumingMemoryBound(to: UInt8.self)
        cosines = memory.assumingMemoryBound(to: UnsafePointer<Float>?.self)
        sines = cosines
    }

    deinit { memory.deallocate() }

    /// Makes room for tiles of `wanted`, or of what there was room for before if that was larger.
    func reserve(_ wanted: AttentionScratchSize) {
        var next = wanted
        if let size {
            next.rows = max(next.rows, size.rows)
            next.queryStride = max(next.queryStride, size.queryStride)
            next.outputStride = max(next.outputStride, size.outputStride)
            if next == size { return }
        }
        size = next
        var layout = Layout()
        carve(next, &layout)
        memory.deallocate()
        memory = .allocate(byteCount: layout.used, alignment: 64)
        layout = Layout(base: memory)
        carve(next, &layout)
    }

    /// Makes room for programs' registers.
    ///
    /// - Precondition: there is room for `wanted`'s tiles.
    func reserve(_ programs: VariantPrograms, _ wanted: AttentionScratchSize) {
        variant = reserved(programs.scores, wanted.rows, scores, variant)
        values = reserved(programs.values, CPUAttention.tileKeys, elements, values)
        sinks = reserved(programs.sink, wanted.rows, scores, sinks)
        sums = reserved(programs.normalizer, wanted.rows, scores, sums)
        outputs = reserved(programs.output, wanted.rows, scores, outputs)
    }

    private func reserved(
        _ program: VariantProgram?, _ rows: Int, _ scores: UnsafeMutablePointer<Float>, _ known: VariantScratch?
    ) -> VariantScratch? {
        guard let program else { return known }
        if let known, known.fits(program, rows: rows, scores: scores) { return known }
        return VariantScratch(program, rows: rows, scores: scores)
    }

    private func carve(_ size: AttentionScratchSize, _ layout: inout Layout) {
        let (rows, keys) = (size.rows, CPUAttention.tileKeys)
        let wide = max(rows, keys)
        queries = layout.bytes(rows * size.queryStride * 4)
        rotated = layout.take(wide * size.queryStride)
        narrowed = layout.bytes(keys * size.queryStride * 4)
        keyPanels = layout.bytes(keys * size.queryStride * 4)
        valuePanels = layout.bytes(keys * size.outputStride * 4)
        scores = layout.take(rows * keys)
        weights = layout.bytes(rows * keys * 4)
        output = layout.take(rows * size.outputStride)
        rowMax = layout.take(rows)
        rowSum = layout.take(rows)
        rowScale = layout.take(rows)
        rowSink = layout.take(rows)
        rowLSE = layout.take(rows)
        valueRows = layout.take(keys * size.outputStride)
        narrowValues = layout.bytes(keys * size.outputStride * 4)
        elements = layout.take(keys * keys)
        slopes = layout.take(rows)
        distance = layout.take(rows)
        first = layout.take(rows)
        last = layout.take(rows)
        rowOffsets = layout.take(rows)
        maskStarts = layout.take(rows)
        keyOffsets = layout.take(2 * keys)
        valueOffsets = layout.take(2 * keys)
        bufferOffsets = layout.take(keys)
        positions = layout.take(keys)
        mask = layout.take(rows * keys)
        cosines = layout.take(wide)
        sines = layout.take(wide)
    }
}

/// Hands out cache-line aligned parts of an allocation; with no base, only counts.
private struct Layout {
    private let base: UnsafeMutableRawPointer
    private(set) var used = 0

    init(base: UnsafeMutableRawPointer? = nil) {
        // Counting needs some pointer that is never read; the first line is as good as any.
        self.base = base ?? UnsafeMutableRawPointer(bitPattern: 64).unsafelyUnwrapped
    }

    mutating func bytes(_ byteCount: Int) -> UnsafeMutableRawPointer {
        defer { used += (byteCount + 63) & ~63 }
        return base + used
    }

    mutating func take<Element>(_ count: Int) -> UnsafeMutablePointer<Element> {
        bytes(count * MemoryLayout<Element>.stride).assumingMemoryBound(to: Element.self)
    }
}
