import FlashInferCore
import Testing

/// Every storage type against the nearest number by definition: search of all patterns, in exact arithmetic.
@Suite struct StorageTypeTests {
    /// The finite values of a format by bit pattern, for patterns without the sign.
    private static func finite(_ patterns: ClosedRange<UInt8>, _ value: (UInt8) -> Float) -> [(UInt8, Double)] {
        patterns.map { ($0, Double(value($0))) }
    }

    private static let samples: [Float] = {
        var samples: [Float] = [0, 1, 447.9, 448, 449, 463.9, 464, 465, 480, 57_344, 61_439, 61_440, 65_536, 1e30]
        // Every half-way point and its neighbours, over all binades of both formats.
        for exponent in -20...17 {
            for step in 0..<32 {
                let value = (1 + Float(step) / 32) * Float(sign: .plus, exponent: exponent, significand: 1)
                samples += [value, value.nextUp, value.nextDown]
            }
        }
        samples += [.leastNonzeroMagnitude, .leastNormalMagnitude, .greatestFiniteMagnitude]
        return samples + samples.map { -$0 }
    }()

    /// The pattern of the nearest value, ties to the even pattern; `overflow` past half a unit above the largest.
    private static func nearest(_ value: Float, _ table: [(UInt8, Double)], unit: Double, overflow: UInt8) -> UInt8 {
        let magnitude = Double(value.magnitude)
        let sign: UInt8 = value.sign == .minus ? 0x80 : 0
        let largest = table.last!.1
        if magnitude >= largest + unit / 2 { return sign | overflow }
        let best = table.min {
            let (first, second) = (abs($0.1 - magnitude), abs($1.1 - magnitude))
            return first != second ? first < second : $0.0 % 2 < $1.0 % 2
        }!
        return sign | best.0
    }

    @Test func e4m3RoundsToNearestEven() {
        let table = Self.finite(0...0x7E) { Float(Float8E4M3(bitPattern: $0)) }
        #expect(table.last!.1 == 448)
        for value in Self.samples {
            // Past 464, half a unit above 448, lies what would be 480: the NaN pattern. At the tie, 448 is even.
            let expected =
                abs(value) == 464 ? (value < 0 ? 0xFE : 0x7E) : Self.nearest(value, table, unit: 32, overflow: 0x7F)
            #expect(Float8E4M3(value).bitPattern == expected, "\(value)")
        }
        #expect(Float(Float8E4M3(.infinity)).isNaN && Float(Float8E4M3(.nan)).isNaN)
        #expect(Float(Float8E4M3(saturating: .infinity)) == 448 && Float(Float8E4M3(saturating: -1e9)) == -448)
        #expect(Float(Float8E4M3(saturating: .nan)).isNaN)
        #expect(Float8E4M3(-0.0).bitPattern == 0x80)
    }

    @Test func e5m2RoundsToNearestEven() {
        let table = Self.finite(0...0x7B) { Float(Float8E5M2(bitPattern: $0)) }
        #expect(table.last!.1 == 57_344)
        for value in Self.samples {
            let expected = Self.nearest(value, table, unit: 8192, overflow: 0x7C)
            #expect(Float8E5M2(value).bitPattern == expected, "\(value)")
        }
        #expect(Float(Float8E5M2(.infinity)) == .infinity && Float(Float8E5M2(-.infinity)) == -.infinity)
        #expect(Float(Float8E5M2(.nan)).isNaN)
        #expect(Float(Float8E5M2(saturating: .infinity)) == 57_344)
    }

    @Test func everyEightBitPatternSurvivesARoundTrip() {
        for pattern in UInt8.min ... .max {
            let (first, second) = (Float(Float8E4M3(bitPattern: pattern)), Float(Float8E5M2(bitPattern: pattern)))
            if !first.isNaN { #expect(Float8E4M3(first).bitPattern == pattern) }
            if !second.isNaN { #expect(Float8E5M2(second).bitPattern == pattern) }
        }
    }

    @Test func bfloat16RoundsToNearestEven() {
        for pattern in stride(from: UInt32(0), to: 0x7F80_0000, by: 0x1_0000) {
            let (low, high) = (Float(bitPattern: pattern), Float(bitPattern: pattern + 0x1_0000))
            let tie = Float(bitPattern: pattern + 0x8000)
            let even = (pattern >> 16) % 2 == 0 ? low : high
            #expect(Float(BFloat16(low)) == low && Float(BFloat16(-low)) == -low)
            #expect(Float(BFloat16(tie)) == even)
            #expect(Float(BFloat16(tie.nextDown)) == low && Float(BFloat16(tie.nextUp)) == high)
        }
        #expect(Float(BFloat16(.infinity)) == .infinity && Float(BFloat16(.nan)).isNaN)
        #expect(Float(BFloat16(.greatestFiniteMagnitude)) == .infinity)
        #expect(Float(BFloat16(Float(bitPattern: 0x7F80_0001))).isNaN, "a NaN whose payload is in the lost bits")
    }
}
