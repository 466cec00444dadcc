import FlashInferCPU
import FlashInferCore
import TestSupport
import Testing

@Suite struct TopKTests {
    /// The places of the k greatest, by definition.
    static func places(_ x: [Double], _ k: Int, isSorted: Bool) -> [Int] {
        let order = x.indices.sorted { a, b in
            if x[a].isNaN || x[b].isNaN { return x[a].isNaN && (!x[b].isNaN || a < b) }
            return x[a] != x[b] ? x[a] > x[b] : a < b
        }
        return isSorted ? Array(order[..<k]) : order[..<k].sorted()
    }

    @Test(arguments: instructionSets, DType.computeType)
    func theGreatestWithTheirPlaces(set: InstructionSet, dtype: DType) throws {
        let ops = makeOps(set)
        var random = OpsRandom(81)
        for width in [1, 2, 16, 111, 128, 129, 1_000, 5_003] {
            for kind in 0..<4 {
                var values = (0..<2 * width).map { _ in
                    kind == 0
                        ? random.normal()
                        : kind == 1 ? (random.uniform() * 4).rounded(.down) - 2 : kind == 2 ? 1 : random.normal() * 1e-3
                }
                if width > 20, kind == 0 {
                    (values[3], values[4], values[17]) = (-.infinity, .infinity, .nan)
                    (values[width + 5], values[width + 6]) = (0, -0.0)
                }
                let input = try OpsTensor(dtype, [2, width], padding: 3, lead: 1, values: values)
                for k in Set([1, 2, 7, 50, width / 2, width - 1, width]) where k >= 1 && k <= width {
                    for isSorted in [true, false] {
                        let found = try OpsTensor(dtype, [2, k], padding: 1)
                        let places = try OpsTensor(.int32, [2, k], padding: 2)
                        let operation = TopKOperation(
                            input: input.view, values: found.view, places: places.view, isSorted: isSorted)
                        try operation.validate()
                        ops.execute(operation)
                        for row in 0..<2 {
                            let x = Array(input.values[row * width..<(row + 1) * width])
                            let expected = Self.places(x, k, isSorted: isSorted)
                            #expect(places.values[row * k..<(row + 1) * k].map { Int($0) } == expected)
                            #expect(
                                (0..<k).allSatisfy {
                                    found.bits(row * k + $0) == input.bits(row * width + expected[$0])
                                })
                        }
                        #expect(found.paddingIsIntact && places.paddingIsIntact)
                    }
                }
            }
        }
    }

    @Test(arguments: instructionSets)
    func logProbabilities(set: InstructionSet) throws {
        let ops = makeOps(set)
        var random = OpsRandom(82)
        for dtype in DType.computeType {
            for width in [5, 111, 3_000] {
                let logits = try OpsTensor(dtype, [3, width], values: random.normals(3 * width, scale: 3))
                logits[width] = .nan
                let values = try OpsTensor(.float32, [3, 5])
                let tokens = try OpsTensor(.int32, [3, 5])
                let status = try OpsTensor(.uint8, [3])
                let operation = TopKOperation(
                    logits: logits.view, logProbabilities: values.view, tokens: tokens.view, status: status.view,
                    temperature: 0.5)
                try operation.validate()
                ops.execute(operation)
                #expect(status.values == [0, 1, 0])
                for row in 0..<3 {
                    let found = values.values[5 * row..<5 * row + 5]
                    if row == 1 {
                        #expect(found.allSatisfy(\.isNaN) && tokens.values[5..<10].allSatisfy { $0 == -1 })
                        continue
                    }
                    let x = logits.values[row * width..<(row + 1) * width].map { $0 / 0.5 }
                    let top = x.max() ?? 0
                    let sum = ElementaryFunctions.log(x.reduce(0) { $0 + ElementaryFunctions.exp($1 - top) })
                    let places = Self.places(x, 5, isSorted: true)
                    #expect(tokens.values[5 * row..<5 * row + 5].map { Int($0) } == places)
                    for (value, place) in zip(found, places) {
                        #expect(abs(value - (x[place] - top - sum)) <= 1e-6 * max(1, abs(value)))
                    }
                }
            }
        }
    }

    @Test func largeVocabularies() throws {
        let ops = makeOps(.detected)
        var random = OpsRandom(83)
        let width = 128_256
        let input = try OpsTensor(.float32, [1, width], values: (0..<width).map { _ in random.uniform() })
        for k in [50, 2_048, width] {
            let (values, places) = (try OpsTensor(.float32, [1, k]), try OpsTensor(.int32, [1, k]))
            ops.execute(TopKOperation(input: input.view, values: values.view, places: places.view))
            #expect(places.values.map { Int($0) } == Self.places(input.values, k, isSorted: true))
        }
    }

    @Test func badArgumentsAreNamed() throws {
        let x = try OpsTensor(.float32, [2, 8])
        let places = try OpsTensor(.int32, [2, 9])
        let values = try OpsTensor(.float32, [2, 9])
        let half = try OpsTensor(.float16, [2, 8])
        let status = try OpsTensor(.uint8, [2])
        for operation in [
            TopKOperation(input: x.view, values: values.view, places: places.view),
            TopKOperation(input: x.view, values: half.view, places: places.view),
            TopKOperation(input: x.view, values: x.view, places: places.view),
            TopKOperation(
                logits: x.view, logProbabilities: values.view, tokens: places.view, status: status.view,
                temperature: 0),
        ] {
            #expect(throws: FlashInferError.self) { try operation.validate() }
        }
    }
}
