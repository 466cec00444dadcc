internal import CCUDA
internal import FlashInferCore

/// What the choice of a product's algorithm depends on.
struct ProductKey: Hashable, Sendable {
    /// Rows of activations, exact where they are few; see ``bucket(_:)``.
    var rows: Int
    /// Output features.
    var outputs: Int
    /// Input features.
    var inputs: Int
    /// Elements from row to row of weights, input and output.
    var weightStride: Int
    var inputStride: Int
    var outputStride: Int
    /// The type of weights and input.
    var type: DType
    /// Bytes that the output's address is a multiple of, up to 16.
    var outputAlignment: Int
    /// The same of the bias; 0 for none.
    var biasAlignment: Int

    /// Rows that an algorithm is asked for: decode steps exactly, prompts by the tiles that they come in, so that a prompt of a new
    /// length asks for nothing.
    static func bucket(_ rows: Int) -> Int { rows <= 128 ? rows : (rows + 127) / 128 * 128 }

    /// The largest power of two up to 16 that divides an address or a stride in bytes.
    static func alignment(_ bytes: Int) -> Int { min(16, bytes == 0 ? 16 : bytes & -bytes) }
}

/// A product that the library has been asked how to compute: descriptions of its matrices, and an algorithm.
///
/// The library counts by columns: what is row-major `[m, n]` here is a matrix of `n` rows and `m` columns there, and the product is
/// `outputᵀ = weights · inputᵀ`.
final class ProductPlan {
    private let library: CUBLASLt
    private let product: fi_cublas_product
    private let weights: fi_cublas_layout
    private let input: fi_cublas_layout
    private let output: fi_cublas_layout
    private let algorithm: fi_cublas_algorithm
    private let workspaceByteCount: Int
    /// Whether the library has an algorithm.
    let isSupported: Bool
    /// The rows that the layouts now say.
    private var rows: Int
    /// The bias that the description now says.
    private var bias: UInt

    /// Asks the library, in a context of the driver's as it looks at the GPU.
    init(
        _ key: ProductKey, library: CUBLASLt, handle: fi_cublas_handle, context: CUDAContext, workspaceByteCount: Int
    ) throws(FlashInferError) {
        self.library = library
        let lt = library.functions
        var (product, weights, input, output): (fi_cublas_product, fi_cublas_layout, fi_cublas_layout, fi_cublas_layout)
        (product, weights, input, output) = (0, 0, 0, 0)
        var preference: fi_cublas_preference = 0
        defer { if preference != 0 { _ = lt.cublasLtMatmulPreferenceDestroy(preference) } }
        do throws(FlashInferError) {
            try library.check(
                lt.cublasLtMatmulDescCreate(&product, Int32(FI_CUBLAS_COMPUTE_FLOAT32), Int32(FI_CUDA_FLOAT32)),
                "cublasLtMatmulDescCreate")
            func set<Value: BitwiseCopyable>(_ attribute: Int, _ value: Value) throws(FlashInferError) {
                let status = withUnsafeBytes(of: value) {
                    lt.cublasLtMatmulDescSetAttribute(product, Int32(attribute), $0.baseAddress!, $0.count)
                }
                try library.check(status, "cublasLtMatmulDescSetAttribute")
            }
            try set(FI_CUBLAS_PRODUCT_TRANSPOSE_A, Int32(FI_CUBLAS_TRANSPOSED))
            if key.biasAlignment > 0 {
                try set(FI_CUBLAS_PRODUCT_EPILOGUE, UInt32(FI_CUBLAS_EPILOGUE_BIAS))
                // Not read yet: the library looks at its alignment.
                try set(FI_CUBLAS_PRODUCT_BIAS_POINTER, UInt(1 << 20 | key.biasAlignment % 16))
            }
            func layout(
                _ layout: inout fi_cublas_layout, _ type: DType, _ rows: Int, _ columns: Int, _ stride: Int
            ) throws(FlashInferError) {
                try library.check(
                    lt.cublasLtMatrixLayoutCreate(
                        &layout, type.cudaType, UInt64(rows), UInt64(columns), Int64(stride)),
                    "cublasLtMatrixLayoutCreate")
            }
            try layout(&weights, key.type, key.inputs, key.outputs, key.weightStride)
            try layout(&input, key.type, key.inputs, key.rows, key.inputStride)
            try layout(&output, .float32, key.outputs, key.rows, key.outputStride)
            try library.check(lt.cublasLtMatmulPreferenceCreate(&preference), "cublasLtMatmulPreferenceCreate")
            func prefer<Value: BitwiseCopyable>(_ attribute: Int, _ value: Value) throws(FlashInferError) {
                let status = withUnsafeBytes(of: value) {
                    lt.cublasLtMatmulPreferenceSetAttribute(preference, Int32(attribute), $0.baseAddress!, $0.count)
                }
                try library.check(status, "cublasLtMatmulPreferenceSetAttribute")
            }
            try prefer(FI_CUBLAS_PREFERENCE_WORKSPACE_BYTES, UInt64(workspaceByteCount))
            try prefer(FI_CUBLAS_PREFERENCE_REDUCTIONS, UInt32(FI_CUBLAS_REDUCTIONS_IN_ORDER))
            // Weights and inputs are made to be aligned; the output is the caller's.
            try prefer(FI_CUBLAS_PREFERENCE_ALIGNMENT_A, UInt32(16))
            try prefer(FI_CUBLAS_PREFERENCE_ALIGNMENT_B, UInt32(16))
            try prefer(FI_CUBLAS_PREFERENCE_ALIGNMENT_C, UInt32(key.outputAlignment))
            try prefer(FI_CUBLAS_PREFERENCE_ALIGNMENT_D, UInt32(key.outputAlignment))
            var result = fi_cublas_heuristic()
            var found: Int32 = 0
            var status: fi_cublas_status = 0
            try context.call("cublasLtMatmulAlgoGetHeuristic") { _ in
                status = lt.cublasLtMatmulAlgoGetHeuristic(
                    handle, product, weights, input, output, output, preference, 1, &result, &found)
                return 0
            }
            isSupported = status == 0 && found > 0 && result.status == 0
            if status != 0, status != Int32(FI_CUBLAS_NOT_SUPPORTED) {
                throw library.error(status, "cublasLtMatmulAlgoGetHeuristic")
            }
            algorithm = result.algorithm
            self.workspaceByteCount = min(result.workspace_bytes, workspaceByteCount)
        } catch {
            Self.destroy(lt, product, [weights, input, output])
            throw error
        }
        (self.product, self.weights, self.input, self.output) = (product, weights, input, output)
        rows = key.rows
        bias = 0
    }

    deinit { Self.destroy(library.functions, product, [weights, input, output]) }

    private static func destroy(_ lt: fi_cublaslt_table, _ product: fi_cublas_product, _ layouts: [fi_cublas_layout]) {
        for layout in layouts where layout != 0 { _ = lt.cublasLtMatrixLayoutDestroy(layout) }
        if product != 0 { _ = lt.cublasLtMatmulDescDestroy(product) }
    }

    /// Enqueues the product.
    ///
    /// - Parameters:
    ///   - rows: rows of activations, at most what was planned for.
    ///   - bias: its address, where it was planned with one.
    /// - Returns: the library's status.
    func run(
        rows: Int, weights weightAddress: UInt, input inputAddress: UInt, output outputAddress: UInt, bias: UInt?,
        accumulates: Bool, handle: fi_cublas_handle, workspace: UInt, stream: UInt
    ) -> fi_cublas_status {
        let lt = library.functions
        if rows != self.rows {
            var columns = UInt64(rows)
            for layout in [input, output] {
                let status = lt.cublasLtMatrixLayoutSetAttribute(
                    layout, Int32(FI_CUBLAS_LAYOUT_COLUMNS), &columns, MemoryLayout<UInt64>.size)
                guard status == 0 else { return status }
            }
            self.rows = rows
        }
        if let bias, bias != self.bias {
            var address = bias
            let status = lt.cublasLtMatmulDescSetAttribute(
                product, Int32(FI_CUBLAS_PRODUCT_BIAS_POINTER), &address, MemoryLayout<UInt>.size)
            guard status == 0 else { return status }
            self.bias = bias
        }
        var (alpha, beta): (Float, Float) = (1, accumulates ? 1 : 0)
        var algorithm = algorithm
        return lt.cublasLtMatmul(
            handle, product, &alpha, weightAddress, weights, inputAddress, input, &beta, outputAddress, output,
            outputAddress, output, &algorithm, workspace, workspaceByteCount, stream)
    }
}

extension DType {
    /// cudaDataType_t of the types that products have.
    fileprivate var cudaType: Int32 {
        switch self {
        case .float16: Int32(FI_CUDA_FLOAT16)
        case .bfloat16: Int32(FI_CUDA_BFLOAT16)
        default: Int32(FI_CUDA_FLOAT32)
        }
    }
}
