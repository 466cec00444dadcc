internal import CRanks

/// A point in time that waits end at.
struct Deadline {
    private let end: Int64
    /// For messages: how long the wait was to be.
    let seconds: Double

    init(after timeout: Duration) {
        let (whole, parts) = timeout.components
        seconds = Double(whole) + Double(parts) * 1e-18
        end = fi_milliseconds() + Int64(min(max(seconds, 0), 1e9) * 1000)
    }

    /// What is left, 0 where nothing is.
    var milliseconds: Int32 { Int32(min(max(end - fi_milliseconds(), 0), 1 << 30)) }

    var isOver: Bool { milliseconds == 0 }

    /// "within 30 s"
    var text: String { seconds == seconds.rounded() ? "within \(Int(seconds)) s" : "within \(seconds) s" }
}
