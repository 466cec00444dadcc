import ArgumentParser

@main
struct Benchmarks: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "FlashInferBenchmarks",
        abstract: "Measures swift-flashinfer, with the machine's ceilings and its peers in the same run.",
        discussion: "Each command prints a table and writes the same figures as JSON (--json FILE).",
        subcommands: [
            AttentionBenchmark.self, EngineBenchmark.self, PlannerBenchmark.self, MaskPlanBenchmark.self,
            CUDAAttentionBenchmark.self,
            CUDAHostBenchmark.self, CUDARowsBenchmark.self, CUDAColdBenchmark.self, CUDALeaksBenchmark.self,
            SamplingBenchmark.self, VariantBenchmark.self, CUDAVariantBenchmark.self, CUDACascadeBenchmark.self,
            CUDASelectedPagesBenchmark.self,
            CUDABlockSparseBenchmark.self, CUDAMLABenchmark.self, CUDAKVParallelBenchmark.self,
        ])
}

/// What every benchmark takes.
struct CommonOptions: ParsableArguments {
    @Option(help: "Threads; all processors by default.")
    var threads: Int?

    @Option(help: "Write the figures to this file as JSON.")
    var json: String?

    @Option(help: "Timed runs of each case; the median is reported.")
    var runs: Int = 7

    func validate() throws {
        if let threads, threads < 1 { throw ValidationError("--threads must be 1 or more, not \(threads)") }
        if runs < 1 { throw ValidationError("--runs must be 1 or more, not \(runs)") }
    }
}
