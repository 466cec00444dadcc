package import CCUDA
package import FlashInferCore

/// NVIDIA's matrix-product library: its table of functions, and its statuses as typed errors.
package final class CUBLASLt: @unchecked Sendable {
    // Unchecked because C function pointers have no sendability; the table never changes and the library is thread-safe.

    /// The library's functions.
    package let functions: fi_cublaslt_table
    /// Where it was found.
    package let path: String

    /// A library of these functions: this machine's, or a test's stand-in for one.
    package init(functions: fi_cublaslt_table, path: String) {
        self.functions = functions
        self.path = path
    }

    /// The files that the library may be in, the best first.
    ///
    /// - Parameter driverVersion: the CUDA version of the driver that will run its kernels: a later major version's do not load.
    package static func candidates(
        driverVersion: Int, environment: CUDAEnvironment = .current
    ) -> [String] {
        let names = [(13, "libcublasLt.so.13"), (12, "libcublasLt.so.12")]
            .filter { $0.0 * 1000 <= driverVersion }.map(\.1)
        return LibraryPlaces.toolkit(names: names, wheels: ["cu13/lib", "cublas/lib"], environment: environment)
    }

    /// Loads the library of this machine.
    ///
    /// - Throws: ``FlashInferError/deviceFailure(call:message:)`` that says what was looked for and what to install.
    package static func load(driverVersion: Int) throws(FlashInferError) -> CUBLASLt {
        try load(candidates: candidates(driverVersion: driverVersion), driverVersion: driverVersion)
    }

    /// Loads the first of some files.
    package static func load(candidates: [String], driverVersion: Int) throws(FlashInferError) -> CUBLASLt {
        let wheel = driverVersion >= 13_000 ? "nvidia-cublas" : "nvidia-cublas-cu12"
        let help =
            "Matrix products on the GPU need it: install it with 'pip install \(wheel)', or with NVIDIA's CUDA toolkit"
        let library = try DynamicLibrary("cuBLASLt", candidates: candidates, help: help)
        var functions = fi_cublaslt_table()
        try library.fill(&functions, fi_cublaslt_symbols(), help: help)
        return CUBLASLt(functions: functions, path: library.path)
    }

    /// Throws what a status stands for, unless it is success.
    package func check(_ status: fi_cublas_status, _ call: StaticString) throws(FlashInferError) {
        if status != 0 { throw error(status, call) }
    }

    /// A status in the library's own words.
    @inline(never)
    package func error(_ status: fi_cublas_status, _ call: StaticString) -> FlashInferError {
        let name = functions.cublasLtGetStatusName(status).map { String(cString: $0) } ?? "unknown status"
        return .deviceFailure(call: "\(call)", message: "\(name) (\(status))")
    }
}
