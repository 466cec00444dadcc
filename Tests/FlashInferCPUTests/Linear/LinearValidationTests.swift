import FlashInferCPU
import FlashInferCore
import Testing

@Suite("Bad input to products is a typed error")
struct LinearValidationTests {
    private func view(
        _ bytes: Int, _ format: WeightFormat, rows: Int, columns: Int
    ) throws(FlashInferError) -> WeightRows {
        let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: bytes, alignment: 64)
        defer { memory.deallocate() }
        return try WeightRows(UnsafeRawBufferPointer(memory), format: format, rows: rows, columns: columns, name: "w")
    }

    @Test("Weights: sizes, blocks, bytes and overflow")
    func weights() {
        #expect(throws: FlashInferError.self) { try view(64, .float32, rows: 0, columns: 4) }
        #expect(throws: FlashInferError.self) { try view(64, .float32, rows: 4, columns: -1) }
        #expect(
            throws: FlashInferError.invalidArgument("w", found: "48 columns of Q4_1", expected: "a multiple of 32")
        ) { try view(4_096, .q41, rows: 1, columns: 48) }
        #expect(
            throws: FlashInferError.invalidArgument("w", found: "287 bytes", expected: "288 for [2, 256] of Q4_K")
        ) { try view(287, .q4K, rows: 2, columns: 256) }
        #expect(throws: FlashInferError.overflow("w")) { try view(64, .float32, rows: 2, columns: .max) }
        #expect(throws: FlashInferError.overflow("w")) { try view(64, .q80, rows: .max, columns: 64) }
        #expect(WeightFormat.q80.byteCount(elements: .max & ~31) == nil)
        #expect(WeightFormat.q6K.byteCount(elements: 255) == nil)
        #expect(WeightFormat.q6K.byteCount(elements: -256) == nil)
        #expect(WeightFormat.q5K.byteCount(elements: 512) == 352)
    }

    @Test("Parts must agree")
    func parts() throws {
        let pool = ThreadPool(threads: 1)
        let memory = [UInt8](repeating: 0, count: 4_096)
        try memory.withUnsafeBytes { bytes in
            let a = try WeightRows(bytes, format: .q80, rows: 2, columns: 64)
            let b = try WeightRows(bytes, format: .q80, rows: 2, columns: 32)
            let c = try WeightRows(bytes, format: .q40, rows: 2, columns: 64)
            #expect(throws: FlashInferError.self) { try PackedMatrix(packing: [], pool: pool) }
            #expect(throws: FlashInferError.self) { try PackedMatrix(packing: [a, b], pool: pool) }
            #expect(throws: FlashInferError.self) { try PackedMatrix(packing: [a, c], pool: pool) }
        }
    }

    @Test("Activations, outputs, bias and scratch")
    func run() throws {
        let pool = ThreadPool(threads: 1)
        let packed = try [UInt8](repeating: 0, count: 34 * 10).withUnsafeBytes { bytes in
            try PackedMatrix(packing: bytes, format: .q80, rows: 5, columns: 64, pool: pool)
        }
        let scratch = try LinearScratch(rows: 2, columns: 64)
        #expect(throws: FlashInferError.self) { try LinearScratch(rows: 0, columns: 64) }
        #expect(throws: FlashInferError.self) { try LinearScratch(rows: .max, columns: 64) }
        func attempt(
            x: Int = 192, rows: Int = 2, stride: Int = 64, y: Int = 15, outputStride: Int = 5, bias: Int? = nil
        ) throws(FlashInferError) {
            let input = UnsafeMutableBufferPointer<Float>.allocate(capacity: 512)
            let output = UnsafeMutableBufferPointer<Float>.allocate(capacity: 512)
            defer {
                input.deallocate()
                output.deallocate()
            }
            input.initialize(repeating: 1)
            output.initialize(repeating: 1)
            try CPULinear.best.run(
                x: UnsafeBufferPointer(rebasing: input[..<x]), rows: rows, stride: stride, weights: packed,
                into: UnsafeMutableBufferPointer(rebasing: output[..<y]), outputStride: outputStride,
                bias: bias.map { UnsafeBufferPointer(rebasing: input[..<$0]) }, pool: pool, scratch: scratch)
        }
        #expect(throws: Never.self) { try attempt() }
        #expect(throws: FlashInferError.lengthMismatch("x", found: 127, expected: 128)) { try attempt(x: 127) }
        #expect(throws: FlashInferError.lengthMismatch("y", found: 9, expected: 10)) { try attempt(y: 9) }
        #expect(throws: FlashInferError.lengthMismatch("bias", found: 4, expected: 5)) { try attempt(bias: 4) }
        #expect(throws: FlashInferError.capacityExceeded("scratch", required: 192, capacity: 128)) {
            try attempt(rows: 3)
        }
        #expect(throws: FlashInferError.self) { try attempt(rows: -1) }
        #expect(throws: FlashInferError.self) { try attempt(stride: 63) }
        #expect(throws: FlashInferError.self) { try attempt(outputStride: 4) }
        #expect(throws: FlashInferError.overflow("x stride")) { try attempt(rows: 3, stride: .max) }
    }

    @Test("Look-ups: ids and room")
    func gather() throws {
        let bytes = (0..<UInt8(12)).map { $0 }
        try bytes.withUnsafeBytes { bytes in
            let table = try WeightRows(bytes, format: .bfloat16, rows: 3, columns: 2)
            var out = [Float](repeating: 7, count: 5)
            func gather(_ ids: [Int32], stride: Int = 3) throws {
                try ids.withUnsafeBufferPointer { ids in
                    try out.withUnsafeMutableBufferPointer { out in
                        try table.gather(ids, into: out, stride: stride)
                    }
                }
            }
            #expect(throws: FlashInferError.self) { try gather([0, 3]) }
            #expect(throws: FlashInferError.self) { try gather([-1]) }
            #expect(throws: FlashInferError.self) { try gather([0, 1, 2]) }
            #expect(throws: FlashInferError.self) { try gather([0, 1], stride: 1) }
            #expect(out == [7, 7, 7, 7, 7])
            try gather([2, 0])
            let value = { (index: Int) in Float(BFloat16(bitPattern: UInt16(2 * index) | UInt16(2 * index + 1) << 8)) }
            #expect(out == [value(4), value(5), 7, value(0), value(1)])
            #expect(throws: FlashInferError.self) {
                try out.withUnsafeMutableBufferPointer { try table.dequantize(row: 3, into: $0) }
            }
        }
    }
}
