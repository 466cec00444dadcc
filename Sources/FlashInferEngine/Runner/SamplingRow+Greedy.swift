extension SamplingRow {
    /// The most likely token: what benchmarks and tests that drive a runner by hand sample with.
    public static func greedy(_ id: RequestID) -> SamplingRow {
        SamplingRow(
            id: id, parameters: .greedy, seed: 0, drawIndex: 0, penalizedTokens: [], wantsLogProbability: false)
    }
}
