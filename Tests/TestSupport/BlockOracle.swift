public import FlashInferCore

/// The block formats, decoded by plain loops in float64, written from the format's description and not from the kernels.
public enum BlockOracle {
    /// One weight as the file means it: `product + minimum`, each exact.
    public struct Weight {
        /// The scaled integer, or the number.
        public var product: Double
        /// What is added to it.
        public var minimum: Double
        /// The weight.
        public var value: Double { product + minimum }
    }

    /// All weights of `bytes`.
    public static func decode(_ format: WeightFormat, _ bytes: [UInt8]) -> [Weight] {
        var weights: [Weight] = []
        for start in stride(from: 0, to: bytes.count, by: format.bytesPerBlock) {
            weights += block(format, Array(bytes[start..<start + format.bytesPerBlock]))
        }
        return weights
    }

    static func half(_ bytes: [UInt8], _ offset: Int) -> Double {
        Double(Float16(bitPattern: UInt16(bytes[offset]) | UInt16(bytes[offset + 1]) << 8))
    }

    private static func nibble(_ bytes: [UInt8], _ offset: Int, _ index: Int) -> Int {
        index < 16 ? Int(bytes[offset + index] & 15) : Int(bytes[offset + index - 16] >> 4)
    }

    private static func bit(_ bytes: [UInt8], _ offset: Int, _ index: Int) -> Int {
        Int(bytes[offset + index / 8] >> (index % 8)) & 1
    }

    private static func block(_ format: WeightFormat, _ b: [UInt8]) -> [Weight] {
        switch format {
        case .float32:
            let bits = (0..<4).reduce(UInt32(0)) { $0 | UInt32(b[$1]) << (8 * $1) }
            return [Weight(product: Double(Float(bitPattern: bits)), minimum: 0)]
        case .float16: return [Weight(product: half(b, 0), minimum: 0)]
        case .bfloat16:
            let value = Float(bitPattern: (UInt32(b[0]) | UInt32(b[1]) << 8) << 16)
            return [Weight(product: Double(value), minimum: 0)]
        case .q40: return (0..<32).map { Weight(product: half(b, 0) * Double(nibble(b, 2, $0) - 8), minimum: 0) }
        case .q41: return (0..<32).map { Weight(product: half(b, 0) * Double(nibble(b, 4, $0)), minimum: half(b, 2)) }
        case .q50:
            return (0..<32).map {
                Weight(product: half(b, 0) * Double(nibble(b, 6, $0) + 16 * bit(b, 2, $0) - 16), minimum: 0)
            }
        case .q51:
            return (0..<32).map {
                Weight(product: half(b, 0) * Double(nibble(b, 8, $0) + 16 * bit(b, 4, $0)), minimum: half(b, 2))
            }
        case .q80:
            return (0..<32).map { Weight(product: half(b, 0) * Double(Int8(bitPattern: b[2 + $0])), minimum: 0) }
        case .q4K: return kQuant(b, nibbles: 16, fifthBits: nil)
        case .q5K: return kQuant(b, nibbles: 48, fifthBits: 16)
        case .q6K: return q6K(b)
        }
    }

    private static func kQuant(_ b: [UInt8], nibbles: Int, fifthBits: Int?) -> [Weight] {
        (0..<256).map { index in
            let (sub, k) = (index / 32, index % 32)
            let byte = b[nibbles + sub / 2 * 32 + k]
            var q = Int(sub % 2 == 0 ? byte & 15 : byte >> 4)
            if let fifthBits { q += 16 * (Int(b[fifthBits + k] >> sub) & 1) }
            // Scales and minima of sub-blocks 0-3 are the low 6 bits of bytes 4-7 and 8-11; those of 4-7 have their low
            // 4 bits in the nibbles of bytes 12-15, and their high 2 bits on top of bytes 4-7 and 8-11.
            let (scale, minimum): (UInt8, UInt8) =
                sub < 4
                ? (b[4 + sub] & 63, b[8 + sub] & 63)
                : ((b[8 + sub] & 15) | (b[sub] >> 6) << 4, (b[8 + sub] >> 4) | (b[4 + sub] >> 6) << 4)
            return Weight(product: half(b, 0) * Double(scale) * Double(q), minimum: -half(b, 2) * Double(minimum))
        }
    }

    private static func q6K(_ b: [UInt8]) -> [Weight] {
        (0..<256).map { index in
            let (upper, part, k) = (index / 128, index % 128 / 32, index % 32)
            let byte = b[upper * 64 + part % 2 * 32 + k]
            let low = part < 2 ? byte & 15 : byte >> 4
            let top = (b[128 + upper * 32 + k] >> (2 * part)) & 3
            let scale = Int8(bitPattern: b[192 + index / 16])
            return Weight(product: half(b, 208) * Double(scale) * Double(Int(low | top << 4) - 32), minimum: 0)
        }
    }
}

/// Random rows of any format: every bit pattern of the integers, scales of both signs and plausible size.
public func randomWeights(_ format: WeightFormat, elements: Int, using generator: inout SeededGenerator) -> [UInt8] {
    let blocks = elements / format.blockSize
    var bytes = (0..<blocks * format.bytesPerBlock).map { _ in UInt8.random(in: 0...255, using: &generator) }
    func put(_ value: Float16, at offset: Int) {
        bytes[offset] = UInt8(truncatingIfNeeded: value.bitPattern)
        bytes[offset + 1] = UInt8(truncatingIfNeeded: value.bitPattern >> 8)
    }
    for block in 0..<blocks {
        let start = block * format.bytesPerBlock
        let scale = Float16(Float.random(in: -0.02...0.02, using: &generator))
        let minimum = Float16(Float.random(in: -0.1...0.1, using: &generator))
        switch format {
        case .float32:
            let bits = Float.random(in: -1...1, using: &generator).bitPattern
            for byte in 0..<4 { bytes[start + byte] = UInt8(truncatingIfNeeded: bits >> (8 * byte)) }
        case .float16: put(Float16(Float.random(in: -1...1, using: &generator)), at: start)
        case .bfloat16:
            let bits = BFloat16(Float.random(in: -1...1, using: &generator)).bitPattern
            put(Float16(bitPattern: bits), at: start)
        case .q40, .q50, .q80: put(scale, at: start)
        case .q41, .q51, .q4K, .q5K:
            put(scale, at: start)
            put(minimum, at: start + 2)
        case .q6K: put(scale, at: start + 208)
        }
    }
    return bytes
}
