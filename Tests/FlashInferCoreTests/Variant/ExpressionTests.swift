import FlashInferCore
import TestSupport
import Testing

/// Expressions: what they simplify to, how they read, and that equal ones are equal.
@Suite struct ExpressionTests {
    private func int(_ body: (Site) -> Expr<Int32>) -> Expr<Int32> {
        var result: Expr<Int32> = 0
        _ = Mask { at in
            result = body(at)
            return true
        }
        return result
    }

    @Test func text() {
        let gemma = Logits.softCap(50)
        #expect(gemma.description == "tanh(score / 50.0) * 50.0")
        let mask: Mask = .causal && (.window(left: 4095) || .prefix(4))
        #expect(
            mask.description
                == "(keyPosition <= queryPosition) && (((queryPosition - keyPosition) <= 4095) || (keyPosition < 4))")
        let shared = int { at in
            let distance = at.queryPosition - at.keyPosition
            return distance * distance + distance
        }
        #expect(shared.description == "t0 = queryPosition - keyPosition\n(t0 * t0) + t0")
        let bias = Parameter<Float>("bias", .perHeadTable(count: 8))
        let loaded = Logits { score, at in score + bias[at.head, at.keyPosition] }
        #expect(loaded.description == "score + bias[head, keyPosition]")
    }

    @Test func constantsFold() {
        #expect(int { _ in 3 + 4 * Expr(5) } == Expr<Int32>(23))
        #expect(int { _ in Expr(7) / 0 } == Expr<Int32>(0))
        #expect(int { _ in Expr(7) % 0 } == Expr<Int32>(7))
        #expect(int { _ in Expr<Int32>(Int32.min) / -1 } == Expr<Int32>(Int32.min))
        #expect(int { _ in Expr<Int32>(Int32.max) + 1 } == Expr<Int32>(Int32.min))
        #expect(int { _ in (Expr<Float>(1e20)).int } == Expr<Int32>(Int32.max))
        #expect(int { at in select(Expr<Int32>(1) < 2, at.head, at.request) } == int { $0.head })
        #expect((Mask.none && .causal) == .causal)
        #expect((Mask.causal || .none) == Mask.none)
        #expect(!(!Mask.causal) == .causal)
    }

    @Test func identities() {
        #expect(int { $0.head + 0 } == int { $0.head })
        #expect(int { 1 * $0.head } == int { $0.head })
        #expect(int { $0.head - $0.head } == Expr<Int32>(0))
        #expect(int { max($0.head, $0.head) } == int { $0.head })
        #expect(int { 0 * $0.head } == Expr<Int32>(0))
        // Of floating point only what holds for every number.
        #expect(Logits { score, _ in score * 0 } != Logits { _, _ in 0 })
        #expect(Logits { score, _ in score * 1 } == .plain)
        #expect(Logits { score, _ in score * 1 }.hashValue == Logits.plain.hashValue)
    }

    @Test func equalityIsOfTerms() {
        // Terms that were built on the way and are not needed do not count, nor does the order in which they were.
        let a = Mask { at in
            _ = at.head * 3
            return at.keyPosition <= at.queryPosition
        }
        #expect(a == .causal)
        #expect(a.hashValue == Mask.causal.hashValue)
        #expect(Mask { at in at.queryPosition >= at.keyPosition } == .causal)
        #expect(AttentionVariant("a", mask: .causal) == AttentionVariant("b", mask: .causal))
        #expect(AttentionVariant("a", mask: .causal) == .causal)
        #expect(AttentionVariant("a", mask: .causal, scale: 2) != .causal)
    }

    @Test func longSumsAreNoProblem() {
        let sum = int { at in (0..<400).reduce(Expr<Int32>(0)) { $0 + at.head * Expr($1) } }
        #expect(sum.description.utf8.count > 400)
    }
}
