/// A word of a template's tags.
enum TemplateToken: Equatable {
    case name(String)
    case string(String)
    case int(Int)
    case double(Double)
    case symbol(String)
}

/// A template cut into text and tags, white space control done.
struct TemplateSegment {
    enum Content {
        case text(String)
        /// `{{ … }}`
        case output([TemplateToken])
        /// `{% … %}`
        case block([TemplateToken])
    }

    var content: Content
    var line: Int
}

/// Cuts a template as Jinja does with `trim_blocks` and `lstrip_blocks`, the settings that chat templates are made for.
struct TemplateLexer {
    private let bytes: [UInt8]
    private var position = 0
    private var line = 1
    private var cut: [TemplateSegment] = []
    /// Whether what comes next begins a line, so that a block tag may take the white space before it.
    private var startsLine = true

    init(_ source: String) {
        // Every kind of line end is a line feed, and one at the very end goes.
        var bytes: [UInt8] = []
        bytes.reserveCapacity(source.utf8.count)
        var afterReturn = false
        for byte in source.utf8 {
            if byte == 13 { bytes.append(10) } else if byte != 10 || !afterReturn { bytes.append(byte) }
            afterReturn = byte == 13
        }
        if bytes.last == 10 { bytes.removeLast() }
        self.bytes = bytes
    }

    mutating func segments() throws(ChatTemplateError) -> [TemplateSegment] {
        while position < bytes.count {
            guard let open = nextOpening() else {
                addText(position..<bytes.count)
                break
            }
            try tag(openingAt: open)
        }
        return cut
    }

    private func error(_ reason: String) -> ChatTemplateError { .syntax(line: line, reason: reason) }

    private func nextOpening() -> Int? {
        var index = position
        while index + 1 < bytes.count {
            if bytes[index] == UInt8(ascii: "{"), "{%#".utf8.contains(bytes[index + 1]) { return index }
            index += 1
        }
        return nil
    }

    private mutating func addText(_ range: Range<Int>) {
        if !range.isEmpty {
            let text = String(decoding: bytes[range], as: UTF8.self)
            cut.append(TemplateSegment(content: .text(text), line: line))
        }
    }

    private static func isSpace(_ byte: UInt8) -> Bool { byte == 32 || (9...13).contains(byte) }

    private mutating func tag(openingAt open: Int) throws(ChatTemplateError) {
        let kind = bytes[open + 1]
        let isOutput = kind == UInt8(ascii: "{")
        let sign = open + 2 < bytes.count ? bytes[open + 2] : 0
        var textEnd = open
        if sign == UInt8(ascii: "-") {
            while textEnd > position, Self.isSpace(bytes[textEnd - 1]) { textEnd -= 1 }
        } else if !isOutput, sign != UInt8(ascii: "+") {
            var start = open
            while start > position, bytes[start - 1] != 10, Self.isSpace(bytes[start - 1]) { start -= 1 }
            if start > position ? bytes[start - 1] == 10 : startsLine { textEnd = start }
        }
        addText(position..<textEnd)
        line += bytes[position..<open].count { $0 == 10 }
        position = open + 2
        if sign == UInt8(ascii: "-") || sign == UInt8(ascii: "+") { position += 1 }
        if kind == UInt8(ascii: "#") {
            try comment()
        } else {
            let tagLine = line
            let tokens = try tokens(closing: isOutput ? UInt8(ascii: "}") : UInt8(ascii: "%"))
            if !isOutput, tokens == [.name("raw")] {
                try raw()
            } else {
                cut.append(
                    TemplateSegment(content: isOutput ? .output(tokens) : .block(tokens), line: tagLine))
            }
        }
    }

    private mutating func comment() throws(ChatTemplateError) {
        while position + 1 < bytes.count {
            if bytes[position] == UInt8(ascii: "#"), bytes[position + 1] == UInt8(ascii: "}") {
                let sign = bytes[position - 1]
                position += 2
                closeTag(sign: sign, trims: true)
                return
            }
            if bytes[position] == 10 { line += 1 }
            position += 1
        }
        throw error("a comment is not closed")
    }

    /// What the end of a tag takes of the text after it.
    private mutating func closeTag(sign: UInt8, trims: Bool) {
        let start = position
        if sign == UInt8(ascii: "-") {
            while position < bytes.count, Self.isSpace(bytes[position]) { position += 1 }
        } else if trims, sign != UInt8(ascii: "+"), position < bytes.count, bytes[position] == 10 {
            position += 1
        }
        line += bytes[start..<position].count { $0 == 10 }
        startsLine = position > start && bytes[position - 1] == 10
    }

    /// Text up to `{% endraw %}` as it stands.
    private mutating func raw() throws(ChatTemplateError) {
        let start = position
        while let open = nextOpening() {
            var probe = self
            probe.position = open + 2
            if bytes[open + 1] == UInt8(ascii: "%"), let sign = bytes[(open + 2)...].first {
                if sign == UInt8(ascii: "-") || sign == UInt8(ascii: "+") { probe.position += 1 }
                if let words = try? probe.tokens(closing: UInt8(ascii: "%")), words == [.name("endraw")] {
                    var end = open
                    if sign == UInt8(ascii: "-") {
                        while end > start, Self.isSpace(bytes[end - 1]) { end -= 1 }
                    }
                    addText(start..<end)
                    position = probe.position
                    line = probe.line
                    startsLine = probe.startsLine
                    return
                }
            }
            position = open + 2
        }
        throw error("raw is not closed")
    }

    private mutating func tokens(closing: UInt8) throws(ChatTemplateError) -> [TemplateToken] {
        var tokens: [TemplateToken] = []
        var open = 0
        while position < bytes.count {
            let byte = bytes[position]
            let next = position + 1 < bytes.count ? bytes[position + 1] : 0
            let afterNext = position + 2 < bytes.count ? bytes[position + 2] : 0
            if open == 0 {
                let isSigned = byte == UInt8(ascii: "-") || byte == UInt8(ascii: "+")
                if isSigned, next == closing, afterNext == UInt8(ascii: "}") {
                    position += 3
                    closeTag(sign: byte, trims: closing == UInt8(ascii: "%"))
                    return tokens
                }
                if byte == closing, next == UInt8(ascii: "}") {
                    position += 2
                    closeTag(sign: 0, trims: closing == UInt8(ascii: "%"))
                    return tokens
                }
            }
            if Self.isSpace(byte) {
                if byte == 10 { line += 1 }
                position += 1
                continue
            }
            let token = try token()
            if case .symbol(let symbol) = token {
                if "([{".contains(symbol) { open += 1 }
                if ")]}".contains(symbol) { open = max(0, open - 1) }
            }
            tokens.append(token)
        }
        throw error("a tag is not closed")
    }

    private mutating func token() throws(ChatTemplateError) -> TemplateToken {
        let byte = bytes[position]
        switch byte {
        case UInt8(ascii: "'"), UInt8(ascii: "\""): return .string(try string(byte))
        case UInt8(ascii: "0")...UInt8(ascii: "9"): return try number()
        case UInt8(ascii: "_"), UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"), 0x80...:
            let start = position
            while position < bytes.count, Self.isWord(bytes[position]) { position += 1 }
            return .name(String(decoding: bytes[start..<position], as: UTF8.self))
        default: break
        }
        for symbol in ["**", "//", "==", "!=", "<=", ">="] where bytes[position...].starts(with: symbol.utf8) {
            position += 2
            return .symbol(symbol)
        }
        guard "+-*/%~<>=()[]{},.:|".utf8.contains(byte) else {
            throw error("unexpected \(Unicode.Scalar(byte))")
        }
        position += 1
        return .symbol(String(Unicode.Scalar(byte)))
    }

    private static func isWord(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "_"), UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
            UInt8(ascii: "0")...UInt8(ascii: "9"), 0x80...:
            true
        default: false
        }
    }

    private mutating func number() throws(ChatTemplateError) -> TemplateToken {
        let start = position
        func digits(_ lexer: inout TemplateLexer) {
            while lexer.position < lexer.bytes.count,
                (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(lexer.bytes[lexer.position])
                    || lexer.bytes[lexer.position] == UInt8(ascii: "_")
            {
                lexer.position += 1
            }
        }
        func isDigit(_ index: Int) -> Bool {
            index < bytes.count && (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(bytes[index])
        }
        digits(&self)
        if position < bytes.count, bytes[position] == UInt8(ascii: "."), isDigit(position + 1) {
            position += 1
            digits(&self)
        }
        if position < bytes.count, bytes[position] | 0x20 == UInt8(ascii: "e") {
            let hasSign = position + 1 < bytes.count && "+-".utf8.contains(bytes[position + 1])
            if isDigit(position + (hasSign ? 2 : 1)) {
                position += hasSign ? 2 : 1
                digits(&self)
            }
        }
        let text = String(decoding: bytes[start..<position].filter { $0 != UInt8(ascii: "_") }, as: UTF8.self)
        if let value = Int(text) { return .int(value) }
        guard let value = Double(text), text.contains(where: { ".eE".contains($0) }) else {
            throw error("number \(text) is too large")
        }
        return .double(value)
    }

    private mutating func string(_ quote: UInt8) throws(ChatTemplateError) -> String {
        position += 1
        var text: [UInt8] = []
        while position < bytes.count {
            let byte = bytes[position]
            position += 1
            if byte == quote { return String(decoding: text, as: UTF8.self) }
            if byte == 10 { line += 1 }
            if byte == UInt8(ascii: "\\"), position < bytes.count {
                try escape(into: &text)
            } else {
                text.append(byte)
            }
        }
        throw error("a string is not closed")
    }

    private mutating func escape(into text: inout [UInt8]) throws(ChatTemplateError) {
        let byte = bytes[position]
        position += 1
        let simple: [UInt8: UInt8] = [
            UInt8(ascii: "n"): 10, UInt8(ascii: "t"): 9, UInt8(ascii: "r"): 13, UInt8(ascii: "b"): 8,
            UInt8(ascii: "f"): 12, UInt8(ascii: "v"): 11, UInt8(ascii: "a"): 7, UInt8(ascii: "0"): 0,
            UInt8(ascii: "\\"): 92, UInt8(ascii: "'"): 39, UInt8(ascii: "\""): 34,
        ]
        let widths: [UInt8: Int] = [UInt8(ascii: "x"): 2, UInt8(ascii: "u"): 4, UInt8(ascii: "U"): 8]
        if let value = simple[byte] {
            text.append(value)
        } else if byte == 10 {
            line += 1
        } else if let width = widths[byte] {
            let digits = String(decoding: bytes[position..<min(bytes.count, position + width)], as: UTF8.self)
            guard digits.utf8.count == width, let value = UInt32(digits, radix: 16),
                let scalar = Unicode.Scalar(value)
            else { throw error("\\\(Unicode.Scalar(byte))\(digits) is no scalar") }
            position += width
            text.append(contentsOf: String(scalar).utf8)
        } else {
            // As in Python, an escape without a meaning is both of its characters.
            text += [UInt8(ascii: "\\"), byte]
        }
    }
}
