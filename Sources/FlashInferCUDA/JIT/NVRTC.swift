internal import CCUDA
internal import FlashInferCore

/// The run-time compiler.
package final class NVRTC: @unchecked Sendable {
    // Unchecked because C function pointers have no sendability; the table never changes and NVRTC is thread-safe.
    private let functions: fi_nvrtc_table
    /// Where it was found.
    package let path: String
    /// Its version.
    package let version: CompilerVersion

    /// What a compilation gave.
    package struct Output: Sendable {
        /// The machine code, or PTX where that was asked for.
        package let cubin: [UInt8]
        /// Warnings, and the assembler's figures where they were asked for.
        package let log: String
    }

    /// The files that NVRTC may be in, the best first.
    ///
    /// - Parameter driverVersion: the CUDA version of the driver that will load what is compiled, or nil where none will.
    package static func candidates(
        driverVersion: Int? = nil, environment: CUDAEnvironment = .current
    ) -> [String] {
        if let file = environment.nvrtc { return [file] }
        // A driver does not load what a compiler of a later major version made.
        let names = [(13, "libnvrtc.so.13"), (12, "libnvrtc.so.12")]
            .filter { $0.0 * 1000 <= driverVersion ?? .max }.map(\.1)
        return LibraryPlaces.toolkit(
            names: names, wheels: ["cu13/lib", "cuda_nvrtc/lib"], environment: environment)
    }

    /// Loads this machine's NVRTC.
    ///
    /// - Throws: ``FlashInferError/deviceFailure(call:message:)`` that says what was looked for.
    package convenience init(
        driverVersion: Int? = nil, environment: CUDAEnvironment = .current
    ) throws(FlashInferError) {
        try self.init(candidates: Self.candidates(driverVersion: driverVersion, environment: environment))
    }

    /// Loads the first NVRTC of some files.
    package init(candidates: [String]) throws(FlashInferError) {
        let help =
            "Install it with 'pip install nvidia-cuda-nvrtc' (or nvidia-cuda-nvrtc-cu12 for a driver of CUDA 12), or name the "
            + "file in FLASHINFER_NVRTC"
        let library = try DynamicLibrary("NVRTC", candidates: candidates, help: help)
        var functions = fi_nvrtc_table()
        try library.fill(&functions, fi_nvrtc_symbols(), help: help)
        var major: Int32 = 0
        var minor: Int32 = 0
        guard functions.nvrtcVersion(&major, &minor) == 0 else {
            throw .deviceFailure(call: "nvrtcVersion", message: "no version from \(library.path)")
        }
        guard major >= 12 else {
            throw .deviceFailure(
                call: "loading \(library.path)", message: "NVRTC \(major).\(minor) is too old; 12.0 is needed. \(help)")
        }
        // NVRTC opens its built-in headers by name only, and so finds them only where the system's loader looks: in a wheel's folder
        // it does not, unless they are open already.
        library.preload("libnvrtc-builtins.so.\(major).\(minor)")
        self.functions = functions
        path = library.path
        version = CompilerVersion(major: Int(major), minor: Int(minor))
    }

    /// Whether it makes code for an architecture.
    package func supports(_ architecture: Architecture) -> Bool {
        var count: Int32 = 0
        guard functions.nvrtcGetNumSupportedArchs(&count) == 0, count > 0 else { return true }
        var all = [Int32](repeating: 0, count: Int(count))
        guard functions.nvrtcGetSupportedArchs(&all) == 0 else { return true }
        return all.contains(Int32(architecture.major * 10 + architecture.minor))
    }

    /// What a compilation ends with.
    package enum Product {
        case cubin
        /// Its architecture is a virtual one: "compute_90a".
        case ptx
    }

    /// Compiles a text with others as its named headers.
    ///
    /// - Throws: ``FlashInferError/deviceFailure(call:message:)`` with the compiler's errors, by file and line.
    package func compile(
        name: String, text: String, headers: [(name: String, text: String)] = [], options: [String],
        to product: Product = .cubin
    ) throws(FlashInferError) -> Output {
        var program: fi_nvrtc_program = 0
        var status: fi_nvrtc_status = 0
        Self.withCStrings(headers.map(\.text)) { texts in
            Self.withCStrings(headers.map(\.name)) { names in
                status = functions.nvrtcCreateProgram(
                    &program, text, name, Int32(headers.count), texts.baseAddress, names.baseAddress)
            }
        }
        try check(status, "nvrtcCreateProgram")
        defer { _ = functions.nvrtcDestroyProgram(&program) }
        Self.withCStrings(options) { options in
            status = functions.nvrtcCompileProgram(program, Int32(options.count - 1), options.baseAddress)
        }
        let log = self.log(of: program)
        guard status == 0 else {
            throw .deviceFailure(
                call: "compiling \(name)",
                message: "\(self.text(of: status)) (NVRTC \(version), \(options.joined(separator: " ")))\n\(log)")
        }
        var size = 0
        switch product {
        case .cubin: try check(functions.nvrtcGetCUBINSize(program, &size), "nvrtcGetCUBINSize")
        case .ptx: try check(functions.nvrtcGetPTXSize(program, &size), "nvrtcGetPTXSize")
        }
        let cubin = [UInt8](unsafeUninitializedCapacity: size) { buffer, count in
            buffer.withMemoryRebound(to: CChar.self) { bytes in
                guard let base = bytes.baseAddress else { return }
                status = product == .ptx ? functions.nvrtcGetPTX(program, base) : functions.nvrtcGetCUBIN(program, base)
            }
            count = status == 0 ? size : 0
        }
        try check(status, product == .ptx ? "nvrtcGetPTX" : "nvrtcGetCUBIN")
        return Output(cubin: cubin, log: log)
    }

    private func log(of program: fi_nvrtc_program) -> String {
        var size = 0
        guard functions.nvrtcGetProgramLogSize(program, &size) == 0, size > 1 else { return "" }
        var text = [CChar](repeating: 0, count: size)
        guard functions.nvrtcGetProgramLog(program, &text) == 0 else { return "" }
        return String(decoding: text.prefix { $0 != 0 }.map(UInt8.init(bitPattern:)), as: UTF8.self)
    }

    private func check(_ status: fi_nvrtc_status, _ call: StaticString) throws(FlashInferError) {
        guard status != 0 else { return }
        throw .deviceFailure(call: "\(call)", message: text(of: status))
    }

    private func text(of status: fi_nvrtc_status) -> String {
        guard let text = functions.nvrtcGetErrorString(status) else { return "status \(status)" }
        return String(cString: text)
    }

    /// Calls `body` with NUL-terminated copies of some texts, and a null pointer after the last.
    private static func withCStrings(
        _ texts: [String], _ body: (UnsafeBufferPointer<UnsafePointer<CChar>?>) -> Void
    ) {
        var bytes: [CChar] = []
        var starts: [Int] = []
        for text in texts {
            starts.append(bytes.count)
            bytes.append(contentsOf: text.utf8.lazy.map { CChar(bitPattern: $0) })
            bytes.append(0)
        }
        bytes.withUnsafeBufferPointer { bytes in
            let pointers: [UnsafePointer<CChar>?] = starts.map { bytes.baseAddress! + $0 } + [nil]
            pointers.withUnsafeBufferPointer(body)
        }
    }
}
