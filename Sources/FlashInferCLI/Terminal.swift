import Foundation

/// Standard output and standard error: answers go to the first, everything about them to the second.
enum Terminal {
    /// Whether a person sees what is written to standard error.
    static let errorIsTerminal = isatty(STDERR_FILENO) == 1
    /// Whether a person types what is read from standard input.
    static let inputIsTerminal = isatty(STDIN_FILENO) == 1

    /// Writes `text` to standard output at once, so that tokens appear as they come.
    ///
    /// Where that fails the process ends: an answer that is lost, on a full disk or because nobody reads any more, is no success.
    static func write(_ text: String) {
        guard let failure = write(text, to: STDOUT_FILENO) else { return }
        if failure != EPIPE {
            writeError("error: cannot write standard output: \(String(cString: strerror(failure)))\n")
        }
        _exit(EXIT_FAILURE)
    }

    /// Writes `text` to standard error at once, if somebody reads that.
    static func writeError(_ text: String) { _ = write(text, to: STDERR_FILENO) }

    /// The error's number where not all could be written.
    private static func write(_ text: String, to descriptor: Int32) -> Int32? {
        var text = text
        return text.withUTF8 { bytes in
            var rest = UnsafeRawBufferPointer(bytes)
            while let base = rest.baseAddress, !rest.isEmpty {
                let count = Foundation.write(descriptor, base, rest.count)
                if count < 0, errno == EINTR { continue }
                if count < 0, errno == EAGAIN {
                    // A pipe that does not block, and is full.
                    var waited = pollfd(fd: descriptor, events: Int16(POLLOUT), revents: 0)
                    poll(&waited, 1, -1)
                    continue
                }
                guard count > 0 else { return count < 0 ? errno : EIO }
                rest = UnsafeRawBufferPointer(rebasing: rest[count...])
            }
            return nil
        }
    }
}

/// What a long wait looks like on standard error: one line that changes on a terminal, a line per stage elsewhere.
final class ProgressLine {
    private let isQuiet: Bool
    private var stage = ""
    private var lastDrawn = ContinuousClock.now - .seconds(1)
    private var isDrawn = false

    init(isQuiet: Bool) { self.isQuiet = isQuiet }

    /// Shows `stage`, and how much of it is done if that is known, 0 to 1.
    func show(_ stage: String, fraction: Double? = nil) {
        guard !isQuiet else { return }
        let isNew = stage != self.stage
        self.stage = stage
        guard Terminal.errorIsTerminal else {
            if isNew { Terminal.writeError(stage + "\n") }
            return
        }
        let now = ContinuousClock.now
        guard isNew || now - lastDrawn > .milliseconds(100) else { return }
        lastDrawn = now
        isDrawn = true
        Terminal.writeError("\r\u{1b}[K" + stage + (fraction.map(Self.bar) ?? ""))
    }

    /// Takes the line away.
    func clear() {
        if isDrawn { Terminal.writeError("\r\u{1b}[K") }
        isDrawn = false
        stage = ""
    }

    private static func bar(_ fraction: Double) -> String {
        let width = 30
        let filled = Int((min(max(fraction, 0), 1) * Double(width)).rounded(.down))
        let percent = Int(min(max(fraction, 0), 1) * 100)
        return "  [" + String(repeating: "#", count: filled) + String(repeating: ".", count: width - filled)
            + "] \(percent)%"
    }
}
