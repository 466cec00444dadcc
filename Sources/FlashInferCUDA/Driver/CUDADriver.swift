package import CCUDA
internal import FlashInferCore

/// The CUDA driver: its table of functions, and its statuses as typed errors.
///
/// The only way to the driver. A test makes one of its own functions, which is how launches are tested without a GPU.
package final class CUDADriver: @unchecked Sendable {
    // Unchecked because C function pointers have no sendability; the table never changes and the driver is thread-safe.

    /// The driver's functions.
    package let functions: fi_driver_table
    /// The CUDA version it supports: 13000 is 13.0.
    package let version: Int
    /// Where it was found.
    package let path: String

    /// The oldest driver that works, as ``version``: the first whose stream-ordered pools and graphs are those used here, and
    /// which loads what NVRTC 12 makes.
    package static let oldestVersion = 12_000

    /// A driver of these functions, initialised.
    ///
    /// - Throws: ``FlashInferError/deviceFailure(call:message:)`` where it does not start or is too old.
    package init(functions: fi_driver_table, path: String) throws(FlashInferError) {
        self.functions = functions
        self.path = path
        var found: Int32 = 0
        // The version can be asked for before anything starts, so that a driver too old says so and nothing else.
        let status = functions.cuDriverGetVersion(&found)
        version = Int(found)
        try check(status, "cuDriverGetVersion")
        guard version >= Self.oldestVersion else {
            throw .deviceFailure(
                call: path,
                message: "this NVIDIA driver supports CUDA \(CUDADriver.text(version)), but CUDA "
                    + "\(CUDADriver.text(Self.oldestVersion)) is needed; install a driver of version 525 or later")
        }
        try check(functions.cuInit(0), "cuInit")
    }

    /// "13.0" for 13000.
    package static func text(_ version: Int) -> String { "\(version / 1000).\(version % 1000 / 10)" }

    /// Throws what a status stands for, unless it is success.
    @inline(__always)
    package func check(_ status: fi_cu_status, _ call: StaticString) throws(FlashInferError) {
        if status != 0 { throw error(status, call) }
    }

    /// A status in the driver's own words.
    @inline(never)
    package func error(_ status: fi_cu_status, _ call: StaticString) -> FlashInferError {
        .deviceFailure(call: "\(call)", message: text(of: status))
    }

    /// "CUDA_ERROR_INVALID_VALUE (1): invalid argument"
    package func text(of status: fi_cu_status) -> String {
        var name: UnsafePointer<CChar>?
        var words: UnsafePointer<CChar>?
        guard functions.cuGetErrorName(status, &name) == 0, let name else { return "unknown status \(status)" }
        guard functions.cuGetErrorString(status, &words) == 0, let words else {
            return "\(String(cString: name)) (\(status))"
        }
        return "\(String(cString: name)) (\(status)): \(String(cString: words))"
    }

    /// GPUs that this process may use.
    package func deviceCount() throws(FlashInferError) -> Int {
        var count: Int32 = 0
        let status = functions.cuDeviceGetCount(&count)
        if status == Int32(FI_CU_NO_DEVICE) { return 0 }
        try check(status, "cuDeviceGetCount")
        return Int(count)
    }
}

/// Whether a status says that the context is lost, so that every later call in it fails too.
func isSticky(_ status: fi_cu_status) -> Bool {
    switch Int(status) {
    case FI_CU_ECC_UNCORRECTABLE, FI_CU_NVLINK_UNCORRECTABLE, FI_CU_CONTAINED, FI_CU_ILLEGAL_ADDRESS,
        FI_CU_LAUNCH_TIMEOUT, FI_CU_CONTEXT_IS_DESTROYED, FI_CU_ASSERT, FI_CU_HARDWARE_STACK_ERROR,
        FI_CU_ILLEGAL_INSTRUCTION, FI_CU_MISALIGNED_ADDRESS, FI_CU_INVALID_ADDRESS_SPACE, FI_CU_INVALID_PC,
        FI_CU_LAUNCH_FAILED, FI_CU_TENSOR_MEMORY_LEAK:
        true
    default: false
    }
}

extension CUDADriver {
    /// This machine's driver, loaded and initialised.
    ///
    /// - Throws: ``FlashInferError/deviceFailure(call:message:)`` that says what was looked for, where the driver is absent, too
    ///   old, or does not start.
    package static func load(candidates: [String] = LibraryPlaces.driver) throws(FlashInferError) -> CUDADriver {
        let help = "Install NVIDIA's driver, version 525 or later; in a container, start it with the GPUs"
        let library = try DynamicLibrary("the CUDA driver", candidates: candidates, help: help)
        var functions = fi_driver_table()
        try library.fill(&functions, fi_driver_symbols(), help: help)
        return try CUDADriver(functions: functions, path: library.path)
    }
}
