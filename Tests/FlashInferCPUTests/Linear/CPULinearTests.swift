import FlashInferCPU
import FlashInferCore
import TestSupport
import Testing

@Suite("Packed matrix products")
struct CPULinearTests {
    /// The error that rounding can make, from the numbers alone.
    ///
    /// Quantised activations are off by half a unit of their block's scale (0.51 with the rounding of 1 / scale and of the
    /// product). The integer sum of a block, its scale, and two fused sums are rounded once each in float32; float
    /// formats sum 32 products, then the blocks.
    static func bound(_ format: WeightFormat, _ weights: [BlockOracle.Weight], _ x: [Float]) -> Double {
        let unit = 0x1p-24
        var activation = 0.0
        var magnitude = 0.0
        for begin in stride(from: 0, to: x.count, by: 32) {
            let block = begin..<min(begin + 32, x.count)
            let scale = block.map { Double(x[$0].magnitude) }.max()! / 32_767
            for k in block {
                activation += 0.51 * scale * weights[k].value.magnitude
                let size = Double(x[k].magnitude) + scale
                magnitude += (weights[k].product.magnitude + weights[k].minimum.magnitude) * size
                // Zero points are subtracted after the sum: bound what the integer sum held before.
                if format == .q40 { magnitude += 8 * weights[k].product.magnitude * size }
            }
        }
        let blocks = Double((x.count + 31) / 32)
        return format.isQuantized ? activation + (2 * blocks + 6) * unit * magnitude : (blocks + 33) * unit * magnitude
    }

    @Test("Every format is within rounding of a float64 dot product", arguments: WeightFormat.allCases)
    func matchesOracle(format: WeightFormat) throws {
        // Odd M and N; N one past a panel, and below one; K not a multiple of 32 where the format allows it.
        for (count, rows, extra) in [(1, 77, 0), (7, 33, 0), (13, 5, 0), (3, 40, 7)] {
            let columns = 512 + (format.isQuantized ? 0 : extra)
            let fixture = try LinearFixture(format, rows: rows, columns: columns, seed: UInt64(rows))
            let weights = BlockOracle.decode(format, fixture.bytes)
            let x = fixture.activations(count)
            let y = try fixture.product(x, count: count)
            for m in 0..<count {
                let row = Array(x[m * columns..<(m + 1) * columns])
                for n in 0..<rows {
                    let w = Array(weights[n * columns..<(n + 1) * columns])
                    let exact = (0..<columns).reduce(0.0) { $0 + w[$1].value * Double(row[$1]) }
                    let error = (exact - Double(y[m * rows + n])).magnitude
                    #expect(error <= Self.bound(format, w, row), "\(format) M \(m) N \(n)")
                }
            }
        }
    }

    @Test("Every instruction set gives the scalar bits", arguments: WeightFormat.allCases)
    func matchesScalar(format: WeightFormat) throws {
        let fixture = try LinearFixture(format, rows: 77, columns: format.isQuantized ? 768 : 775)
        let x = fixture.activations(11)
        let bias = (0..<77).map { Float($0) * 0.25 - 9 }
        let scalar = try fixture.product(x, count: 11, isa: .scalar)
        let scalarBiased = try fixture.product(x, count: 11, isa: .scalar, bias: bias, adding: scalar)
        for isa in instructionSets.dropFirst() {
            #expect(try bits(fixture.product(x, count: 11, isa: isa)) == bits(scalar))
            #expect(
                try bits(fixture.product(x, count: 11, isa: isa, bias: bias, adding: scalar)) == bits(scalarBiased))
        }
        for (index, value) in scalarBiased.enumerated() {
            #expect(value == scalar[index] + (scalar[index] + bias[index % 77]))
        }
    }

    @Test("A row does not depend on its neighbours, their number, or the threads", arguments: WeightFormat.allCases)
    func isBatchInvariant(format: WeightFormat) throws {
        let fixture = try LinearFixture(format, rows: 160, columns: 256)
        let count = 131
        let x = fixture.activations(count)
        for isa in instructionSets.dropFirst() {
            let together = try fixture.product(x, count: count, isa: isa)
            for threads in [2, 3, 8] {
                #expect(try bits(fixture.product(x, count: count, isa: isa, threads: threads)) == bits(together))
            }
            // Every tile height, and each row alone.
            var begin = 0
            for height in [1, 2, 3, 4, 5, 6, 7, 8, 9, 13, 16, 57] {
                let rows = Array(x[begin * 256..<(begin + height) * 256])
                let part = try fixture.product(rows, count: height, isa: isa)
                #expect(bits(part) == bits(Array(together[begin * 160..<(begin + height) * 160])), "height \(height)")
                begin += height
            }
            #expect(begin == count)
        }
    }

    @Test("NaN and infinity stay in their row", arguments: WeightFormat.allCases)
    func confinesPoison(format: WeightFormat) throws {
        let fixture = try LinearFixture(format, rows: 45, columns: 256)
        let clean = fixture.activations(9)
        let expected = try fixture.product(clean, count: 9)
        for isa in instructionSets {
            for poison in [Float.nan, .signalingNaN, .infinity, -.infinity] {
                var x = clean
                x[4 * 256 + 77] = poison
                let y = try fixture.product(x, count: 9, isa: isa)
                for row in 0..<9 {
                    let outputs = Array(y[row * 45..<(row + 1) * 45])
                    if row == 4 {
                        #expect(outputs.allSatisfy { format.isQuantized ? $0.isNaN : !$0.isFinite })
                    } else {
                        #expect(bits(outputs) == bits(Array(expected[row * 45..<(row + 1) * 45])))
                    }
                }
            }
        }
    }

    @Test("Zero, tiny and huge activations", arguments: WeightFormat.allCases)
    func extremes(format: WeightFormat) throws {
        let fixture = try LinearFixture(format, rows: 3, columns: 256)
        let weights = BlockOracle.decode(format, fixture.bytes)
        for magnitude in [0, Float.leastNonzeroMagnitude, 1e-38, 1e-30, 1e30, 1e36] {
            let x = (0..<256).map { $0 % 3 == 0 ? magnitude : -magnitude / 2 }
            for isa in instructionSets {
                let y = try fixture.product(x, count: 1, isa: isa)
                for n in 0..<3 {
                    let w = Array(weights[n * 256..<(n + 1) * 256])
                    let exact = (0..<256).reduce(0.0) { $0 + w[$1].value * Double(x[$1]) }
                    // Activations below 2^-126 are held to that unit, products below it are rounded to subnormals.
                    let floor = w.reduce(0.0) { $0 + ($1.product.magnitude + $1.minimum.magnitude + 1) * 0x1p-126 }
                    let error = (exact - Double(y[n])).magnitude
                    #expect(error <= Self.bound(format, w, x) + floor, "\(magnitude)")
                    if magnitude == 0 { #expect(y[n] == 0) }
                }
            }
        }
    }

    @Test("Integer sums are exact up to the largest weights and activations")
    func integerExact() throws {
        // Scales of 1 on both sides: d is 1.0, and 32767 in each block of x makes its scale 1.
        var generator = SeededGenerator(seed: 9)
        for isExtreme in [false, true] {
            let quants = (0..<33 * 96).map { _ in isExtreme ? -128 : Int8.random(in: -128...127, using: &generator) }
            var bytes: [UInt8] = []
            for block in 0..<33 * 3 {
                bytes += [0x00, 0x3C] + quants[block * 32..<block * 32 + 32].map { UInt8(bitPattern: $0) }
            }
            let pool = ThreadPool(threads: 1)
            let packed = try bytes.withUnsafeBytes {
                try PackedMatrix(packing: $0, format: .q80, rows: 33, columns: 96, pool: pool)
            }
            let integers = (0..<7 * 96).map { index in
                index % 32 == 5 || isExtreme ? 32_767 : Int.random(in: -32_767...32_767, using: &generator)
            }
            let fixture = LinearFixture(format: .q80, rows: 33, columns: 96, bytes: bytes, packed: packed)
            for isa in instructionSets {
                let y = try fixture.product(integers.map { Float($0) }, count: 7, isa: isa)
                for index in y.indices {
                    let (m, n) = (index / 33, index % 33)
                    var expected: Float = 0
                    for block in 0..<3 {
                        var sum = 0
                        for k in block * 32..<block * 32 + 32 { sum += integers[m * 96 + k] * Int(quants[n * 96 + k]) }
                        expected += Float(sum)
                    }
                    #expect(y[index] == expected)
                }
            }
        }
    }

    @Test(
        "Strides: what lies between rows is neither read nor written", arguments: [WeightFormat.q41, .q80, .bfloat16])
    func strided(format: WeightFormat) throws {
        let fixture = try LinearFixture(format, rows: 37, columns: 64)
        let x = fixture.activations(5)
        let expected = try fixture.product(x, count: 5)
        var padded = [Float](repeating: .nan, count: 4 * 71 + 64)
        for row in 0..<5 { for k in 0..<64 { padded[row * 71 + k] = x[row * 64 + k] } }
        let old = [Float](repeating: 0.5, count: 5 * 50)
        let y = try fixture.product(padded, count: 5, stride: 71, adding: old, outputStride: 50)
        for row in 0..<5 {
            for n in 0..<50 {
                #expect(y[row * 50 + n] == (n < 37 ? 0.5 + expected[row * 37 + n] : 0.5))
            }
        }
        #expect(try fixture.product([], count: 0) == [])
    }

    @Test("Fused matrices give the outputs of their parts", arguments: [WeightFormat.q41, .q6K, .float32])
    func fused(format: WeightFormat) throws {
        let parts = try [48, 5, 70].map { try LinearFixture(format, rows: $0, columns: 256, seed: UInt64($0)) }
        let pool = ThreadPool(threads: 2)
        let arena = WeightArena(chunkByteCount: 4_096)
        let joined = parts.flatMap(\.bytes)
        let packed = try joined.withUnsafeBytes { bytes in
            var offset = 0
            var views: [WeightRows] = []
            for part in parts {
                let slice = UnsafeRawBufferPointer(rebasing: bytes[offset...])
                views.append(try WeightRows(slice, format: format, rows: part.rows, columns: 256))
                offset += part.bytes.count
            }
            return try PackedMatrix(packing: views, arena: arena, pool: pool)
        }
        #expect(packed.rows == 123)
        let x = parts[0].activations(4)
        var y = [Float](repeating: 0, count: 4 * 123)
        let scratch = try LinearScratch(rows: 4, columns: 256)
        try x.withUnsafeBufferPointer { x in
            try y.withUnsafeMutableBufferPointer { y in
                try CPULinear.best.run(
                    x: x, rows: 4, stride: 256, weights: packed, into: y, outputStride: 123, pool: pool,
                    scratch: scratch)
            }
        }
        var begin = 0
        for part in parts {
            let expected = try part.product(x, count: 4)
            for row in 0..<4 {
                for n in 0..<part.rows { #expect(y[row * 123 + begin + n] == expected[row * part.rows + n]) }
            }
            begin += part.rows
        }
    }
}
