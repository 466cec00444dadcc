/// The printable stand-ins that byte-level vocabularies write bytes with (GPT-2's `bytes_to_unicode`).
///
/// Printable ASCII and most of Latin-1 stand for themselves; the other 68 bytes are the scalars from U+0100 on.
package enum ByteLevelAlphabet {
    /// The scalar that stands for each byte.
    package static let scalars: [UInt32] = {
        var next: UInt32 = 256
        return (UInt32(0)..<256).map { byte in
            if (33...126).contains(byte) || (161...172).contains(byte) || (174...255).contains(byte) { return byte }
            defer { next += 1 }
            return next
        }
    }()

    /// The byte for each scalar below 324; -1 where a scalar stands for none.
    private static let bytes: [Int16] = {
        var bytes = [Int16](repeating: -1, count: 324)
        for (byte, scalar) in scalars.enumerated() { bytes[Int(scalar)] = Int16(byte) }
        return bytes
    }()

    /// Appends the bytes that a token's text stands for; false, and nothing appended, when some scalar stands for none.
    static func appendBytes(of text: UnsafeBufferPointer<UInt8>, to output: inout [UInt8]) -> Bool {
        let start = output.count
        return bytes.withUnsafeBufferPointer { bytes in
            var index = 0
            while index < text.count {
                let (scalar, width) = UTF8Decoding.scalar(in: text, at: index)
                guard scalar < 324, bytes[Int(scalar)] >= 0 else {
                    output.removeSubrange(start...)
                    return false
                }
                output.append(UInt8(truncatingIfNeeded: bytes[Int(scalar)]))
                index += width
            }
            return true
        }
    }
}
