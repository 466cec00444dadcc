import FlashInfer
import Foundation

/// What cases measured one after another came to: a row or an error for each.
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
        } else {
            add(key, measure)
        }
    }

    /// Adds a case's row or error.
    mutating func add(_ key: String, _ measure: () throws -> Row) {
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

    /// Prints rows as a table, then the cases that have none, and why.
    func printTable(_ headings: [String], _ cells: (Row) -> [String]) {
        Table(headings: headings, rows: rows.map(cells)).print()
        for (key, text) in failures.sorted(by: { $0.key < $1.key }) { print("\(key): \(text)") }
    }
}
