/// Numbers as bytes, the same on every machine: little-endian words of 64 bits.
struct Wire {
    var bytes: [UInt8] = []

    init(_ words: [UInt64]) {
        bytes.reserveCapacity(8 * words.count)
        for word in words {
            for shift in 0..<8 { bytes.append(UInt8(truncatingIfNeeded: word >> (8 * UInt64(shift)))) }
        }
    }

    /// Word `index` of some bytes.
    static func word(_ index: Int, of bytes: [UInt8]) -> UInt64 {
        (0..<8).reduce(0) { $0 | UInt64(bytes[8 * index + $1]) << (8 * UInt64($1)) }
    }
}
