internal import FlashInferCore

/// Compiles kernels for architectures, side by side, collects what they take, and looks for what no GPU executes.
package struct KernelCheck: Sendable {
    /// One kernel and architecture.
    package struct Job: Sendable {
        package let spec: KernelSpec
        package let architecture: Architecture

        /// The job's row.
        package var key: ResourceTable.Key { .init(label: spec.label, architecture: architecture) }
    }

    /// One job's end: what the kernel takes, or why it cannot ship.
    package struct Outcome: Sendable {
        package let job: Job
        package let result: Result<KernelResources, FlashInferError>
    }

    private let compiler: KernelCompiler
    private let nvrtc: NVRTC
    /// What is to be compiled.
    package let jobs: [Job]

    /// A check of some kernels for some architectures.
    ///
    /// - Throws: ``FlashInferError/invalidArgument(_:found:expected:)`` where two kernels share a label, a label has no place in a table,
    ///   and where the compiler does not know an architecture.
    package init(
        _ specs: [KernelSpec], architectures: [Architecture], compiler: KernelCompiler = KernelCompiler(), nvrtc: NVRTC
    ) throws(FlashInferError) {
        var seen: [String: KernelSpec] = [:]
        for spec in specs {
            let words = spec.label.split(separator: " ").joined(separator: " ")
            guard !words.isEmpty, words == spec.label, !words.contains(where: { $0.isNewline || $0 == "#" }) else {
                throw .invalidArgument(
                    "label of a kernel", found: "'\(spec.label)'",
                    expected: "words with single spaces between, and no #")
            }
            if seen.updateValue(spec, forKey: spec.label) != nil {
                throw .invalidArgument("label of a kernel", found: spec.label, expected: "different from all others'")
            }
        }
        for architecture in architectures where !nvrtc.supports(architecture) {
            throw .invalidArgument(
                "architecture", found: "\(architecture)", expected: "one that NVRTC \(nvrtc.version) makes code for")
        }
        self.compiler = compiler
        self.nvrtc = nvrtc
        // Kernel by kernel, so that what is slow for one architecture does not come all at the end.
        jobs = specs.flatMap { spec in
            architectures.filter { KernelCatalogue.isShipped(spec, for: $0) }
                .map { Job(spec: spec, architecture: $0) }
        }
    }

    /// Compiles everything.
    ///
    /// - Parameter progress: called after each job, by one thread at a time, with how many have ended.
    package func run(
        threads: Int = ParallelWork.processors, progress: @escaping @Sendable (Int, Outcome) -> Void
    ) -> [Outcome] {
        let outcomes = Outcomes()
        let (jobs, compiler, nvrtc) = (jobs, compiler, nvrtc)
        ParallelWork.forEach(jobs.count, threads: threads) { index in
            let job = jobs[index]
            let result = Result { () throws(FlashInferError) in
                let output = try compiler.compile(
                    job.spec, architecture: job.architecture, with: nvrtc, isVerbose: true)
                guard let resources = KernelResources(log: output.log, entry: job.spec.entry) else {
                    throw FlashInferError.deviceFailure(
                        call: "compiling \(job.spec.label)",
                        message:
                            "the assembler reports no entry named \(job.spec.entry) in \(job.spec.file):\n\(output.log)"
                    )
                }
                try SerializedProducts.requireNone(in: output.log, of: job.spec.label)
                try MachineCode.requireLegalCopies(in: output.cubin, of: job.spec.label)
                return resources
            }
            let outcome = Outcome(job: job, result: result)
            outcomes.list.withLock { list in
                list.append(outcome)
                progress(list.count, outcome)
            }
        }
        return outcomes.list.withLock { $0 }
    }

    private final class Outcomes: Sendable {
        let list = Locked<[Outcome]>([])
    }
}
