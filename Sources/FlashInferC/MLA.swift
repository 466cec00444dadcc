// swift-format-ignore-file: AlwaysUseLowerCamelCase
// The functions of this file have the header's names.

public import CFlashInfer
internal import FlashInferCore

/// Plans latent attention over a paged cache.
@c @implementation
public func fi_mla_plan(
    _ attention: OpaquePointer?, _ stream: UnsafeMutableRawPointer?, _ qo_indptr: UnsafePointer<fi_tensor>?,
    _ kv_indptr: UnsafePointer<fi_tensor>?, _ kv_indices: UnsafePointer<fi_tensor>?,
    _ kv_len: UnsafePointer<fi_tensor>?, _ page_size: Int64, _ page_count: Int64
) -> fi_status {
    performPlan(attention, stream) { attention, stream, host in
        let indptr = try host.int32(kv_indptr, "kv_indptr")
        let indices = try host.int32(kv_indices, "kv_indices").used(by: indptr)
        try attention.plan(
            .paged(
                queryIndptr: host.int32(optional: qo_indptr, "qo_indptr"), pageIndptr: indptr, pageIndices: indices,
                kvLengths: host.int32(kv_len, "kv_len"), pageSize: int(page_size, "page_size"),
                pageCount: pages(page_count, indices)),
            on: stream)
    }
}

/// Runs a plan of latent attention.
@c @implementation
public func fi_mla_run(
    _ attention: OpaquePointer?, _ stream: UnsafeMutableRawPointer?, _ args: UnsafePointer<fi_mla_run_args>?
) -> fi_status {
    perform {
        let attention = try object(attention, "attention", as: AttentionHandle.self)
        let args = try options(args, "args", empty: fi_mla_run_args())
        try attention.run(args, on: attention.device.on(stream))
    }
}

extension AttentionHandle {
    /// Runs the plan on one layer's tensors.
    func run(_ args: fi_mla_run_args, on stream: StreamState) throws(FlashInferError) {
        try withState { (state) throws(FlashInferError) in
            guard let plan = state.plan, let region = state.workspace?.region, let allocated = state.allocated else {
                throw .planMismatch("the attention", planned: "nothing yet", found: "tensors")
            }
            let id = stream.id
            let lse = try TensorView(optional: args.lse, "lse", on: id)
            let isNatural = try flag("lse_natural", args.lse_natural)
            let latent = try TensorView(args.ckv, "ckv", on: id)
            let rope = try TensorView(args.kpe, "kpe", on: id)
            // Each against the plan: compared with each other, the right one may be named.
            for (name, view) in [("ckv", latent), ("kpe", rope)] where view.dtype != plan.problem.kvType {
                throw .invalidArgument(name, found: "\(view.dtype)", expected: "\(plan.problem.kvType), as planned")
            }
            let operation = try MLAOperation(
                nopeQueries: TensorView(args.q_nope, "q_nope", on: id),
                ropeQueries: TensorView(args.q_pe, "q_pe", on: id),
                cache: .paged(
                    latent: latent, rope: rope,
                    latentScale: args.ckv_scale == 0 ? 1 : args.ckv_scale,
                    ropeScale: args.kpe_scale == 0 ? 1 : args.kpe_scale),
                output: TensorView(args.out, "out", on: id), logSumExp: lse, plan: plan, workspace: region,
                capacity: allocated)
            try operation.validate()
            try stream.device.execute(.mla(operation))
            state.use(stream)
            if isNatural, let lse { try stream.makeNatural(lse) }
        }
    }
}

extension StreamState {
    /// LSEs of base 2 become natural: ln x = log2 x · ln 2.
    func makeNatural(_ lse: TensorView) throws(FlashInferError) {
        let rows = try lse.asRows
        try run(.add(AddOperation(first: rows, output: rows, alpha: 0.693_147_18)))
    }
}
