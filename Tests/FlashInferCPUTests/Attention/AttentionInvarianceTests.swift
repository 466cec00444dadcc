import FlashInferCPU
import FlashInferCore
import TestSupport
import Testing

/// Results that must be equal bit for bit.
@Suite struct AttentionInvarianceTests {
    /// One request's result next to no neighbours and next to many, on one processor and on several.
    @Test(arguments: [AttentionCase.Feature.causal, .causalWindow, .window], AttentionCase.types.indices)
    func neighboursChangeNothing(_ feature: AttentionCase.Feature, _ types: Int) throws {
        let (q, kv) = AttentionCase.types[types]
        let mode = Planner.Mode.batchInvariant(splitSize: 128)
        for device in AttentionConformanceTests.devices {
            for length in [(1, 300), (3, 290), (70, 333)] {
                var test = AttentionCase(queryType: q, cacheType: kv, feature: feature, dimQK: 40, lengths: [length])
                let alone = try AttentionFixture(test).run(on: device, mode: mode, processors: 1)
                test.lengths += [(5, 17), (0, 3), (1, 700)]
                let together = try AttentionFixture(test).run(on: device, mode: mode, processors: 3)
                #expect(alone.output == Array(together.output.prefix(alone.output.count)))
                #expect(alone.logSumExp == Array(together.logSumExp.prefix(alone.logSumExp.count)))
            }
        }
    }

    /// A row is the same whichever tile it falls in: the second half of a prompt as part of the whole, and cut by the planner.
    @Test func rowsDoNotDependOnTheirTile() throws {
        for device in AttentionConformanceTests.devices {
            for feature in [AttentionCase.Feature.causal, .causalWindow, .cap] {
                let test = AttentionCase(
                    queryType: .bfloat16, cacheType: .bfloat16, feature: feature, dimQK: 64, group: 3,
                    lengths: [(150, 400)])
                let fixture = try AttentionFixture(test)
                let whole = try fixture.run(on: device, mode: .batchInvariant(splitSize: 256), processors: 1)
                for rows in [32, 48, 100] {
                    let cut = try fixture.run(
                        on: device, mode: .batchInvariant(splitSize: 256), processors: 2, queryRows: rows)
                    #expect(whole == cut, "\(device.name) \(feature) rows \(rows)")
                }
            }
        }
    }

    /// Runs repeat exactly, whichever thread took which item.
    @Test func runsRepeat() throws {
        let test = AttentionCase(queryType: .bfloat16, cacheType: .bfloat16, lengths: [(1, 1500), (40, 700), (2, 30)])
        let fixture = try AttentionFixture(test)
        for device in AttentionConformanceTests.devices {
            let first = try fixture.run(on: device, processors: 4)
            for _ in 0..<5 { #expect(try fixture.run(on: device, processors: 4) == first) }
        }
    }
}
