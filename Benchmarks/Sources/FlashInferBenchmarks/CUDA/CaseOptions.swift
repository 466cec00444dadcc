import ArgumentParser
import FlashInfer
import Foundation

/// What the benchmarks take whose cases a peer's script measures too.
struct CaseOptions: ParsableArguments {
    @OptionGroup var common: CUDAOptions
    @OptionGroup var replays: ReplayOptions

    @Option(help: "Begin no further case after this many seconds.")
    var budget = 300.0

    @Option(help: "Write the cases to this file as JSON and stop; needs no GPU.")
    var list: String?

    /// Measures the chosen cases one after another, prints a table of them and writes the report; or writes the cases alone.
    func run<Case: Codable, Row: Codable>(
        _ all: [Case], _ key: KeyPath<Case, String>, hasCeilings: Bool = true, headings: [String],
        measure: (Case, any Device) throws -> Row, cells: (Row) -> [String]
    ) throws {
        let cases = replays.chosen(all, key)
        if let list { return try writeJSON(cases, to: list) }
        let gpu = try Devices.make(named: common.device)
        let ceilings = hasCeilings ? CUDACeilings.measure() : nil
        var report = CaseReport<Row>(gpu, ceilings: ceilings)
        let start = Date()
        for test in cases {
            report.add(test[keyPath: key], since: start, within: budget) { try measure(test, gpu) }
        }
        print(gpu.name + (ceilings.map { ": \($0.read.fixed(0)) GB/s read" } ?? ""))
        report.printTable(headings, cells)
        try writeJSON(report, to: common.json)
    }
}
