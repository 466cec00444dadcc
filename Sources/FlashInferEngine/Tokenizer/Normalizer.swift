import Foundation

/// One change to text before it is split, as the `normalizer` of a tokenizer file lists them.
public enum Normalizer: Sendable {
    /// Unicode normalisation forms.
    case nfc, nfd, nfkc, nfkd
    /// Lower case by the full Unicode mapping.
    case lowercase
    /// Text put before every part that is not empty.
    case prepend(String)
    /// Every match replaced by a literal text.
    case replace(PreTokenizerRegex, with: String)
    /// White space removed at the ends.
    case strip(left: Bool, right: Bool)

    /// Applies the change. O(n), and for `replace` the cost of the pattern.
    package func apply(to text: String) throws(TokenizerError) -> String {
        switch self {
        // Nothing below U+0300 changes under composition, and nothing of ASCII under the other forms.
        case .nfc:
            text.unicodeScalars.allSatisfy { $0.value < 0x300 } ? text : UnicodeForm.nfc.apply(to: text)
        case .nfd: isASCII(text) ? text : UnicodeForm.nfd.apply(to: text)
        case .nfkc: isASCII(text) ? text : UnicodeForm.nfkc.apply(to: text)
        case .nfkd: isASCII(text) ? text : UnicodeForm.nfkd.apply(to: text)
        case .lowercase: lowercased(text)
        case .prepend(let prefix): text.isEmpty ? text : prefix + text
        case .replace(let pattern, let replacement): try replaced(text, pattern, replacement)
        case .strip(let left, let right): stripped(text, left: left, right: right)
        }
    }

    private func isASCII(_ text: String) -> Bool {
        text.utf8.allSatisfy { $0 < 0x80 }
    }

    private func lowercased(_ text: String) -> String {
        var result = ""
        result.reserveCapacity(text.utf8.count)
        // By scalar and not by `lowercased()`: a final sigma has no special rule in Hugging Face's tokenizers.
        for scalar in text.unicodeScalars { result += scalar.properties.lowercaseMapping }
        return result
    }

    private func replaced(
        _ text: String, _ pattern: PreTokenizerRegex, _ replacement: String
    ) throws(TokenizerError) -> String {
        let scalars = PackedScalar.unpack(text)
        let matches = try pattern.matches(in: scalars, range: 0..<scalars.count)
        if matches.isEmpty { return text }
        var bytes: [UInt8] = []
        bytes.reserveCapacity(text.utf8.count)
        var end = 0
        for match in matches {
            for scalar in scalars[end..<match.lowerBound] { scalar.appendUTF8(to: &bytes) }
            bytes.append(contentsOf: replacement.utf8)
            end = match.upperBound
        }
        for scalar in scalars[end...] { scalar.appendUTF8(to: &bytes) }
        return String(decoding: bytes, as: UTF8.self)
    }

    private func stripped(_ text: String, left: Bool, right: Bool) -> String {
        var scalars = text.unicodeScalars[...]
        while left, let first = scalars.first, first.properties.isWhitespace { scalars.removeFirst() }
        while right, let last = scalars.last, last.properties.isWhitespace { scalars.removeLast() }
        return String(scalars)
    }
}
