import ArgumentParser
import FlashInfer
import Foundation

/// What the benchmarks that measure one case after another are told.
struct CaseOptions: ParsableArguments {
    @Option(help: "Write the figures to this file as JSON.")
    var json: String?

    @Option(help: "Timed replays of each case.")
    var samples = 7

    @Option(help: "Only cases whose name contains this.")
    var filter = ""

    @Option(help: "Begin no further case after this many seconds.")
    var budget = 300.0

    @Option(help: "The device: cuda, or cuda:N.")
    var device = "cuda"

    @Option(help: "Write the cases to this file as JSON and stop; needs no GPU.")
    var list: String?

    func validate() throws {
        if samples < 1 { throw ValidationError("--samples must be 1 or more, not \(samples)") }
    }

    /// Those whose names contain the filter.
    func chosen<Case>(_ cases: [Case], _ key: KeyPath<Case, String>) -> [Case] {
        cases.filter { filter.isEmpty || $0[keyPath: key].contains(filter) }
    }
}

/// What they found: a row or an error for each case.
struct CaseReport<Row: Codable>: Codable {
    var device: String
    var date: String
    var ceilings: CUDACeilings?
    var rows: [Row] = []
    var failures: [String: String] = [:]

    init(_ gpu: any Device, ceilings: CUDACeilings?) {
        device = gpu.name
        date = ISO8601DateFormatter().string(from: Date())
        self.ceilings = ceilings
    }

    /// Adds a case's row, or what kept it from having one: an error, or that its time was spent.
    mutating func add(_ key: String, since start: Date, within budget: Double, _ measure: () throws -> Row) {
        if -start.timeIntervalSinceNow > budget {
            failures[key] = "not begun within \(budget) s"
            return
        }
        do {
            rows.append(try measure())
        } catch {
            failures[key] = "\(error)"
        }
    }

    /// Measured out of order: puts rows in the order of these names.
    mutating func sort(by keys: [String], _ key: KeyPath<Row, String>) {
        let places = Dictionary(uniqueKeysWithValues: keys.enumerated().map { ($1, $0) })
        rows.sort { places[$0[keyPath: key], default: 0] < places[$1[keyPath: key], default: 0] }
    }

    func printFailures() {
        for (key, text) in failures.sorted(by: { $0.key < $1.key }) { print("\(key): \(text)") }
    }
}
