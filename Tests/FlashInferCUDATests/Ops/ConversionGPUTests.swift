import FlashInfer
import FlashInferCUDA
import FlashInferCore
import TestSupport
import Testing

/// Conversions on the GPU are the CPU's, bit for bit; NaNs are NaNs.
@Suite(.enabled(if: OpsGPU.isThere, "no CUDA device")) struct ConversionGPUTests {
    private let gpu = GPUScope()

    /// Numbers around every rounding and range boundary of the narrow types.
    static let edges: [Double] = {
        var edges: [Double] = [0, -0.0, .nan, .infinity, -.infinity, 0.5, 1.5, 2.5, 126.5, 127.5, -128.5, 1e30, -1e30]
        for exponent in -30...17 {
            for numerator in 8...33 {
                let value = Double(sign: .plus, exponent: exponent - 4, significand: Double(numerator))
                edges += [value, -value]
            }
        }
        for limit in [448.0, 463.9, 464, 464.1, 57_344, 61_439, 61_440, 65_504, 65_519, 65_520, 3.4e38] {
            edges += [limit, -limit, limit.nextUp, limit.nextDown]
        }
        return edges
    }()

    @Test(arguments: DType.allCases.filter(\.isCacheType), DType.allCases.filter(\.isCacheType))
    func everyPairOfTypes(from: DType, to: DType) throws {
        let cpu = CPUDevice(threads: 1)
        let count = Self.edges.count
        for scale in [Float(1), 0.75, -3e38] {
            for layout in GPULayout.all {
                // Rows of a whole number of vectors, and one element more.
                for width in [count & ~15, count & ~15 - 15] {
                    let values = Array(Self.edges.prefix(width) + Self.edges.suffix(width))
                    let input = try gpu.tensor(
                        from, [2, width], padding: layout.padding, lead: layout.lead, values: values)
                    let output = try gpu.tensor(to, [2, width], padding: layout.padding)
                    let expected = try OpsTensor(to, [2, width], padding: layout.padding)
                    let operation = ConvertOperation(input: input.host.view, output: expected.view, scale: scale)
                    try operation.validate()
                    try cpu.execute(.convert(operation))
                    try runOnGPU(.convert(ConvertOperation(input: input.view, output: output.view, scale: scale)))
                    try output.fetch()
                    for index in 0..<2 * width where output.host.bits(index) != expected.bits(index) {
                        if expected[index].isNaN && output.host[index].isNaN { continue }
                        Issue.record(
                            "\(input.host[index]) times \(scale): \(output.host[index]), not \(expected[index])")
                    }
                    #expect(output.host.paddingIsIntact)
                }
            }
        }
    }

    @Test(arguments: [DType.float8E4M3, .float8E5M2, .int8, .float16, .bfloat16])
    func everyNarrowPatternBecomesItsFloat(dtype: DType) throws {
        let patterns = dtype.byteCount == 1 ? 256 : 65_536
        let input = try OpsTensor(dtype, [1, patterns])
        for pattern in 0..<patterns {
            let place = input.view.byteOffset + pattern * dtype.byteCount
            if dtype.byteCount == 1 {
                input.bytes.storeBytes(of: UInt8(pattern), toByteOffset: place, as: UInt8.self)
            } else {
                input.bytes.storeBytes(of: UInt16(pattern), toByteOffset: place, as: UInt16.self)
            }
        }
        let output = try gpu.tensor(.float32, [1, patterns])
        let source = try gpu.tensor(input)
        try runOnGPU(.convert(ConvertOperation(input: source.view, output: output.view)))
        try output.fetch()
        var wrong = 0
        for pattern in 0..<patterns {
            let expected = Float(input[pattern])
            let found = Float(bitPattern: output.host.bits(pattern))
            if expected.isNaN ? !found.isNaN : found.bitPattern != expected.bitPattern { wrong += 1 }
        }
        #expect(wrong == 0)
        // The same type and no scale: a copy of bits, NaNs' payloads included.
        let copy = try gpu.tensor(dtype, [1, patterns])
        try runOnGPU(.convert(ConvertOperation(input: source.view, output: copy.view)))
        try copy.fetch()
        #expect(copy.bits == (0..<patterns).map(UInt32.init))
    }
}
