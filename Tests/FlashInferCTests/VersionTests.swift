import CFlashInfer
import FlashInferC
import Testing

@Suite struct VersionTests {
    @Test func textAndNumberAgree() throws {
        let text = String(cString: try #require(fi_version_string()))
        let parts = text.split(separator: ".").compactMap { UInt32($0) }
        #expect(parts.count == 3)
        #expect(fi_version() == parts[0] * 10_000 + parts[1] * 100 + parts[2])
    }
}
