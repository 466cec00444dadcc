import FlashInferCPU
import FlashInferCore
import Testing

@Suite("Conversions between element types")
struct CPUConversionTests {
    /// All values of the upper 16 bits, with lower halves at, next to and between the ties of every narrow type.
    static let patterns: [Float] = (0...UInt32(0xFFFF)).flatMap { upper in
        [0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF].map { Float(bitPattern: upper << 16 | $0) }
    }

    private func narrowed<Element>(
        _ values: [Float], to dtype: DType, as type: Element.Type, zero: Element, isa: InstructionSet,
        isSaturating: Bool = false, scale: Float = 1
    ) throws -> [Element] {
        let conversion = try #require(CPUConversion(isa: isa.cValue))
        var out = [Element](repeating: zero, count: values.count)
        try values.withUnsafeBufferPointer { values in
            try out.withUnsafeMutableBytes {
                try conversion.narrow(values, to: dtype, into: $0, isSaturating: isSaturating, scale: scale)
            }
        }
        return out
    }

    private func widened<Element>(_ values: [Element], from dtype: DType, isa: InstructionSet, scale: Float = 1) throws
        -> [Float]
    {
        let conversion = try #require(CPUConversion(isa: isa.cValue))
        var out = [Float](repeating: 0, count: values.count)
        try values.withUnsafeBytes { values in
            try out.withUnsafeMutableBufferPointer { try conversion.widen(values, from: dtype, into: $0, scale: scale) }
        }
        return out
    }

    @Test("bfloat16 and float16 are the storage types' roundings, NaN payloads included")
    func sixteenBits() throws {
        let bfloats = Self.patterns.map { BFloat16($0).bitPattern }
        let halves = Self.patterns.map { value in
            // Float16(_:) keeps the payload as the hardware does, but need not quieten through a soft-float library.
            value.isNaN
                ? UInt16(truncatingIfNeeded: value.bitPattern >> 16) & 0x8000 | 0x7E00
                    | UInt16(truncatingIfNeeded: value.bitPattern >> 13) & 0x3FF
                : Float16(value).bitPattern
        }
        for isa in instructionSets {
            #expect(try narrowed(Self.patterns, to: .bfloat16, as: UInt16.self, zero: 0, isa: isa) == bfloats)
            #expect(try narrowed(Self.patterns, to: .float16, as: UInt16.self, zero: 0, isa: isa) == halves)
        }
    }

    @Test("float8 is the storage types' rounding, with and without saturation", arguments: [false, true])
    func eightBits(isSaturating: Bool) throws {
        let e4m3 = Self.patterns.map { (isSaturating ? Float8E4M3(saturating: $0) : Float8E4M3($0)).bitPattern }
        let e5m2 = Self.patterns.map { (isSaturating ? Float8E5M2(saturating: $0) : Float8E5M2($0)).bitPattern }
        for isa in instructionSets {
            #expect(
                try narrowed(
                    Self.patterns, to: .float8E4M3, as: UInt8.self, zero: 0, isa: isa, isSaturating: isSaturating)
                    == e4m3)
            #expect(
                try narrowed(
                    Self.patterns, to: .float8E5M2, as: UInt8.self, zero: 0, isa: isa, isSaturating: isSaturating)
                    == e5m2)
        }
    }

    @Test("Ties and ranges by hand")
    func byHand() throws {
        // 464 is half way between 448 and what would be 480; 2^-10 half way between 0 and the least e4m3 number.
        let values: [Float] = [464, 464.001, -464, 0x1p-10, 0x1.8p-10, 0x1.8p-9, 61_440, 61_439, .infinity, -0.0]
        for isa in instructionSets {
            #expect(
                try narrowed(values, to: .float8E4M3, as: UInt8.self, zero: 0, isa: isa)
                    == [0x7E, 0x7F, 0xFE, 0x00, 0x01, 0x02, 0x7F, 0x7F, 0x7F, 0x80])
            #expect(
                try narrowed([61_440, 61_439, -0x1p-17, 0x1.8p-16], to: .float8E5M2, as: UInt8.self, zero: 0, isa: isa)
                    == [0x7C, 0x7B, 0x80, 0x02])
            #expect(
                try narrowed(
                    [0.25, 0.75, -0.75, 63.4, 64, 1e30, -1e30, .nan, .infinity, -.infinity], to: .int8, as: Int8.self,
                    zero: 0, isa: isa, scale: 0.5) == [0, 2, -2, 127, 127, 127, -128, 0, 127, -128])
        }
    }

    @Test("Widening is exact for every pattern")
    func widening() throws {
        let sixteen = (0...UInt16.max).map { $0 }
        let eight = (0...UInt8.max).map { $0 }
        for isa in instructionSets {
            let halves = try widened(sixteen, from: .float16, isa: isa)
            let bfloats = try widened(sixteen, from: .bfloat16, isa: isa)
            for pattern in sixteen {
                #expect(same(halves[Int(pattern)], Float(Float16(bitPattern: pattern))))
                #expect(same(bfloats[Int(pattern)], Float(BFloat16(bitPattern: pattern))))
            }
            let e4m3 = try widened(eight, from: .float8E4M3, isa: isa)
            let e5m2 = try widened(eight, from: .float8E5M2, isa: isa)
            let integers = try widened(eight, from: .int8, isa: isa, scale: 0.5)
            for pattern in eight {
                #expect(same(e4m3[Int(pattern)], Float(Float8E4M3(bitPattern: pattern))))
                #expect(same(e5m2[Int(pattern)], Float(Float8E5M2(bitPattern: pattern))))
                #expect(integers[Int(pattern)] == 0.5 * Float(Int8(bitPattern: pattern)))
            }
        }
    }

    private func same(_ a: Float, _ b: Float) -> Bool { a.isNaN ? b.isNaN : a.bitPattern == b.bitPattern }

    @Test("Bad sizes and types are typed errors")
    func validation() throws {
        var bytes = [UInt8](repeating: 0, count: 9)
        let values: [Float] = [1, 2, 3, 4]
        values.withUnsafeBufferPointer { values in
            bytes.withUnsafeMutableBytes { out in
                let best = CPUConversion.best
                #expect(throws: FlashInferError.lengthMismatch("out bytes", found: 7, expected: 8)) {
                    try best.narrow(values, to: .float16, into: UnsafeMutableRawBufferPointer(rebasing: out[..<7]))
                }
                #expect(throws: FlashInferError.self) {
                    try best.narrow(values, to: .float16, into: UnsafeMutableRawBufferPointer(rebasing: out[1...]))
                }
                #expect(throws: FlashInferError.self) { try best.narrow(values, to: .uint8, into: out) }
            }
        }
    }
}
