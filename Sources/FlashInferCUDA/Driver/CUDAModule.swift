package import CCUDA
internal import FlashInferCore

/// Loaded machine code.
package struct CUDAModule: ~Copyable, Sendable {
    /// CUmodule
    package let handle: fi_cu_module
    private let context: CUDAContext

    /// Loads a cubin.
    ///
    /// - Throws: ``FlashInferError/deviceFailure(call:message:)`` where it is for another GPU or a newer driver.
    package init(cubin: [UInt8], in context: CUDAContext) throws(FlashInferError) {
        var handle: fi_cu_module = 0
        try context.call("cuModuleLoadData") { driver in
            cubin.withUnsafeBytes { driver.cuModuleLoadData(&handle, $0.baseAddress!) }
        }
        self.handle = handle
        self.context = context
    }

    deinit {
        let handle = handle
        context.release { $0.cuModuleUnload(handle) }
    }

    /// One kernel, made ready to launch as its spec says.
    package func function(_ spec: KernelSpec) throws(FlashInferError) -> CUDAFunction {
        var function: fi_cu_function = 0
        try context.call("cuModuleGetFunction") { $0.cuModuleGetFunction(&function, handle, spec.entry) }
        func attribute(_ attribute: Int) throws(FlashInferError) -> Int {
            var value: Int32 = 0
            try context.call("cuFuncGetAttribute") { $0.cuFuncGetAttribute(&value, Int32(attribute), function) }
            return Int(value)
        }
        let shared = try attribute(FI_CU_FUNCTION_SHARED_BYTES) + spec.sharedByteCount
        let limit = context.properties.sharedMemoryPerBlockOptIn
        guard shared <= limit else {
            throw .unsupported(
                "\(spec.label) with \(shared) bytes of shared memory", device: context.properties.name,
                nearest: "\(limit) bytes a block")
        }
        if spec.sharedByteCount > 0 {
            try context.call("cuFuncSetAttribute") {
                $0.cuFuncSetAttribute(
                    function, Int32(FI_CU_FUNCTION_MAXIMUM_DYNAMIC_SHARED_BYTES), Int32(spec.sharedByteCount))
            }
        }
        return CUDAFunction(
            handle: function, spec: spec, registers: try attribute(FI_CU_FUNCTION_REGISTERS),
            localByteCount: try attribute(FI_CU_FUNCTION_LOCAL_BYTES),
            parameterByteCount: parameterByteCount(of: function),
            startsEarly: context.properties.computeCapability.major >= 9
                && KernelTexts.shipped.followsPredecessors(spec.file))
    }

    /// Bytes of the one parameter, or nil where the driver is too old to say.
    private func parameterByteCount(of function: fi_cu_function) -> Int? {
        guard let ask = context.driver.functions.cuFuncGetParamInfo else { return nil }
        var offset = 0
        var bytes = 0
        return context.status(of: { _ in ask(function, 0, &offset, &bytes) }) == 0 ? bytes : nil
    }
}

/// A kernel that can be launched; valid while the device that gave it lives.
package final class CUDAFunction: Sendable {
    /// CUfunction
    package let handle: fi_cu_function
    /// What it was made from.
    package let spec: KernelSpec
    /// Registers a thread.
    package let registers: Int
    /// Bytes of local memory a thread: stack and spills.
    package let localByteCount: Int

    /// What a launch reads, apart from the spec, so that launching touches one cache line.
    let threads: UInt32
    let sharedByteCount: UInt32
    /// Bytes of the parameter struct; nil where unknown.
    let parameterByteCount: Int?
    /// Whether its blocks may start before what was enqueued earlier is done: it waits for that itself.
    package let startsEarly: Bool

    package init(
        handle: fi_cu_function, spec: KernelSpec, registers: Int = 0, localByteCount: Int = 0,
        parameterByteCount: Int? = nil, startsEarly: Bool = false
    ) {
        self.handle = handle
        self.spec = spec
        self.registers = registers
        self.localByteCount = localByteCount
        self.parameterByteCount = parameterByteCount
        self.startsEarly = startsEarly
        threads = UInt32(spec.threads)
        sharedByteCount = UInt32(spec.sharedByteCount)
    }
}
