import Foundation

/// A moment, for templates that write the date.
public struct ChatTemplateTime: Sendable {
    private let date: Date
    private let timeZone: TimeZone

    /// Seconds since 1970-01-01 UTC, written in UTC.
    public init(secondsSince1970 seconds: Double) {
        date = Date(timeIntervalSince1970: seconds)
        timeZone = .gmt
    }

    private init(date: Date, timeZone: TimeZone) {
        self.date = date
        self.timeZone = timeZone
    }

    /// Now, written in the machine's time zone.
    public static var now: ChatTemplateTime { ChatTemplateTime(date: Date(), timeZone: .current) }

    private static let months = [
        "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
        "December",
    ]
    private static let days = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"]

    /// Text by C's `strftime` with English names; what has no meaning stays as it is.
    func formatted(_ format: String) -> String {
        var calendar = Calendar(identifier: .gregorian)
        calendar.timeZone = timeZone
        let parts = calendar.dateComponents([.year, .month, .day, .hour, .minute, .second, .weekday], from: date)
        let dayOfYear = calendar.ordinality(of: .day, in: .year, for: date) ?? 1
        func padded(_ value: Int?, _ width: Int) -> String {
            let digits = String(value ?? 0)
            return String(repeating: "0", count: max(0, width - digits.utf8.count)) + digits
        }
        let month = Self.months[((parts.month ?? 1) - 1) % 12]
        let day = Self.days[((parts.weekday ?? 1) - 1) % 7]
        let hour = parts.hour ?? 0
        func field(_ letter: Unicode.Scalar) -> String? {
            switch letter {
            case "d": padded(parts.day, 2)
            case "e": padded(parts.day, 1)
            case "m": padded(parts.month, 2)
            case "Y": padded(parts.year, 4)
            case "y": padded((parts.year ?? 0) % 100, 2)
            case "H": padded(hour, 2)
            case "I": padded((hour + 11) % 12 + 1, 2)
            case "M": padded(parts.minute, 2)
            case "S": padded(parts.second, 2)
            case "p": hour < 12 ? "AM" : "PM"
            case "B": month
            case "b", "h": String(month.prefix(3))
            case "A": day
            case "a": String(day.prefix(3))
            case "j": padded(dayOfYear, 3)
            case "F": "\(padded(parts.year, 4))-\(padded(parts.month, 2))-\(padded(parts.day, 2))"
            case "T": "\(padded(hour, 2)):\(padded(parts.minute, 2)):\(padded(parts.second, 2))"
            case "n": "\n"
            case "t": "\t"
            case "%": "%"
            default: nil
            }
        }
        var result = ""
        var scalars = Array(format.unicodeScalars)[...]
        while let scalar = scalars.popFirst() {
            guard scalar == "%", let letter = scalars.first else {
                result.unicodeScalars.append(scalar)
                continue
            }
            scalars.removeFirst()
            if letter == "-", let next = scalars.first, let text = field(next) {
                scalars.removeFirst()
                let trimmed = text.drop { $0 == "0" }
                result += trimmed.isEmpty ? "0" : trimmed
            } else {
                result += field(letter) ?? "%" + String(letter)
            }
        }
        return result
    }
}
