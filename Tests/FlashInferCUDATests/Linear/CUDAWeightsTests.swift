import FlashInferCUDA
import FlashInferCore
import TestSupport
import Testing

/// What lies in device memory for the weights of a file, on a driver made of Swift functions.
@Suite struct CUDAWeightsTests {
    /// The bits of a weight in the type it is held in.
    private func bits(_ value: Double, _ type: DType) -> UInt16 {
        type == .float16 ? Float16(value).bitPattern : BFloat16(Float(value)).bitPattern
    }

    /// Zeros of both signs are one weight.
    private func areEqual(_ left: UInt16, _ right: UInt16) -> Bool { left == right || (left | right) & 0x7FFF == 0 }

    private func contents(_ weights: CUDAWeights, on device: CUDADevice) throws -> [UInt16] {
        var elements = [UInt16](repeating: 0, count: weights.rows * weights.stride)
        let region = MemoryRegion(
            address: try #require(weights.table).address, byteCount: 2 * elements.count, device: device.id)
        try elements.withUnsafeMutableBytes { try device.download(region, to: $0) }
        return elements
    }

    private func weights(
        _ bytes: [UInt8], _ format: WeightFormat, _ shape: [(rows: Int, columns: Int)], on device: CUDADevice
    ) throws -> CUDAWeights {
        try bytes.withUnsafeBytes { bytes in
            var offset = 0
            var parts: [WeightRows] = []
            for (rows, columns) in shape {
                let size = format.byteCount(elements: columns)! * rows
                let slice = UnsafeRawBufferPointer(rebasing: bytes[offset..<offset + size])
                parts.append(try WeightRows(slice, format: format, rows: rows, columns: columns))
                offset += size
            }
            return try CUDAWeights(parts, on: device)
        }
    }

    @Test(arguments: WeightFormat.allCases)
    func everyFormatIsRoundedOnce(_ format: WeightFormat) throws {
        try FakeDriver.with { fake in
            let device = try fake.device()
            var random = SeededGenerator(seed: 11)
            // Parts under each other; rows that are not a multiple of 16 bytes where the format allows it.
            for columns in format.isQuantized ? [256, 512] : [256, 77, 1] {
                let shape = [(rows: 5, columns: columns), (rows: 1, columns: columns), (rows: 19, columns: columns)]
                let bytes = randomWeights(format, elements: 25 * columns, using: &random)
                let weights = try weights(bytes, format, shape, on: device)
                let type: DType = format == .bfloat16 ? .bfloat16 : .float16
                #expect(weights.inputType == type)
                #expect(weights.rows == 25 && weights.columns == columns)
                #expect(weights.stride % 8 == 0 && weights.stride - columns < 8)
                #expect(weights.byteCount == 2 * 25 * weights.stride)
                let table = try #require(weights.table)
                #expect(table.dtype == type && table.shape == [25, columns] && table.strides == [weights.stride, 1])
                let exact = BlockOracle.decode(format, bytes).map(\.value)
                let found = try contents(weights, on: device)
                for row in 0..<25 {
                    for column in 0..<weights.stride {
                        let wanted =
                            column < columns ? bits(Double(Float(exact[row * columns + column])), type) : 0
                        #expect(areEqual(found[row * weights.stride + column], wanted), "\(format) [\(row), \(column)]")
                    }
                }
            }
        }
    }

    /// More than one piece of the upload, and more than one task of a piece.
    @Test func largeMatricesArriveWhole() throws {
        try FakeDriver.with { fake in
            fake.change { $0.isEager = true }
            let device = try fake.device()
            var random = SeededGenerator(seed: 12)
            let (rows, columns) = (1500, 2048)
            let bytes = randomWeights(.q80, elements: rows * columns, using: &random)
            let weights = try weights(bytes, .q80, [(rows, columns)], on: device)
            let exact = BlockOracle.decode(.q80, bytes)
            let found = try contents(weights, on: device)
            #expect(zip(found, exact).allSatisfy { areEqual($0, bits($1.value, .float16)) })
        }
    }

    @Test func weightsPastTheRangeAreHeldInBFloat16() throws {
        try FakeDriver.with { fake in
            let device = try fake.device()
            // Just inside: what rounds to 65,504. Just outside, infinite, and no number.
            for (value, type) in [
                (65_519.99 as Float, DType.float16), (-65_519.99, .float16), (65_520, .bfloat16), (-1e30, .bfloat16),
                (.infinity, .bfloat16), (.nan, .bfloat16),
            ] {
                var values = [Float](repeating: 0.1, count: 64)
                values[37] = value
                let bytes = values.withUnsafeBytes(Array.init)
                let weights = try weights(bytes, .float32, [(2, 32)], on: device)
                #expect(weights.inputType == type, "\(value)")
                let found = try contents(weights, on: device)
                #expect(found[0] == bits(Double(Float(0.1)), type))
                if !value.isNaN { #expect(found[37] == bits(Double(value), type)) }
                if value.isNaN { #expect(Float(BFloat16(bitPattern: found[37])).isNaN) }
            }
            // Subnormal and tiny numbers, and ties.
            let values: [Float] = [
                0x1p-24, 0x1p-25, 0x1.8p-25, 0x1.fffp-15, -0x1p-30, 1 + 0x1p-11, 1 + 0x1.8p-10, -0.0,
            ]
            let weights = try weights(values.withUnsafeBytes(Array.init), .float32, [(1, 8)], on: device)
            #expect(try contents(weights, on: device) == values.map { Float16($0).bitPattern })
        }
    }

    @Test func memoryIsFreedWithTheWeights() throws {
        try FakeDriver.with { fake in
            let device = try fake.device()
            let bytes = [UInt8](repeating: 0, count: 34 * 8)
            do { _ = try weights(bytes, .q80, [(8, 32)], on: device) }
            try device.synchronize()
            #expect(fake.read { $0.deviceBytes.isEmpty })
            fake.change { $0.freeMemory = 100 }
            #expect { try weights(bytes, .q80, [(8, 32)], on: device) } throws: { error in
                if case FlashInferError.outOfMemory = error { true } else { false }
            }
        }
    }
}
