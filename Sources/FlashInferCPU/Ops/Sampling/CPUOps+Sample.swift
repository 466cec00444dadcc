internal import CFlashInferCPU
public import FlashInferCore
internal import Synchronization

extension CPUOps {
    /// Samples one token from each row.
    ///
    /// - Complexity: a few passes over each row; no sort.
    public func execute(_ operation: SampleOperation) {
        let (rows, width) = (operation.input.shape[0], operation.input.width)
        withScratch(fi_sample_scratch_size(width)) { scratch, memory, part in
            let parameters = scratch.rows.reserve(rows)
            let given = operation.packedRows?.unpacked { SampleOperation.Row(packedAt: $0) } ?? operation.rows
            for (index, row) in given.enumerated() {
                parameters[index] = fi_sample_row(
                    uniform: Philox4x32(seed: row.seed, step: row.step).uniform(), temperature: row.temperature,
                    top_p: row.topP, min_p: row.minP, top_k: Int32(clamping: row.topK))
            }
            let arguments = fi_sample_args(
                x: operation.input.kernelRows, rows: parameters, out: operation.tokens.elements(as: Int32.self),
                status: operation.status.elements(as: UInt8.self), width: width, joint: operation.order == .joint,
                are_probabilities: operation.form == .probabilities, scratch: memory)
            spread(rows: rows, units: 8 * operation.input.elementCount) { worker, first, last in
                var own = arguments
                own.scratch = memory + worker * part
                kernels.sample(&own, first, last)
            }
        }
    }

    /// Keeps what top-k, top-p and min-p keep of each row.
    public func execute(_ operation: FilterOperation) {
        let (rows, width) = (operation.input.shape[0], operation.input.width)
        withScratch(fi_sample_scratch_size(width)) { scratch, memory, part in
            let packed = operation.packedRows?.unpacked { SampleOperation.Row(packedAt: $0) }
            let given =
                packed?.map { .init(temperature: $0.temperature, topK: $0.topK, topP: $0.topP, minP: $0.minP) }
                ?? operation.rows
            let parameters = scratch.rows.reserve(given.count)
            for (index, row) in given.enumerated() {
                parameters[index] = fi_sample_row(
                    uniform: 1, temperature: row.temperature, top_p: row.topP, min_p: row.minP,
                    top_k: Int32(clamping: row.topK))
            }
            let arguments = fi_filter_args(
                x: operation.input.kernelRows, out: operation.output.kernelRows, rows: parameters,
                has_one_row: given.count == 1, status: operation.status.elements(as: UInt8.self),
                width: width, joint: operation.order == .joint,
                are_probabilities: operation.form == .probabilities, scratch: memory)
            spread(rows: rows, units: 8 * operation.input.elementCount) { worker, first, last in
                var own = arguments
                own.scratch = memory + worker * part
                kernels.filter(&own, first, last)
            }
        }
    }

    /// The greatest entries of each row.
    public func execute(_ operation: TopKOperation) {
        let (rows, width) = (operation.input.shape[0], operation.input.width)
        withScratch(fi_top_k_scratch_size(width)) { _, memory, part in
            let arguments = fi_top_k_args(
                x: operation.input.kernelRows, values: operation.values.kernelRows,
                places: operation.places.elements(as: Int32.self), place_stride: Int64(operation.places.strides[0]),
                width: width, k: Int64(operation.count), sorted: operation.isSorted,
                // Bounded, so that 0 times it is 0 for any temperature.
                scale: operation.temperature.map { min(1 / $0, 1e30) } ?? 0,
                status: operation.status?.elements(as: UInt8.self), scratch: memory)
            spread(rows: rows, units: 4 * operation.input.elementCount) { worker, first, last in
                var own = arguments
                own.scratch = memory + worker * part
                kernels.top_k(&own, first, last)
            }
        }
    }

    /// Says which drafted tokens stand.
    public func execute(_ operation: VerifyDraftsOperation) {
        let (requests, nodes) = (operation.target.shape[0], operation.target.shape[1])
        let width = operation.target.width
        var uniforms: [Double] = []
        uniforms.reserveCapacity(requests * nodes)
        let draws =
            operation.packedDraws?.unpacked { VerifyDraftsOperation.Draw(packedAt: $0) } ?? operation.draws
        for draw in draws {
            for node in 0..<nodes {
                uniforms.append(Philox4x32(seed: draw.seed, step: draw.step, stream: UInt32(node)).uniform())
            }
        }
        withScratch(fi_sample_scratch_size(width)) { _, memory, part in
            uniforms.withUnsafeBufferPointer { uniforms in
                var arguments = fi_verify_args()
                arguments.target = UnsafePointer(operation.target.elements(as: Float.self))
                arguments.target_request = Int64(operation.target.strides[0])
                arguments.target_node = Int64(operation.target.strides[1])
                if let draft = operation.draft, draft.elementCount > 0 {
                    arguments.draft = UnsafePointer(draft.elements(as: Float.self))
                    arguments.draft_request = Int64(draft.strides[0])
                    arguments.draft_node = Int64(draft.strides[1])
                }
                arguments.tokens = UnsafePointer(operation.tokens.elements(as: Int32.self))
                if case .links(let firstChild, let nextSibling) = operation.tree {
                    arguments.first_child = UnsafePointer(firstChild.elements(as: Int32.self))
                    arguments.next_sibling = UnsafePointer(nextSibling.elements(as: Int32.self))
                }
                arguments.uniforms = uniforms.baseAddress
                arguments.output = operation.output.elements(as: Int32.self)
                arguments.output_nodes = operation.outputNodes?.elements(as: Int32.self)
                arguments.accepted = operation.accepted?.elements(as: Int32.self)
                arguments.emitted = operation.emitted.elements(as: Int32.self)
                arguments.status = operation.status.elements(as: UInt8.self)
                (arguments.nodes, arguments.width) = (Int64(nodes), width)
                let shared = arguments
                spread(rows: requests, units: 8 * requests * Int(width)) { worker, first, last in
                    var own = shared
                    own.scratch = memory + worker * part
                    kernels.verify(&own, first, last)
                }
            }
        }
    }

    /// Calls `body` with `byteCount` bytes for each thread, `part` bytes apart.
    private func withScratch(
        _ byteCount: Int,
        _ body: (_ scratch: inout CPUOpsScratch, _ memory: UnsafeMutableRawPointer, _ part: Int) -> Void
    ) {
        // Whole cache lines apart, so that threads do not share any.
        let part = (byteCount + 127) & ~63
        scratch.withLock { scratch in
            let memory = UnsafeMutableRawPointer(scratch.sampling.reserve(part * pool.threads))
            body(&scratch, memory, part)
        }
    }
}
