import Foundation

/// A Unicode normalisation form as the tokenizers of published models apply it.
///
/// Hugging Face `tokenizers` normalises by tables of Unicode 9, and its ids are what models were trained on; so
/// scalars that came later are left as they are, and do not interact with their neighbours.
///
/// Foundation's tables do the decomposing and composing. Marks are put in canonical order here, since Foundation on
/// Linux misplaces some after a compatibility decomposition.
enum UnicodeForm {
    case nfc, nfd, nfkc, nfkd

    private static let lastMajorVersion = 9

    func apply(to text: String) -> String {
        let scalars = text.unicodeScalars
        var result = String.UnicodeScalarView()
        var start = scalars.startIndex
        while start < scalars.endIndex {
            let end = scalars[start...].firstIndex { Self.isLater($0) } ?? scalars.endIndex
            if start < end { result += transform(String(scalars[start..<end])).unicodeScalars }
            guard end < scalars.endIndex else { break }
            result.append(scalars[end])
            start = scalars.index(after: end)
        }
        return String(result)
    }

    private func transform(_ text: String) -> String {
        let isCanonical = self == .nfc || self == .nfd
        let decomposed = Self.ordered(
            isCanonical ? text.decomposedStringWithCanonicalMapping : text.decomposedStringWithCompatibilityMapping)
        if self == .nfd || self == .nfkd { return decomposed }
        return Self.composingHangul(decomposed.precomposedStringWithCanonicalMapping)
    }

    /// Runs of marks sorted by combining class, those of one class as they were (Unicode section 3.11).
    private static func ordered(_ text: String) -> String {
        var scalars = Array(text.unicodeScalars)
        let classes = scalars.map { $0.value < 0x300 ? 0 : $0.properties.canonicalCombiningClass.rawValue }
        var start = 0
        while start < scalars.count {
            guard classes[start] != 0 else {
                start += 1
                continue
            }
            var end = start + 1
            while end < scalars.count, classes[end] != 0 { end += 1 }
            if end - start > 1 {
                let order = (start..<end).sorted { (classes[$0], $0) < (classes[$1], $1) }
                scalars.replaceSubrange(start..<end, with: order.map { scalars[$0] })
            }
            start = end
        }
        var result = String.UnicodeScalarView()
        result.append(contentsOf: scalars)
        return String(result)
    }

    private static func isLater(_ scalar: Unicode.Scalar) -> Bool {
        // Nothing was added to the first blocks since, and the ideographs and syllables are old.
        if scalar.value < 0x530 || (0x4E00...0x9FD5).contains(scalar.value) || (0xAC00...0xD7A3).contains(scalar.value)
        {
            return false
        }
        guard let age = scalar.properties.age else { return false }
        return age.major > lastMajorVersion
    }

    /// Joins a Hangul syllable and the trailing consonant after it, which Foundation leaves apart on Linux
    /// (Unicode section 3.12).
    private static func composingHangul(_ text: String) -> String {
        guard text.unicodeScalars.contains(where: { (0x11A8...0x11C2).contains($0.value) }) else { return text }
        var scalars = String.UnicodeScalarView()
        var last: UInt32 = 0
        for scalar in text.unicodeScalars {
            if (0x11A8...0x11C2).contains(scalar.value), (0xAC00...0xD7A3).contains(last), (last - 0xAC00) % 28 == 0,
                let joined = Unicode.Scalar(last + scalar.value - 0x11A7)
            {
                scalars.removeLast()
                scalars.append(joined)
                last = joined.value
            } else {
                scalars.append(scalar)
                last = scalar.value
            }
        }
        return String(scalars)
    }
}
