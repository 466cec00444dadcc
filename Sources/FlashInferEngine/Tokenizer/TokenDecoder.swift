/// One step from tokens back to text, as the `decoder` of a tokenizer file lists them.
public enum TokenDecoder: Sendable, Equatable {
    /// Scalars stand for bytes.
    case byteLevel
    /// `<0xNN>` is a byte.
    case byteFallback
    /// From here on the steps see the whole text instead of each token.
    case fuse
    /// Removes up to `start` and `stop` of a scalar at the ends.
    case strip(Unicode.Scalar, start: Int, stop: Int)
    /// A literal text becomes another.
    case replace(String, with: String)
    /// The visible mark becomes a space, and the one that was put before the text is dropped.
    case metaspace(replacement: Unicode.Scalar, dropsFirst: Bool)
}

/// A chain of decoders reduced to a table of bytes by token, and what is stripped from the beginning of the text.
struct CompiledDecoder: Sendable {
    /// The byte that may be stripped from the beginning, and how often.
    private(set) var leading: (byte: UInt8, count: Int) = (32, 0)
    /// Whether a space goes between tokens: a file without decoders.
    let joinsWithSpaces: Bool
    private let steps: [TokenDecoder]

    init(_ decoders: [TokenDecoder]) throws(TokenizerError) {
        joinsWithSpaces = decoders.isEmpty
        let fuse = decoders.firstIndex(of: .fuse) ?? decoders.count
        steps = Array(decoders[..<fuse])
        for step in steps {
            if case .metaspace(_, dropsFirst: true) = step { leading.count = 1 }
        }
        for step in decoders[fuse...] {
            switch step {
            case .fuse, .byteFallback, .byteLevel: continue
            case .strip(let scalar, let start, stop: 0) where scalar.isASCII:
                leading = (UInt8(scalar.value), start)
            case .strip, .replace, .metaspace:
                throw .unsupportedComponent(
                    kind: "decoder after Fuse", name: "\(step)", known: ["Strip of one ASCII scalar at the start"])
            }
        }
    }

    /// The bytes that a token stands for.
    func append(_ token: String, to output: inout [UInt8]) {
        var text = token
        for step in steps {
            switch step {
            case .byteLevel:
                var copy = text
                if copy.withUTF8({ ByteLevelAlphabet.appendBytes(of: $0, to: &output) }) { return }
            case .byteFallback:
                if let byte = Self.byte(written: text) {
                    output.append(byte)
                    return
                }
            case .fuse: break
            case .strip(let scalar, let start, let stop):
                text = Self.strip(text, scalar, start, stop)
            case .replace(let pattern, let replacement):
                text = Self.replace(text, pattern, replacement)
            case .metaspace(let replacement, _):
                text = Self.replace(text, String(replacement), " ")
            }
        }
        output.append(contentsOf: text.utf8)
    }

    /// The byte of a token `<0xNN>`.
    static func byte(written text: String) -> UInt8? {
        let bytes = text.utf8
        guard bytes.count == 6, text.hasPrefix("<0x"), text.hasSuffix(">") else { return nil }
        return UInt8(text.dropFirst(3).dropLast(), radix: 16)
    }

    private static func strip(_ text: String, _ scalar: Unicode.Scalar, _ start: Int, _ stop: Int) -> String {
        var scalars = text.unicodeScalars[...]
        for _ in 0..<min(start, scalars.count) where scalars.first == scalar { scalars.removeFirst() }
        for _ in 0..<min(stop, scalars.count) where scalars.last == scalar { scalars.removeLast() }
        return String(scalars)
    }

    static func replace(_ text: String, _ pattern: String, _ replacement: String) -> String {
        let pattern = Array(pattern.utf8)
        let bytes = Array(text.utf8)
        guard !pattern.isEmpty, bytes.count >= pattern.count else { return text }
        var result: [UInt8] = []
        var index = 0
        while index < bytes.count {
            if bytes.count - index >= pattern.count, bytes[index..<index + pattern.count].elementsEqual(pattern) {
                result.append(contentsOf: replacement.utf8)
                index += pattern.count
            } else {
                result.append(bytes[index])
                index += 1
            }
        }
        return String(decoding: result, as: UTF8.self)
    }
}
