internal import CCUDA
package import FlashInferCore

/// A device's matrix products: the library's handle and workspace, plans made so far, and memory for converted inputs.
package final class CUDALinear: Sendable {
    private struct State: ~Copyable {
        var plans: [ProductKey: ProductPlan] = [:]
        /// Converted inputs; the last is in use. The smaller ones before it stay, as graphs captured earlier write to them.
        var scratch: [CUDAScratch] = []
    }

    private let library: CUBLASLt
    private let queue: CUDAQueue
    private let name: String
    private let handle: fi_cublas_handle
    private let workspace: CUDABuffer
    private let state = Locked(State())
    /// Held from a conversion to the product that reads it, so that no other thread's conversion comes between.
    private let scratchTurn = Locked(())

    /// Room for split-K's partial sums: what NVIDIA advises for Hopper.
    private static let workspaceByteCount = 32 << 20

    /// Opens the library on a queue's GPU.
    package init(_ library: CUBLASLt, on queue: CUDAQueue, name: String) throws(FlashInferError) {
        self.library = library
        self.queue = queue
        self.name = name
        workspace = try CUDABuffer(byteCount: Self.workspaceByteCount, on: queue)
        var handle: fi_cublas_handle = 0
        var status: fi_cublas_status = 0
        try Recordings.ofProcess.whenOthersHaveEnded { () throws(FlashInferError) in
            try queue.context.call("cublasLtCreate") { _ in
                status = library.functions.cublasLtCreate(&handle)
                return 0
            }
        }
        try library.check(status, "cublasLtCreate")
        self.handle = handle
    }

    deinit {
        let (library, handle, context) = (library, handle, queue.context)
        Recordings.ofProcess.afterAll {
            context.release { _ in
                _ = library.functions.cublasLtDestroy(handle)
                return 0
            }
        }
    }

    /// The number of products planned so far: for tests.
    package var planCount: Int { state.withLock { $0.plans.count } }

    /// A tensor of `[rows, columns]`, its rows at multiples of 16 bytes, for an input to be converted into.
    ///
    /// - Throws: ``FlashInferError`` where it must grow while a graph is captured, and where memory is short.
    package func scratch(_ type: DType, _ rows: Int, _ columns: Int) throws(FlashInferError) -> TensorView {
        let stride = (columns + 7) / 8 * 8
        let (elements, overflow) = rows.multipliedReportingOverflow(by: stride)
        guard !overflow, elements <= Int.max / 4 else { throw .overflow("linear input") }
        let needed = elements * type.byteCount
        let region = try state.withLock { (state) throws(FlashInferError) -> MemoryRegion in
            if let last = state.scratch.last, last.byteCount >= needed { return last.region(queue) }
            // Doubled, so that all that was kept is less than the last.
            let size = max(needed, 2 * (state.scratch.last?.byteCount ?? 1 << 19))
            let fresh = try CUDAScratch(byteCount: size, on: queue)
            state.scratch.append(fresh)
            return fresh.region(queue)
        }
        return try TensorView(
            region, dtype: type, shape: [rows, columns], strides: [stride, 1], name: "linear scratch")
    }

    /// Calls `body` with ``scratch(_:_:_:)``, which is its own until it returns: it enqueues what writes and what reads it.
    func withScratch(
        _ type: DType, _ rows: Int, _ columns: Int, _ body: (TensorView) throws(FlashInferError) -> Void
    ) throws(FlashInferError) {
        try scratchTurn.withLock { (_) throws(FlashInferError) in try body(scratch(type, rows, columns)) }
    }

    /// Enqueues `output (+)= input · weightsᵀ (+ bias)`.
    ///
    /// - Parameter input: `[rows, columns]` of the weights' type, its rows at multiples of 16 bytes.
    /// - Returns: `false`, with nothing enqueued, where the library cannot add the bias on its way.
    package func multiply(
        _ input: TensorView, _ weights: CUDAWeights, into output: TensorView, bias: TensorView?, accumulates: Bool
    ) throws(FlashInferError) -> Bool {
        let rows = input.shape[0]
        // One row's stride says nothing, and the library wants room for the row.
        let (inputStride, outputStride) = (
            rows == 1 ? weights.stride : input.strides[0], rows == 1 ? weights.rows : output.strides[0]
        )
        let rowAlignment = rows == 1 ? 16 : ProductKey.alignment(4 * outputStride)
        var key = ProductKey(
            rows: ProductKey.bucket(rows), outputs: weights.rows, inputs: weights.columns,
            weightStride: weights.stride, inputStride: inputStride, outputStride: outputStride,
            type: weights.inputType,
            outputAlignment: min(rowAlignment, ProductKey.alignment(Int(output.address))),
            biasAlignment: bias.map { ProductKey.alignment(Int($0.address)) } ?? 0)
        return try state.withLock { (state) throws(FlashInferError) in
            var status = try run(key, rows, input, weights, output, bias, accumulates, &state)
            if status == Int32(FI_CUBLAS_NOT_SUPPORTED) || status == Int32(FI_CUBLAS_INVALID_VALUE), key.rows != rows {
                // The bucket's algorithm does not take this number of rows.
                key.rows = rows
                status = try run(key, rows, input, weights, output, bias, accumulates, &state)
            }
            if status == Int32(FI_CUBLAS_NOT_SUPPORTED), bias != nil { return false }
            try library.check(status, "cublasLtMatmul")
            return true
        }
    }

    private func run(
        _ key: ProductKey, _ rows: Int, _ input: TensorView, _ weights: CUDAWeights, _ output: TensorView,
        _ bias: TensorView?, _ accumulates: Bool, _ state: inout State
    ) throws(FlashInferError) -> fi_cublas_status {
        let plan: ProductPlan
        if let known = state.plans[key] {
            plan = known
        } else {
            plan = try ProductPlan(
                key, library: library, handle: handle, context: queue.context,
                workspaceByteCount: Self.workspaceByteCount)
            state.plans[key] = plan
        }
        // Kept as well, so that it is not asked again: the library has no algorithm for this.
        guard plan.isSupported else {
            if bias != nil { return Int32(FI_CUBLAS_NOT_SUPPORTED) }
            throw .unsupported(
                "a product of [\(rows), \(key.inputs)] and [\(key.outputs), \(key.inputs)] of \(key.type)",
                device: name,
                nearest: "one whose output rows start at multiples of 16 bytes (these start at multiples of "
                    + "\(key.outputAlignment))")
        }
        var status: fi_cublas_status = 0
        try queue.context.call("cublasLtMatmul") { _ in
            status = plan.run(
                rows: rows, weights: weights.matrix.address, input: input.address, output: output.address,
                bias: bias?.address, accumulates: accumulates, handle: handle, workspace: workspace.address,
                stream: queue.stream.handle)
            return 0
        }
        return status
    }
}

/// A buffer that an array can hold.
private final class CUDAScratch {
    private let buffer: CUDABuffer

    init(byteCount: Int, on queue: CUDAQueue) throws(FlashInferError) {
        buffer = try CUDABuffer(byteCount: byteCount, on: queue)
    }

    var byteCount: Int { buffer.byteCount }

    func region(_ queue: CUDAQueue) -> MemoryRegion {
        MemoryRegion(address: buffer.address, byteCount: buffer.byteCount, device: .cuda(queue.context.ordinal))
    }
}
