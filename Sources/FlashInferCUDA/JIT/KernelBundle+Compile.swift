internal import FlashInferCore

extension KernelBundle {
    private final class Progress: Sendable {
        struct State {
            var done = 0
            var items: [Int: Item] = [:]
            var failure: FlashInferError?
        }

        let state = Locked(State())
    }

    /// Compiles kernels for a bundle, side by side; those in the disk cache are taken from there.
    ///
    /// - Parameter frames: the frames of variants for an architecture, which are kept as PTX.
    /// - Parameter progress: called after each kernel, by one thread at a time: how many are done, of how many, the last one's name.
    /// - Throws: the first error of any of them.
    package static func compile(
        _ specs: [KernelSpec], frames: (Architecture) -> [KernelSpec] = { _ in [] }, architectures: [Architecture],
        with nvrtc: NVRTC, source: CubinSource = CubinSource(driverVersion: nil),
        threads: Int = ParallelWork.processors,
        progress: @escaping @Sendable (Int, Int, String) -> Void = { _, _, _ in }
    ) throws(FlashInferError) -> [Item] {
        for architecture in architectures where !nvrtc.supports(architecture) {
            throw .invalidArgument(
                "architecture", found: "\(architecture)", expected: "one that NVRTC \(nvrtc.version) makes code for")
        }
        let jobs = architectures.flatMap { architecture in
            specs.filter { KernelCatalogue.isShipped($0, for: architecture) }.map { ($0, architecture, false) }
                + frames(architecture).map { ($0, architecture, true) }
        }
        let shared = Progress()
        ParallelWork.forEach(jobs.count, threads: threads) { index in
            // After a failure the rest would be thrown away.
            if shared.state.withLock({ $0.failure != nil }) { return }
            let (spec, architecture, isFrame) = jobs[index]
            let result = Result { () throws(FlashInferError) in
                let compiler = source.compiler
                return Item(
                    sourceKey: isFrame
                        ? try compiler.frameKey(spec, architecture: architecture)
                        : try compiler.sourceKey(for: spec, architecture: architecture),
                    architecture: architecture, version: nvrtc.version, label: spec.label,
                    cubin: isFrame
                        ? try source.framePTX(spec, exactly: architecture, with: nvrtc)
                        : try source.cubin(for: spec, exactly: architecture, with: nvrtc))
            }
            shared.state.withLock { state in
                switch result {
                case .success(let item): state.items[index] = item
                case .failure(let error): state.failure = state.failure ?? error
                }
                state.done += 1
                progress(state.done, jobs.count, "\(spec.label) \(architecture)")
            }
        }
        let state = shared.state.withLock { $0 }
        if let failure = state.failure { throw failure }
        return jobs.indices.compactMap { state.items[$0] }
    }
}
