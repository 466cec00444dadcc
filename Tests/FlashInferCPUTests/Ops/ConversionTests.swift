import FlashInferCPU
import FlashInferCore
import TestSupport
import Testing

@Suite struct ConversionTests {
    /// Numbers around every rounding and range boundary of the narrow types.
    static let edges: [Double] = {
        var edges: [Double] = [0, -0.0, .nan, .infinity, -.infinity, 0.5, 1.5, 2.5, 126.5, 127.5, -128.5, 1e30, -1e30]
        for exponent in -30...17 {
            for numerator in 8...33 {
                edges.append(Double(sign: .plus, exponent: exponent - 4, significand: Double(numerator)))
            }
        }
        for limit in [448.0, 463.9, 464, 464.1, 57_344, 61_439, 61_440, 65_504, 65_519, 65_520, 3.4e38] {
            edges += [limit, -limit, limit.nextUp, limit.nextDown]
        }
        return edges
    }()

    @Test(arguments: instructionSets)
    func everyPairOfTypes(set: InstructionSet) throws {
        let ops = makeOps(set)
        for from in DType.allCases where from.isCacheType {
            for to in DType.allCases where to.isCacheType {
                for scale in [Float(1), 0.75] {
                    let input = try OpsTensor(from, [1, Self.edges.count], padding: 5, values: Self.edges)
                    let output = try OpsTensor(to, [1, Self.edges.count], padding: 5)
                    let operation = ConvertOperation(input: input.view, output: output.view, scale: scale)
                    try operation.validate()
                    ops.execute(operation)
                    for index in 0..<Self.edges.count {
                        let value = Float(input[index]) * scale
                        let expected = try OpsTensor(to, [1], values: [Double(value)])
                        if value.isNaN {
                            #expect(to == .int8 ? output[index] == 0 : output[index].isNaN)
                        } else {
                            #expect(
                                output.bits(index) == expected.bits(0),
                                "\(value) from \(from) to \(to): \(output[index]), not \(expected[0])")
                        }
                    }
                    #expect(output.paddingIsIntact)
                }
            }
        }
    }

    @Test(arguments: instructionSets)
    func everyNarrowPatternBecomesItsFloat(set: InstructionSet) throws {
        let ops = makeOps(set)
        for dtype in [DType.float8E4M3, .float8E5M2, .int8, .float16, .bfloat16] {
            let patterns = dtype.byteCount == 1 ? 256 : 65_536
            let bytes = UnsafeMutableRawBufferPointer.allocate(byteCount: patterns * dtype.byteCount, alignment: 64)
            defer { bytes.deallocate() }
            for pattern in 0..<patterns {
                if dtype.byteCount == 1 {
                    bytes.storeBytes(of: UInt8(pattern), toByteOffset: pattern, as: UInt8.self)
                } else {
                    bytes.storeBytes(of: UInt16(pattern), toByteOffset: 2 * pattern, as: UInt16.self)
                }
            }
            let input = try TensorView(MemoryRegion(UnsafeRawBufferPointer(bytes)), dtype: dtype, shape: [1, patterns])
            let output = try OpsTensor(.float32, [1, patterns])
            ops.execute(ConvertOperation(input: input, output: output.view))
            var wrong = 0
            for pattern in 0..<patterns {
                let expected: Float =
                    switch dtype {
                    case .float8E4M3: Float(Float8E4M3(bitPattern: UInt8(pattern)))
                    case .float8E5M2: Float(Float8E5M2(bitPattern: UInt8(pattern)))
                    case .int8: Float(Int8(bitPattern: UInt8(pattern)))
                    case .float16: Float(Float16(bitPattern: UInt16(pattern)))
                    default: Float(BFloat16(bitPattern: UInt16(pattern)))
                    }
                let found = Float(bitPattern: output.bits(pattern))
                if expected.isNaN ? !found.isNaN : found.bitPattern != expected.bitPattern { wrong += 1 }
            }
            #expect(wrong == 0, "\(dtype)")
        }
    }
}
