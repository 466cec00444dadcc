import ArgumentParser

/// What every benchmark of one GPU takes.
struct CUDAOptions: ParsableArguments {
    @Option(help: "Write the figures to this file as JSON.")
    var json: String?

    @Option(help: "The device: cuda, or cuda:N.")
    var device = "cuda"
}

/// What the benchmarks take that time graphs of one case after another.
struct ReplayOptions: ParsableArguments {
    @Option(help: "Timed replays of each case.")
    var samples = 7

    @Option(help: "Only cases whose name contains this.")
    var filter = ""

    func validate() throws {
        if samples < 1 { throw ValidationError("--samples must be 1 or more, not \(samples)") }
    }

    /// Those whose names contain the filter.
    func chosen<Case>(_ cases: [Case], _ key: KeyPath<Case, String>) -> [Case] {
        cases.filter { filter.isEmpty || $0[keyPath: key].contains(filter) }
    }
}
