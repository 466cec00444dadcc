import FlashInferCPU
import FlashInferCore
import TestSupport

/// One matrix, its packing, and activations, with products as arrays.
struct LinearFixture {
    let format: WeightFormat
    let rows: Int
    let columns: Int
    let bytes: [UInt8]
    let packed: PackedMatrix

    init(format: WeightFormat, rows: Int, columns: Int, bytes: [UInt8], packed: PackedMatrix) {
        self.format = format
        self.rows = rows
        self.columns = columns
        self.bytes = bytes
        self.packed = packed
    }

    init(_ format: WeightFormat, rows: Int, columns: Int, seed: UInt64 = 1) throws {
        var generator = SeededGenerator(seed: seed)
        let bytes = randomWeights(format, elements: rows * columns, using: &generator)
        self.format = format
        self.rows = rows
        self.columns = columns
        self.bytes = bytes
        let pool = ThreadPool(threads: 2)
        packed = try bytes.withUnsafeBytes { source in
            try PackedMatrix(packing: source, format: format, rows: rows, columns: columns, pool: pool)
        }
    }

    /// Activations with a few outliers, as LLMs have.
    func activations(_ count: Int, seed: UInt64 = 2) -> [Float] {
        var generator = SeededGenerator(seed: seed)
        return (0..<count * columns).map { _ in
            let value = Float.random(in: -1...1, using: &generator)
            return UInt8.random(in: 0..<64, using: &generator) == 0 ? 40 * value : value
        }
    }

    /// y for `count` rows of x, whose rows may lie `stride` apart, on one instruction set.
    func product(
        _ x: [Float], count: Int, stride: Int? = nil, isa: InstructionSet? = nil, threads: Int = 1,
        bias: [Float]? = nil,
        adding old: [Float]? = nil, outputStride: Int? = nil
    ) throws -> [Float] {
        let linear = isa.flatMap { CPULinear(isa: $0.cValue) } ?? .best
        let outputStride = outputStride ?? rows
        var y = old ?? [Float](repeating: .nan, count: count * outputStride)
        let pool = ThreadPool(threads: threads)
        let scratch = try LinearScratch(rows: max(count, 1), columns: columns)
        try x.withUnsafeBufferPointer { x in
            try y.withUnsafeMutableBufferPointer { y in
                try (bias ?? []).withUnsafeBufferPointer { biasValues in
                    try linear.run(
                        x: x, rows: count, stride: stride ?? columns, weights: packed, into: y,
                        outputStride: outputStride, bias: bias == nil ? nil : biasValues, accumulate: old != nil,
                        pool: pool, scratch: scratch)
                }
            }
        }
        return y
    }
}

/// The bits, so that NaNs and signed zeros compare.
func bits(_ values: [Float]) -> [UInt32] { values.map(\.bitPattern) }
