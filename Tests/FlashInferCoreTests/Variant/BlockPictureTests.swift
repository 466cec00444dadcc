import FlashInferCore
import Testing

/// Pictures of masks.
@Suite struct BlockPictureTests {
    @Test func causal() throws {
        let picture = try AttentionVariant("causal", mask: .causal).explain(
            .contiguous(queryLength: 512, kvLength: 512))
        #expect(
            "\(picture)" == """
                causal: 37.5 % skipped, 37.5 % without a mask
                ▒···
                ■▒··
                ■■▒·
                ■■■▒

                """)
        #expect(picture.skippedFraction == 0.375)
        #expect(
            picture.pgm == Array("P5\n4 4\n255\n".utf8) + [
                128, 0, 0, 0, 255, 128, 0, 0, 255, 255, 128, 0, 255, 255, 255, 128,
            ])
    }

    @Test func documents() throws {
        let ids = Parameter<Int32>("ids", .perPosition)
        let variant = AttentionVariant("documents", mask: .documents(ids))
        let geometry = try BatchGeometry.contiguous(queryLength: 8, kvLength: 8)
        let picture = try variant.explain(
            geometry, parameters: ["ids": [0, 0, 0, 0, 1, 1, 2, 2]], block: (queries: 2, keys: 2))
        #expect("\(picture)".hasSuffix("■■··\n■■··\n··■·\n···■\n"))
        // Nothing is known without the elements.
        #expect(try variant.explain(geometry, block: (queries: 2, keys: 2)).skippedFraction == 0)
    }

    @Test func mistakes() throws {
        let geometry = try BatchGeometry.contiguous(queryLength: 8, kvLength: 8)
        #expect(throws: FlashInferError.self) { try AttentionVariant.causal.explain(geometry, request: 1) }
        #expect(throws: FlashInferError.self) { try AttentionVariant.causal.explain(geometry, head: 1) }
        #expect(throws: FlashInferError.self) { try AttentionVariant.causal.explain(geometry, block: (0, 4)) }
        #expect(try AttentionVariant.causal.explain(.contiguous(queryLength: 0, kvLength: 3)).skippedFraction == 0)
    }
}
