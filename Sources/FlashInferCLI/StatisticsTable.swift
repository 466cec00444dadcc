import FlashInferEngine

/// The table at the end of a run.
struct StatisticsTable {
    private var rows: [(name: String, value: String)] = []

    /// The figures of one or many requests served together in `elapsed`.
    init(
        model: String, device: String, cache: String? = nil, status: EngineStatus, requests: [GenerationStatistics],
        elapsed: Duration
    ) {
        add("device", device)
        add("model", model)
        if requests.count > 1 { add("requests", "\(requests.count)") }
        let cached = requests.map(\.counts.cachedPrompt).reduce(0, +)
        add("prompt tokens", "\(requests.map(\.counts.prompt).reduce(0, +)) (\(cached) from the prefix cache)")
        let generated = requests.map(\.counts.generated).reduce(0, +)
        add("generated tokens", "\(generated)")
        let first = requests.compactMap(\.timeToFirstToken).sorted()
        let between = requests.flatMap(\.interTokenLatencies).sorted()
        add("time to first token", Self.summary(of: first))
        add("inter-token latency", Self.summary(of: between))
        if requests.count == 1, let rate = requests[0].tokensPerSecond {
            add("tokens per second", Self.decimal(rate))
        } else if requests.count > 1, generated > 0 {
            add("tokens per second", Self.decimal(Double(generated) / (elapsed / .seconds(1))) + " in all")
        }
        let preemptions = requests.map(\.counts.preemptions).reduce(0, +)
        if preemptions > 0 { add("preemptions", "\(preemptions)") }
        add("peak cache pages", "\(status.peakHeldPages) of \(status.pageCount)")
        if let cache { add("cache", cache) }
    }

    /// The table as text, a row a line.
    var text: String {
        let width = rows.map(\.name.count).max() ?? 0
        return rows.map { row in
            row.name + String(repeating: " ", count: width - row.name.count + 2) + row.value + "\n"
        }.joined()
    }

    private mutating func add(_ name: String, _ value: String) { rows.append((name, value)) }

    private static func summary(of sorted: [Duration]) -> String {
        guard sorted.count > 1 else { return sorted.first.map(milliseconds) ?? "-" }
        let median = GenerationStatistics.nearestRank(0.5, of: sorted)!
        let high = GenerationStatistics.nearestRank(0.9, of: sorted)!
        return "median \(milliseconds(median)), p90 \(milliseconds(high))"
    }

    private static func milliseconds(_ duration: Duration) -> String {
        decimal(duration / .milliseconds(1)) + " ms"
    }

    /// Three significant digits or so, without Foundation's formatters.
    static func decimal(_ value: Double) -> String {
        let digits = value < 10 ? 100.0 : value < 1000 ? 10 : 1
        let rounded = (value * digits).rounded() / digits
        return digits == 1 ? String(Int(rounded)) : String(rounded)
    }
}
