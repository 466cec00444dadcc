internal import FlashInferCore
internal import Synchronization

/// The kernels of one device, loaded: each spec's function once.
package final class KernelCache: Sendable {
    private struct Loaded: ~Copyable {
        var functions: [KernelSpec: CUDAFunction] = [:]
        /// Keeps the functions' code; a list of one entry an element, as an array holds no such values.
        var modules: ModuleList?
    }

    private final class ModuleList: Sendable {
        let module: CUDAModule
        let next: ModuleList?

        init(_ module: consuming CUDAModule, next: ModuleList?) {
            self.module = module
            self.next = next
        }
    }

    private let context: CUDAContext
    private let source: CubinSource
    private let loaded = Mutex(Loaded())

    package init(context: CUDAContext, source: CubinSource) {
        self.context = context
        self.source = source
    }

    /// The kernel of a spec, loaded at its first use.
    ///
    /// - Throws: ``FlashInferError`` where it cannot be had: see ``CubinSource``.
    package func function(_ spec: KernelSpec) throws(FlashInferError) -> CUDAFunction {
        if let function = loaded.withLock({ $0.functions[spec] }) { return function }
        let cubin = try source.cubin(for: spec, architecture: Architecture(of: context.properties))
        let module = try CUDAModule(cubin: cubin, in: context)
        let function = try module.function(spec)
        return keep(module, function, for: spec)
    }

    /// Keeps what was loaded; where another thread was faster, its function is taken and this module goes.
    private func keep(
        _ module: consuming CUDAModule, _ function: CUDAFunction, for spec: KernelSpec
    ) -> CUDAFunction {
        var module: CUDAModule? = consume module
        return loaded.withLock { loaded in
            if let earlier = loaded.functions[spec] { return earlier }
            loaded.functions[spec] = function
            loaded.modules = ModuleList(module.take()!, next: loaded.modules)
            return function
        }
    }
}
