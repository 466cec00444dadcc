import CCUDA
import FlashInferCUDA
import Foundation
import Synchronization

/// A C function has no object to belong to: it finds the fake that runs.
private func withFakeLibrary(_ body: (inout FakeCUBLASLt.State) -> Int32) -> Int32 {
    FakeCUBLASLt.current.state.withLock { body(&$0) }
}

/// A matrix-product library in plain loops over a ``FakeDriver``'s memory, written from cuBLASLt's description: matrices by
/// columns, leading dimensions, `D = A · B + beta · C + bias`.
///
/// C functions carry no context, so there is one fake at a time: tests use it inside `FakeDriver.with(_:)`, after ``start()``.
final class FakeCUBLASLt: Sendable {
    struct Layout {
        var type: Int32
        var rows: UInt64
        var columns: UInt64
        var stride: Int64
    }

    struct Product {
        var isATransposed = false
        var hasBias = false
        var bias: UInt = 0
    }

    struct State {
        var nextHandle: UInt = 1
        var live: Set<UInt> = []
        var layouts: [UInt: Layout] = [:]
        var products: [UInt: Product] = [:]
        /// What preferences say, by attribute.
        var preferences: [UInt: [Int32: UInt64]] = [:]
        /// The preferences of each question for an algorithm, in order.
        var questions: [[Int32: UInt64]] = []
        var runs = 0
        /// What the library refuses.
        var refusesBias = false
        /// Algorithms then take exactly the number of columns they were asked for.
        var isExact = false
        var workspaces: Set<UInt> = []
    }

    let state = Mutex(State())

    nonisolated(unsafe) fileprivate static var current = FakeCUBLASLt()

    /// A fresh library.
    static func start() -> (fake: FakeCUBLASLt, library: CUBLASLt) {
        current = FakeCUBLASLt()
        return (current, CUBLASLt(functions: table(), path: "fake"))
    }

    func read<T: Sendable>(_ body: (State) -> T) -> T { state.withLock { body($0) } }

    func change(_ body: (inout State) -> Void) { state.withLock { body(&$0) } }

    private static func table() -> fi_cublaslt_table {
        var table = fi_cublaslt_table()
        table.cublasLtGetVersion = { 130_000 }
        table.cublasLtGetStatusName = { _ in UnsafePointer(FakeCUBLASLt.fakeName) }
        table.cublasLtCreate = { handle in
            // As the real library: nothing works without a context.
            guard FakeDriver.current.read({ $0.requireContext() }) == 0 else { return 1 }
            return withFakeLibrary { $0.make(handle) }
        }
        table.cublasLtDestroy = { handle in withFakeLibrary { $0.destroy(handle) } }
        table.cublasLtMatmulDescCreate = { product, compute, scale in
            withFakeLibrary { state in
                guard compute == 68, scale == 0 else { return 15 }
                let status = state.make(product)
                state.products[product.pointee] = FakeCUBLASLt.Product()
                return status
            }
        }
        table.cublasLtMatmulDescDestroy = { product in withFakeLibrary { $0.destroy(product) } }
        table.cublasLtMatmulDescSetAttribute = { product, attribute, value, bytes in
            withFakeLibrary { state in
                switch (Int(attribute), bytes) {
                case (FI_CUBLAS_PRODUCT_TRANSPOSE_A, 4):
                    state.products[product]?.isATransposed = value.loadUnaligned(as: Int32.self) == 1
                case (FI_CUBLAS_PRODUCT_EPILOGUE, 4):
                    state.products[product]?.hasBias = value.loadUnaligned(as: UInt32.self) == 4
                case (FI_CUBLAS_PRODUCT_BIAS_POINTER, 8):
                    state.products[product]?.bias = value.loadUnaligned(as: UInt.self)
                default: return 7
                }
                return 0
            }
        }
        table.cublasLtMatrixLayoutCreate = { layout, type, rows, columns, stride in
            withFakeLibrary { state in
                guard stride >= Int64(rows) else { return 7 }
                let status = state.make(layout)
                state.layouts[layout.pointee] = FakeCUBLASLt.Layout(
                    type: type, rows: rows, columns: columns, stride: stride)
                return status
            }
        }
        table.cublasLtMatrixLayoutDestroy = { layout in withFakeLibrary { $0.destroy(layout) } }
        table.cublasLtMatrixLayoutSetAttribute = { layout, attribute, value, bytes in
            withFakeLibrary { state in
                guard attribute == Int32(FI_CUBLAS_LAYOUT_COLUMNS), bytes == 8 else { return 7 }
                state.layouts[layout]?.columns = value.loadUnaligned(as: UInt64.self)
                return 0
            }
        }
        table.cublasLtMatmulPreferenceCreate = { preference in withFakeLibrary { $0.make(preference) } }
        table.cublasLtMatmulPreferenceDestroy = { preference in withFakeLibrary { $0.destroy(preference) } }
        table.cublasLtMatmulPreferenceSetAttribute = { preference, attribute, value, bytes in
            withFakeLibrary { state in
                let number =
                    bytes == 8 ? value.loadUnaligned(as: UInt64.self) : UInt64(value.loadUnaligned(as: UInt32.self))
                state.preferences[preference, default: [:]][attribute] = number
                return 0
            }
        }
        table.cublasLtMatmulAlgoGetHeuristic = { _, product, _, b, _, _, preference, _, results, found in
            withFakeLibrary { state in
                state.questions.append(state.preferences[preference] ?? [:])
                if state.refusesBias, state.products[product]?.hasBias ?? false { return 15 }
                results.pointee = fi_cublas_heuristic()
                results.pointee.workspace_bytes = 1024
                results.pointee.algorithm.data.0 = state.layouts[b]?.columns ?? 0
                found.pointee = 1
                return 0
            }
        }
        table.cublasLtMatmul = {
            _, product, alpha, a, aLayout, b, bLayout, beta, c, _, d, dLayout, algorithm, workspace, size, _ in
            // In stream order: what was enqueued before has run.
            FakeDriver.current.change { $0.runAll() }
            let asked = algorithm.pointee.data.0
            let scales = (alpha.loadUnaligned(as: Float.self), beta.loadUnaligned(as: Float.self))
            guard size == 1024, c == d else { return 7 }
            return withFakeLibrary { state in
                state.runs += 1
                state.workspaces.insert(workspace)
                guard let product = state.products[product], let weights = state.layouts[aLayout],
                    let input = state.layouts[bLayout], let output = state.layouts[dLayout]
                else { return 7 }
                if state.isExact, asked != input.columns { return 15 }
                return FakeCUBLASLt.multiply(product, (weights, a), (input, b), (output, d), scales)
            }
        }
        return table
    }

    nonisolated(unsafe) fileprivate static let fakeName = "CUBLAS_STATUS_FAKE".withCString { strdup($0)! }

    fileprivate static func multiply(
        _ product: Product, _ a: (Layout, UInt), _ b: (Layout, UInt), _ d: (Layout, UInt), _ scales: (Float, Float)
    ) -> Int32 {
        let (weights, input, output) = (a.0, b.0, d.0)
        guard product.isATransposed, weights.rows == input.rows, weights.columns == output.rows,
            input.columns == output.columns, weights.type == input.type, output.type == 0
        else { return 7 }
        let result = UnsafeMutablePointer<Float>(bitPattern: d.1)!
        let bias = product.hasBias ? UnsafePointer<Float>(bitPattern: product.bias) : nil
        for column in 0..<Int(output.columns) {
            for row in 0..<Int(output.rows) {
                var sum = 0.0
                for k in 0..<Int(weights.rows) {
                    sum +=
                        element(weights.type, a.1, k + row * Int(weights.stride))
                        * element(input.type, b.1, k + column * Int(input.stride))
                }
                let place = row + column * Int(output.stride)
                // What is not asked for is not read: it may be NaN.
                if scales.1 != 0 { sum += Double(scales.1 * result[place]) }
                result[place] = Float(sum * Double(scales.0) + Double(bias?[row] ?? 0))
            }
        }
        return 0
    }

    private static func element(_ type: Int32, _ address: UInt, _ index: Int) -> Double {
        let bits = UnsafePointer<UInt16>(bitPattern: address)![index]
        return type == Int32(FI_CUDA_FLOAT16)
            ? Double(Float16(bitPattern: bits)) : Double(Float(bitPattern: UInt32(bits) << 16))
    }
}

extension FakeCUBLASLt.State {
    mutating func make(_ handle: UnsafeMutablePointer<UInt>) -> Int32 {
        handle.pointee = nextHandle
        live.insert(nextHandle)
        nextHandle += 1
        return 0
    }

    mutating func destroy(_ handle: UInt) -> Int32 {
        layouts[handle] = nil
        products[handle] = nil
        return live.remove(handle) == nil ? 7 : 0
    }
}
