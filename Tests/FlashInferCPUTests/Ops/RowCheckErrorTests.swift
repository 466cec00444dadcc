import FlashInferCPU
import FlashInferCore
import TestSupport
import Testing

/// What the checks of layer norm, conversion to 8 bits, packed bits and rotations refuse, and what they let pass.
@Suite struct RowCheckErrorTests {
    private func error(_ operation: FlashInferCore.Operation) -> FlashInferError? {
        do throws(FlashInferError) { try operation.validate() } catch { return error }
        return nil
    }

    @Test func layerNorm() throws {
        let x = try OpsTensor(.float32, [2, 8], values: OpsRandom.fixed(16))
        let weight = try OpsTensor(.float32, [8], values: OpsRandom.fixed(8))
        func operation(bias: TensorView, output: TensorView, _ way: OutputQuantization? = nil) -> LayerNormOperation {
            LayerNormOperation(input: x.view, weight: weight.view, bias: bias, output: output, quantization: way)
        }
        #expect(error(.layerNorm(operation(bias: weight.view, output: x.view))) == nil)
        #expect(
            error(.layerNorm(operation(bias: try OpsTensor(.float16, [8]).view, output: x.view)))
                == .invalidArgument("bias", found: "float16 [8]", expected: "contiguous float32 [8]"))
        #expect(error(.layerNorm(operation(bias: try OpsTensor(.float32, [7]).view, output: x.view))) != nil)
        let bytes = try OpsTensor(.int8, [2, 8])
        #expect(error(.layerNorm(operation(bias: weight.view, output: bytes.view))) != nil)
        #expect(error(.layerNorm(operation(bias: weight.view, output: bytes.view, .scale(1)))) == nil)
        #expect(
            error(
                .layerNorm(
                    operation(
                        bias: weight.view, output: bytes.view,
                        .perGroup(size: 32, scales: try OpsTensor(.float32, [2, 1]).view))))
                == .invalidArgument(
                    "group size", found: "32 for rows of 8", expected: "32, 64 or 128, and a divisor of the width"))
    }

    @Test func rowsOfNaNAndInfinityAndOfNothing() throws {
        let device = CPUDevice(threads: 1)
        let x = try OpsTensor(
            .float32, [3, 5], values: [1, .nan, 2, 3, 4] + [1, .infinity, 2, 3, 4] + [7, 7, 7, 7, 7])
        let ones = try OpsTensor(.float32, [5], values: [1, 1, 1, 1, 1])
        let output = try OpsTensor(.float32, [3, 5])
        let operation = LayerNormOperation(
            input: x.view, weight: ones.view, bias: ones.view, output: output.view, epsilon: 1e-5)
        try operation.validate()
        try device.execute(.layerNorm(operation))
        let found = output.values
        #expect(found[..<10].allSatisfy(\.isNaN) && found[10...].allSatisfy { $0 == 1 })
        withExtendedLifetime((x, ones)) {}
        let empty = try OpsTensor(.float32, [0, 5])
        let none = LayerNormOperation(input: empty.view, weight: ones.view, bias: ones.view, output: empty.view)
        try none.validate()
        try device.execute(.layerNorm(none))
        // A group with a NaN has a NaN for its scale, and its neighbour is none the worse.
        var values = [Double](repeating: 2, count: 64)
        values[5] = .nan
        let row = try OpsTensor(.float32, [1, 64], values: values)
        let (bytes, scales) = (try OpsTensor(.int8, [1, 64]), try OpsTensor(.float32, [1, 2]))
        let groups = QuantizeOperation(
            input: row.view, output: bytes.view, quantization: .perGroup(size: 32, scales: scales.view))
        try groups.validate()
        try device.execute(.quantize(groups))
        #expect(scales[0].isNaN && scales[1] == Double(Float(2) / 127) && bytes[5] == 0 && bytes[40] == 127)
        // A row of nothing has a scale that divides.
        let nothing = try OpsTensor(.float32, [2, 0])
        let (noBytes, own) = (try OpsTensor(.int8, [2, 0]), try OpsTensor(.float32, [2]))
        let zero = QuantizeOperation(
            input: nothing.view, output: noBytes.view, quantization: .perRow(scales: own.view))
        try zero.validate()
        try device.execute(.quantize(zero))
        #expect(own.values == [Double(Float(1e-10) / 127), Double(Float(1e-10) / 127)])
    }

    @Test func groups() throws {
        let x = try OpsTensor(.float32, [2, 96], values: OpsRandom.fixed(192))
        let bytes = try OpsTensor(.float8E4M3, [2, 96])
        func error(_ size: Int, _ scales: TensorView) -> FlashInferError? {
            self.error(
                .quantize(
                    QuantizeOperation(
                        input: x.view, output: bytes.view, quantization: .perGroup(size: size, scales: scales))))
        }
        let scales = try OpsTensor(.float32, [2, 3])
        #expect(error(32, scales.view) == nil)
        #expect(error(32, try OpsTensor(.float32, [3, 2]).view.transposed(0, 1)) == nil)
        #expect(
            error(64, try OpsTensor(.float32, [2, 1]).view)
                == .invalidArgument(
                    "group size", found: "64 for rows of 96", expected: "32, 64 or 128, and a divisor of the width"))
        #expect(error(48, try OpsTensor(.float32, [2, 2]).view) != nil)
        #expect(error(32, try OpsTensor(.float32, [2, 4]).view) != nil)
        #expect(
            error(32, try OpsTensor(.float16, [2, 3]).view)
                == .invalidArgument("group scales", found: "float16", expected: "float32"))
        let broadcast = try TensorView(scales.view.region, dtype: .float32, shape: [2, 3], strides: [0, 1])
        #expect(error(32, broadcast) != nil)
    }

    @Test func packedBits() throws {
        let flags = try OpsTensor(.uint8, [20], values: [Double](repeating: 1, count: 20))
        func error(_ output: Int, _ segments: ([Double], [Double])?) throws -> FlashInferError? {
            let bytes = try OpsTensor(.uint8, [output])
            let starts = try segments.map {
                (
                    try OpsTensor(.int32, [$0.0.count], values: $0.0),
                    try OpsTensor(.int32, [$0.1.count], values: $0.1)
                )
            }
            return withExtendedLifetime((bytes, starts)) {
                self.error(
                    .packBits(
                        PackBitsOperation(
                            flags: flags.view, output: bytes.view, order: .lowestFirst,
                            segments: starts.map { .init(flags: $0.0.view, bytes: $0.1.view) })))
            }
        }
        #expect(try error(3, nil) == nil)
        #expect(try error(2, nil) != nil)
        #expect(try error(3, ([0, 9, 17], [0, 2, 3])) == nil)
        #expect(
            try error(3, ([0, 9, 8], [0, 2, 3]))
                == .indptrNotMonotone("segments", request: 1, value: 9, next: 8))
        #expect(
            try error(3, ([0, 9, 17], [0, 1, 3]))
                == .invalidRequest(0, argument: "bytes of segment", found: 1, expected: "2, for its flags"))
        #expect(try error(3, ([0, 9, 21], [0, 2, 4])) == .lengthMismatch("flags", found: 20, expected: 21))
        #expect(try error(4, ([0, 9, 17], [0, 2, 3])) == .lengthMismatch("output", found: 4, expected: 3))
        #expect(try error(3, ([-1, 9], [0, 2])) != nil)
        #expect(try error(3, ([0, 9], [0, 2, 3])) != nil)
    }

    @Test func rotations() throws {
        let queries = try OpsTensor(.float32, [2, 3, 8], values: OpsRandom.fixed(48))
        let positions = try OpsTensor(.int32, [2], values: [0, 4])
        let weight = try OpsTensor(.float32, [8], values: OpsRandom.fixed(8))
        func operation(
            table: TensorView? = nil, _ normalization: HeadNormalization? = nil
        ) -> FlashInferCore.Operation {
            .rope(
                RoPEOperation(
                    queries: queries.view, positions: positions.view, parameters: RoPEParameters(), table: table,
                    normalization: normalization))
        }
        let table = try OpsTensor(.float32, [5, 8])
        #expect(error(operation(table: table.view)) == nil)
        // Position 4 is a row that this has not.
        #expect(
            error(operation(table: table.view.slice(0..<4)))
                == .invalidArgument("positions[1]", found: "4", expected: "in 0 ..< 4"))
        #expect(error(operation(table: try OpsTensor(.float32, [5, 6]).view)) != nil)
        #expect(error(operation(table: try OpsTensor(.float16, [5, 8]).view)) != nil)
        #expect(error(operation(HeadNormalization(queryWeight: weight.view))) == nil)
        #expect(
            error(operation(HeadNormalization(queryWeight: weight.view, keyWeight: weight.view)))
                == .invalidArgument("key weight", found: "a tensor", expected: "nil, as there are no keys"))
        #expect(error(operation(HeadNormalization(queryWeight: weight.view.slice(0..<7)))) != nil)
        #expect(error(operation(HeadNormalization(queryWeight: weight.view, epsilon: -1))) != nil)
        let wide = try OpsTensor(.float32, [1, 1, 1_026])
        let one = try OpsTensor(.int32, [1], values: [0])
        #expect(
            error(
                .rope(
                    RoPEOperation(
                        queries: wide.view, positions: one.view, parameters: RoPEParameters(),
                        normalization: HeadNormalization(queryWeight: try OpsTensor(.float32, [1_026]).view))))
                == .invalidArgument(
                    "head dimension of normalised heads", found: "1026", expected: "in 1 ... 1024"))
    }

    @Test func headsInTwoParts() throws {
        let q = try OpsTensor(.bfloat16, [2, 3, 64], values: OpsRandom.fixed(384))
        let (k, rest) = (try OpsTensor(.bfloat16, [2, 1, 64]), try OpsTensor(.bfloat16, [2, 1, 512]))
        let positions = try OpsTensor(.int32, [2], values: [0, 4])
        // The peer's layout: both parts of the output and of the cache are columns of one tensor.
        let output = try OpsTensor(.float8E4M3, [2, 3, 576])
        let joint = try OpsTensor(.float8E4M3, [3, 4, 1, 576])
        let (ckv, kpe) = (joint.view.slice(0..<512, along: 3), joint.view.slice(512..<576, along: 3))
        let qRest = try OpsTensor(.bfloat16, [2, 3, 512])
        let good = SplitRoPEOperation(
            queries: .init(turning: q.view, rest: qRest.view), keys: .init(turning: k.view, rest: rest.view),
            queryOutput: .init(
                turning: output.view.slice(512..<576, along: 2), rest: output.view.slice(0..<512, along: 2)),
            keyOutput: .latentCache(try .paged(keys: ckv, values: kpe), try KVSlots(slots: [0, 11], pageSize: 4)),
            positions: positions.view)
        func error(_ change: (inout SplitRoPEOperation) throws -> Void) throws -> FlashInferError? {
            var operation = good
            try change(&operation)
            return withExtendedLifetime(positions) { self.error(.splitRoPE(operation)) }
        }
        #expect(try error { _ in } == nil)
        #expect(try error { $0.values = k.view } != nil)
        #expect(try error { $0.queryFactor = 0 } != nil)
        #expect(try error { $0.keyFactor = .infinity } != nil)
        #expect(try error { $0.parameters.rotaryDim = 32 } != nil)
        #expect(try error { $0.queryOutput.rest = nil } != nil)
        #expect(try error { $0.queryOutput.rest = output.view.slice(60..<572, along: 2) } != nil)
        #expect(try error { $0.queryOutput.turning = output.view.slice(500..<564, along: 2) } != nil)
        #expect(try error { $0.keys.rest = nil } != nil)
        #expect(
            try error {
                $0.keyOutput = .latentCache(
                    try .paged(keys: kpe, values: ckv), try KVSlots(slots: [0, 1], pageSize: 4))
            } != nil)
        #expect(
            try error {
                $0.keyOutput = .latentCache(
                    try .paged(keys: ckv, values: kpe), try KVSlots(slots: [0, 12], pageSize: 4))
            } == .invalidArgument("page of token 1", found: "3", expected: "in 0 ..< 3"))
        #expect(
            try error {
                $0.keyOutput = .cache(try .paged(keys: ckv, values: kpe), try KVSlots(slots: [0, 1], pageSize: 4))
            } != nil)
        #expect(try error { $0.keyOutput = .tensors(.init(turning: k.view, rest: rest.view)) } != nil)
    }
}
