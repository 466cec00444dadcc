/// A Unicode scalar with what the pre-tokenisers ask of it, in one word.
///
/// Bits 0-20 hold the scalar, bits 21-25 its general category, bit 26 whether it is white space. Categories are looked
/// up once per scalar when text is unpacked, so that every class test afterwards is a shift and a mask.
package struct PackedScalar: Equatable, Sendable {
    package let bits: UInt32

    @inline(__always)
    package init(bits: UInt32) {
        self.bits = bits
    }

    @inline(__always)
    package var value: UInt32 { bits & 0x1F_FFFF }

    @inline(__always)
    package var category: UInt32 { (bits >> 21) & 31 }

    @inline(__always)
    package var isWhitespace: Bool { bits & (1 << 26) != 0 }

    /// The scalar itself; packed words are only ever made from scalars.
    package var scalar: Unicode.Scalar { Unicode.Scalar(value) ?? "\u{FFFD}" }

    /// Bytes of its UTF-8 form, 1 to 4.
    @inline(__always)
    package var utf8Count: Int {
        let value = value
        return value < 0x80 ? 1 : value < 0x800 ? 2 : value < 0x1_0000 ? 3 : 4
    }

    @inline(__always)
    package init(_ scalar: Unicode.Scalar) {
        self.init(value: scalar.value)
    }

    @inline(__always)
    init(value: UInt32) {
        self = value < 0x80 ? Self.ascii[Int(value)] : Self.classify(value)
    }

    private static let ascii: [PackedScalar] = (0..<128).map { classify(UInt32($0)) }

    @inline(never)
    private static func classify(_ value: UInt32) -> PackedScalar {
        // The two large blocks that are all letters spare most East Asian text the table search.
        if (0x4E00...0x9FFF).contains(value) || (0xAC00...0xD7A3).contains(value) {
            return PackedScalar(bits: value | GeneralCategory.index(.otherLetter) << 21)
        }
        let properties = (Unicode.Scalar(value) ?? "\u{FFFD}").properties
        let space: UInt32 = properties.isWhitespace ? 1 << 26 : 0
        return PackedScalar(bits: value | GeneralCategory.index(properties.generalCategory) << 21 | space)
    }

    /// Unpacks UTF-8 text; malformed bytes become U+FFFD, as `String(decoding:as:)` makes them.
    package static func unpack(_ utf8: UnsafeBufferPointer<UInt8>) -> [PackedScalar] {
        ascii.withUnsafeBufferPointer { ascii in
            [PackedScalar](unsafeUninitializedCapacity: utf8.count) { output, count in
                var index = 0
                while index < utf8.count {
                    let first = utf8[index]
                    if first < 0x80 {
                        output[count] = ascii[Int(first)]
                        index += 1
                    } else {
                        let (value, width) = UTF8Decoding.scalar(in: utf8, at: index)
                        output[count] = PackedScalar(value: value)
                        index += width
                    }
                    count += 1
                }
            }
        }
    }

    /// Unpacks a string.
    package static func unpack(_ text: String) -> [PackedScalar] {
        var text = text
        return text.withUTF8 { unpack($0) }
    }

    /// Appends the UTF-8 form.
    @inline(__always)
    package func appendUTF8(to bytes: inout [UInt8]) {
        let value = value
        if value < 0x80 {
            bytes.append(UInt8(value))
        } else {
            appendMultibyte(value, to: &bytes)
        }
    }

    private func appendMultibyte(_ value: UInt32, to bytes: inout [UInt8]) {
        func continuation(_ shift: UInt32) -> UInt8 { UInt8(0x80 | (value >> shift) & 0x3F) }
        if value < 0x800 {
            bytes.append(UInt8(0xC0 | value >> 6))
        } else if value < 0x1_0000 {
            bytes.append(UInt8(0xE0 | value >> 12))
            bytes.append(continuation(6))
        } else {
            bytes.append(UInt8(0xF0 | value >> 18))
            bytes.append(continuation(12))
            bytes.append(continuation(6))
        }
        bytes.append(continuation(0))
    }
}

/// General categories as small numbers and as sets of bits.
package enum GeneralCategory {
    /// The category's number, 0 to 29, in the order of `names`.
    static func index(_ category: Unicode.GeneralCategory) -> UInt32 {
        switch category {
        case .uppercaseLetter: 0
        case .lowercaseLetter: 1
        case .titlecaseLetter: 2
        case .modifierLetter: 3
        case .otherLetter: 4
        case .nonspacingMark: 5
        case .spacingMark: 6
        case .enclosingMark: 7
        case .decimalNumber: 8
        case .letterNumber: 9
        case .otherNumber: 10
        case .connectorPunctuation: 11
        case .dashPunctuation: 12
        case .openPunctuation: 13
        case .closePunctuation: 14
        case .initialPunctuation: 15
        case .finalPunctuation: 16
        case .otherPunctuation: 17
        case .mathSymbol: 18
        case .currencySymbol: 19
        case .modifierSymbol: 20
        case .otherSymbol: 21
        case .spaceSeparator: 22
        case .lineSeparator: 23
        case .paragraphSeparator: 24
        case .control: 25
        case .format: 26
        case .surrogate: 27
        case .privateUse: 28
        case .unassigned: 29
        @unknown default: 29
        }
    }

    static let names = [
        "Lu", "Ll", "Lt", "Lm", "Lo", "Mn", "Mc", "Me", "Nd", "Nl", "No", "Pc", "Pd", "Ps", "Pe", "Pi", "Pf", "Po",
        "Sm", "Sc", "Sk", "So", "Zs", "Zl", "Zp", "Cc", "Cf", "Cs", "Co", "Cn",
    ]

    static let all: UInt32 = (1 << 30) - 1

    /// The set of categories that a name of one or two letters, or a long name, stands for; nil when unknown.
    static func mask(named name: String) -> UInt32? {
        let short = longNames[name.lowercased().filter { $0 != "_" && $0 != " " && $0 != "-" }] ?? name
        if short == "Any" { return all }
        if short == "LC" || short == "L&" { return 0b111 }
        let mask = names.enumerated().reduce(UInt32(0)) { mask, entry in
            entry.element == short || (short.count == 1 && entry.element.hasPrefix(short))
                ? mask | 1 << UInt32(entry.offset) : mask
        }
        return mask == 0 ? nil : mask
    }

    private static let longNames = [
        "any": "Any", "letter": "L", "casedletter": "LC", "uppercaseletter": "Lu", "lowercaseletter": "Ll",
        "titlecaseletter": "Lt", "modifierletter": "Lm", "otherletter": "Lo", "mark": "M", "nonspacingmark": "Mn",
        "spacingmark": "Mc", "enclosingmark": "Me", "number": "N", "decimalnumber": "Nd", "letternumber": "Nl",
        "othernumber": "No", "punctuation": "P", "symbol": "S", "mathsymbol": "Sm", "currencysymbol": "Sc",
        "modifiersymbol": "Sk", "othersymbol": "So", "separator": "Z", "spaceseparator": "Zs", "other": "C",
        "control": "Cc", "format": "Cf", "unassigned": "Cn", "privateuse": "Co",
    ]
}

/// Decoding of UTF-8 that may be malformed.
enum UTF8Decoding {
    /// The scalar at `index` and the bytes it takes. A malformed sequence gives U+FFFD for its maximal valid prefix
    /// (at least one byte), the practice of Unicode section 3.9 and of `String(decoding:as:)`.
    static func scalar(in bytes: UnsafeBufferPointer<UInt8>, at index: Int) -> (value: UInt32, width: Int) {
        switch sequence(in: bytes, at: index) {
        case .scalar(let value, let width): (value, width)
        case .invalid(let width): (0xFFFD, width)
        case .incomplete: (0xFFFD, bytes.count - index)
        }
    }

    enum Sequence {
        case scalar(UInt32, width: Int)
        case invalid(width: Int)
        /// All that is left is the beginning of a scalar.
        case incomplete
    }

    static func sequence(in bytes: UnsafeBufferPointer<UInt8>, at index: Int) -> Sequence {
        let first = bytes[index]
        if first < 0x80 { return .scalar(UInt32(first), width: 1) }
        let width: Int
        var low: UInt8 = 0x80
        var high: UInt8 = 0xBF
        switch first {
        case 0xC2...0xDF: width = 2
        case 0xE0: (width, low) = (3, 0xA0)
        case 0xED: (width, high) = (3, 0x9F)
        case 0xE1...0xEF: width = 3
        case 0xF0: (width, low) = (4, 0x90)
        case 0xF1...0xF3: width = 4
        case 0xF4: (width, high) = (4, 0x8F)
        default: return .invalid(width: 1)
        }
        var value = UInt32(first) & (width == 2 ? 0x1F : width == 3 ? 0x0F : 0x07)
        for offset in 1..<width {
            guard index + offset < bytes.count else { return .incomplete }
            let byte = bytes[index + offset]
            guard byte >= low, byte <= high else { return .invalid(width: offset) }
            (low, high) = (0x80, 0xBF)
            value = value << 6 | UInt32(byte & 0x3F)
        }
        return .scalar(value, width: width)
    }
}
