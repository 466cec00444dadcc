import FlashInferEngine
import Foundation
import Testing

/// A tool as a test: compares this tokenizer with ids made elsewhere (see Scripts/check-tokenizer.py).
struct TokenizerCasesTests {
    private static let environment = ProcessInfo.processInfo.environment

    @Test(
        .enabled(
            if: environment["FLASHINFER_TOKENIZER_CASES"] != nil && environment["FLASHINFER_TOKENIZER"] != nil,
            "needs a tokenizer and cases, which Scripts/check-tokenizer.py makes"))
    func idsAreThoseOfTheCases() throws {
        func read(_ key: String) throws -> [UInt8] {
            try [UInt8](Data(contentsOf: URL(filePath: Self.environment[key] ?? "")))
        }
        let tokenizer = try TokenizerFixtures.tokenizer(read("FLASHINFER_TOKENIZER"))
        let cases = try TokenizerFixtures.cases(read("FLASHINFER_TOKENIZER_CASES"))
        var different = 0
        for item in cases {
            let ids = try tokenizer.encode(
                item.text, addSpecialTokens: item.addsSpecial, parseSpecialTokens: item.parsesSpecial)
            if ids != item.ids {
                different += 1
                if different <= 10 {
                    Issue.record("\(item.text.debugDescription): expected \(item.ids), got \(ids)")
                }
            }
        }
        print("\(cases.count) cases, \(different) different")
        #expect(different == 0)
    }
}
