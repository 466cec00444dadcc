import CFlashInferCPU
import FlashInferCPU
import FlashInferCore
import TestSupport
import Testing

@Suite("Weight formats")
struct WeightRowsTests {
    private func dequantized(_ format: WeightFormat, _ bytes: [UInt8], columns: Int) throws -> [Float] {
        let out = UnsafeMutableBufferPointer<Float>.allocate(capacity: columns)
        defer { out.deallocate() }
        out.initialize(repeating: .nan)
        try bytes.withUnsafeBytes { bytes in
            try WeightRows(bytes, format: format, rows: 1, columns: columns).dequantize(row: 0, into: out)
        }
        return Array(out)
    }

    @Test("Dequantised random blocks equal the float64 definition, rounded once", arguments: WeightFormat.allCases)
    func random(format: WeightFormat) throws {
        var generator = SeededGenerator(seed: 5)
        let bytes = randomWeights(format, elements: 2_048, using: &generator)
        let expected = BlockOracle.decode(format, bytes).map { Float($0.value) }
        #expect(try dequantized(format, bytes, columns: 2_048) == expected)
    }

    @Test("The C side has the same sizes", arguments: WeightFormat.allCases)
    func sizes(format: WeightFormat) {
        let name = fi_weight_format(rawValue: UInt32(format.rawValue))
        #expect(fi_weight_block_size(name) == Int64(format.blockSize))
        #expect(fi_weight_block_bytes(name) == Int64(format.bytesPerBlock))
        #expect(fi_weight_is_quantized(name) == format.isQuantized)
        #expect(WeightFormat.allCases.count == Int(FI_WEIGHT_FORMAT_COUNT))
    }

    // Blocks written by hand. 0x3C00 is 1, 0x3800 is 0.5, 0xC000 is -2 as float16, low byte first.

    /// 16 bytes whose nibbles run 0, 1, … 15 (low: weights 0-15) and 15, 14, … 0 (high: weights 16-31).
    private let ramp = (0..<UInt8(16)).map { $0 | (15 - $0) << 4 }
    private let rampValues = (0..<16).map { $0 } + (0..<16).map { 15 - $0 }

    @Test("q4_0 and q4_1 by hand")
    func fourBits() throws {
        #expect(
            try dequantized(.q40, [0x00, 0x38] + ramp, columns: 32) == rampValues.map { 0.5 * Float($0 - 8) })
        #expect(
            try dequantized(.q41, [0x00, 0x38, 0x00, 0xC0] + ramp, columns: 32)
                == rampValues.map { 0.5 * Float($0) - 2 })
    }

    @Test("q5_0 and q5_1 by hand: fifth bits set for weights 0, 9, 16 and 31")
    func fiveBits() throws {
        let top: [UInt8] = [0x01, 0x02, 0x01, 0x80]
        let values = rampValues.enumerated().map { $1 + ([0, 9, 16, 31].contains($0) ? 16 : 0) }
        #expect(try dequantized(.q50, [0x00, 0x3C] + top + ramp, columns: 32) == values.map { Float($0 - 16) })
        #expect(
            try dequantized(.q51, [0x00, 0x3C, 0x00, 0x38] + top + ramp, columns: 32)
                == values.map { Float($0) + 0.5 })
    }

    @Test("q8_0 by hand")
    func eightBits() throws {
        let bytes = (0..<32).map { UInt8(bitPattern: Int8($0 * 8 - 128)) }
        #expect(
            try dequantized(.q80, [0x00, 0x38] + bytes, columns: 32) == (0..<32).map { 0.5 * Float($0 * 8 - 128) })
    }

    /// Scales 1 … 4 and 33, 18, 49, 2, minima 5 … 8 and 16, 63, 1, 32, packed in the K formats' 12 bytes.
    private let scales: [Float] = [1, 2, 3, 4, 33, 18, 49, 2]
    private let minima: [Float] = [5, 6, 7, 8, 16, 63, 1, 32]
    private let packedScales: [UInt8] = [
        0b10_000001, 0b01_000010, 0b11_000011, 0b00_000100,  // scales 0-3; tops of 33, 18, 49, 2
        0b01_000101, 0b11_000110, 0b00_000111, 0b10_001000,  // minima 0-3; tops of 16, 63, 1, 32
        0x01, 0xF2, 0x11, 0x02,  // low nibbles: of 33, 18, 49, 2; high nibbles: of 16, 63, 1, 32
    ]

    @Test("q4_K and q5_K by hand")
    func kFormats() throws {
        // Byte k of pair p holds k % 16 for sub-block 2p and p for 2p + 1.
        let nibbles = (0..<4).flatMap { pair in (0..<32).map { UInt8($0 % 16 | pair << 4) } }
        let four = (0..<8).flatMap { sub in (0..<32).map { sub % 2 == 0 ? $0 % 16 : sub / 2 } }
        let head: [UInt8] = [0x00, 0x38, 0x00, 0x3C] + packedScales
        #expect(
            try dequantized(.q4K, head + nibbles, columns: 256)
                == four.enumerated().map { 0.5 * scales[$0 / 32] * Float($1) - minima[$0 / 32] })
        // Fifth bits: of sub-block k % 8 in byte k.
        let top = (0..<32).map { UInt8(1 << ($0 % 8)) }
        let five = four.enumerated().map { $1 + ($0 % 32 % 8 == $0 / 32 ? 16 : 0) }
        #expect(
            try dequantized(.q5K, head + top + nibbles, columns: 256)
                == five.enumerated().map { 0.5 * scales[$0 / 32] * Float($1) - minima[$0 / 32] })
    }

    @Test("q6_K by hand")
    func sixBits() throws {
        // Low nibbles: k % 16 in weights 0-63 of a half, 3 in 64-127. Tops: part p of a half has p.
        let low = (0..<128).map { UInt8($0 % 16 | 3 << 4) }
        let top = [UInt8](repeating: 0b11_10_01_00, count: 64)
        let scales = (0..<16).map { Int8($0 * 15 - 120) }
        let bytes = low + top + scales.map { UInt8(bitPattern: $0) } + [0x00, 0x38]
        let expected = (0..<256).map { index in
            let part = index % 128 / 32
            return 0.5 * Float(scales[index / 16]) * Float((part < 2 ? index % 16 : 3) + 16 * part - 32)
        }
        #expect(try dequantized(.q6K, bytes, columns: 256) == expected)
    }

    @Test("Floats by hand, unaligned")
    func floats() throws {
        #expect(
            try dequantized(.float16, [0x00, 0xC0, 0x01, 0x00, 0x00, 0x7C], columns: 3) == [-2, 0x1p-24, .infinity])
        #expect(try dequantized(.bfloat16, [0x80, 0x3F, 0x80, 0xFF], columns: 2) == [1, -.infinity])
        #expect(try dequantized(.float32, [0x00, 0x00, 0x80, 0x3F], columns: 1) == [1])
        let shifted: [UInt8] = [9, 0x00, 0xC0, 0x00, 0x38]
        let out = UnsafeMutableBufferPointer<Float>.allocate(capacity: 1)
        defer { out.deallocate() }
        try shifted.withUnsafeBytes { bytes in
            let bytes = UnsafeRawBufferPointer(rebasing: bytes[1...])
            try WeightRows(bytes, format: .float16, rows: 2, columns: 1).dequantize(row: 1, into: out)
        }
        #expect(out[0] == 0.5)
    }
}
