import FlashInferCore
import TestSupport
import Testing

struct SHA256Tests {
    private func hash(_ bytes: [UInt8]) -> String {
        var hash = SHA256()
        bytes.withUnsafeBytes { hash.update($0) }
        return hash.finish()
    }

    /// The examples of FIPS 180-4 and its companion documents.
    @Test(arguments: [
        ("", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
        ("abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
        (
            "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"
        ),
        (
            String(repeating: "a", count: 1_000_000),
            "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"
        ),
    ])
    func hashesTheExamples(text: String, expected: String) {
        #expect(hash(Array(text.utf8)) == expected)
    }

    @Test func doesNotDependOnThePieces() {
        let bytes = (0..<300).map { UInt8(truncatingIfNeeded: $0 * 7) }
        for length in 0...300 {
            let whole = hash(Array(bytes.prefix(length)))
            for step in [1, 63, 64, 65, 128] {
                var pieces = SHA256()
                for start in stride(from: 0, to: length, by: step) {
                    Array(bytes[start..<min(start + step, length)]).withUnsafeBytes { pieces.update($0) }
                }
                #expect(pieces.finish() == whole)
            }
        }
    }
}
