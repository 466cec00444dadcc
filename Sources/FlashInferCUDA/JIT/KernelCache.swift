internal import FlashInferCore

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
    private let loaded = Locked(Loaded())

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
        return try context.whileCaptureIsRelaxed { () throws(FlashInferError) in
            let module = try CUDAModule(cubin: cubin, in: context)
            let function = try module.function(spec)
            return keep(module, function, for: spec)
        }
    }

    /// Loads kernels side by side: for a start that would else compile them one after the other.
    ///
    /// - Throws: the first error; the kernels that could be loaded stay loaded.
    package func preload(_ specs: [KernelSpec]) throws(FlashInferError) {
        let missing = loaded.withLock { loaded in specs.filter { loaded.functions[$0] == nil } }
        let failures = Failures()
        ParallelWork.forEach(missing.count) { [self] index in
            do throws(FlashInferError) {
                _ = try function(missing[index])
            } catch {
                failures.first.withLock { $0 = $0 ?? error }
            }
        }
        if let failure = failures.first.withLock({ $0 }) { throw failure }
    }

    private final class Failures: Sendable {
        let first = Locked<FlashInferError?>(nil)
    }

    /// Finds out whether kernels can be had at all.
    package func requireSource() throws(FlashInferError) { try source.requireAvailable() }

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
