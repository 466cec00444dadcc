import FlashInferCPU
import FlashInferCore
import TestSupport
import Testing

@Suite struct AdjustLogitsTests {
    @Test(arguments: DType.computeType)
    func everyStepInItsOrder(dtype: DType) throws {
        let ops = makeOps(.detected)
        var random = OpsRandom(91)
        for width in [1, 31, 33, 111, 5_000] {
            let logits = try OpsTensor(dtype, [3, width], padding: 1, values: random.normals(3 * width, scale: 4))
            let before = logits.values
            let ids = (0..<40).map { _ in Double(Int(random.uniform() * Double(width + 4)) - 2) }
            let history = try OpsTensor(.int32, [40], values: ids)
            let biasTokens = try OpsTensor(.int32, [6], values: Array(ids[..<5]) + [ids[0]])
            let biases = try OpsTensor(.float32, [6], values: [1, -2, 3, .infinity, 0.1, -7])
            let words = (width + 31) / 32
            let mask = try OpsTensor(.int32, [3, words], padding: 1)
            for word in 0..<3 * words { mask[word] = word % 3 == 2 ? -1 : Double(Int32(word &* 77_777 &+ 12_345)) }
            let rows: [AdjustLogitsOperation.Row] = [
                .init(
                    repetition: 1.3, presence: 0.5, frequency: 0.25, prompt: 0..<20, output: 15..<40, bias: 0..<6),
                .init(repetition: 0.7, output: 3..<9), .init(prompt: -1 ..< -1, bias: 2..<3),
            ]
            let operation = AdjustLogitsOperation(
                logits: logits.view, rows: rows, history: history.view, biasTokens: biasTokens.view,
                biases: biases.view, mask: mask.view)
            try operation.validate()
            ops.execute(operation)
            #expect(logits.paddingIsIntact)
            for (index, row) in rows.enumerated() {
                for token in 0..<width {
                    var x = Float(before[index * width + token])
                    for place in row.bias.reversed() where Int(biasTokens[place]) == token {
                        x += Float(biases[place])
                        break
                    }
                    let times = row.output.count { Int(ids[$0]) == token }
                    let occurred = times > 0 || row.prompt.contains { $0 >= 0 && Int(ids[$0]) == token }
                    if occurred { x = x > 0 ? x / row.repetition : x * row.repetition }
                    if times > 0 {
                        x -= row.frequency * Float(times)
                        x -= row.presence
                    }
                    let bits = UInt32(bitPattern: Int32(mask[index * words + token / 32]))
                    let expected = bits >> UInt32(token % 32) & 1 == 0 ? -.infinity : rounded(x, to: dtype)
                    #expect(logits[index * width + token] == expected, "width \(width), row \(index), token \(token)")
                }
            }
        }
    }

    @Test func nothingToDoChangesNothing() throws {
        let logits = try OpsTensor(.float32, [2, 50], values: (0..<100).map { Double($0) - 50 })
        let operation = AdjustLogitsOperation(logits: logits.view, rows: [.init(), .init(repetition: 2)])
        try operation.validate()
        makeOps(.detected).execute(operation)
        #expect(logits.values == (0..<100).map { Double($0) - 50 })
    }

    @Test func badArgumentsAreNamed() throws {
        let logits = try OpsTensor(.float32, [1, 50])
        let history = try OpsTensor(.int32, [4])
        let mask = try OpsTensor(.int32, [1, 1])
        func check(_ row: AdjustLogitsOperation.Row, mask: TensorView? = nil, biases: TensorView? = nil) {
            #expect(throws: FlashInferError.self) {
                try AdjustLogitsOperation(
                    logits: logits.view, rows: [row], history: history.view, biasTokens: nil, biases: biases,
                    mask: mask
                ).validate()
            }
        }
        check(.init(repetition: 0))
        check(.init(presence: .nan))
        check(.init(frequency: .infinity))
        check(.init(output: 0..<5))
        check(.init(prompt: -1..<2))
        check(.init(bias: 0..<1))
        check(.init(), mask: mask.view)
        check(.init(), biases: logits.view)
    }
}
