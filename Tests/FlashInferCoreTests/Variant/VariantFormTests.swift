import FlashInferCore
import TestSupport
import Testing

/// What variants come to in terms of the hand-written kernels, whichever way they are written.
@Suite struct VariantFormTests {
    @Test func optionsAreReadBack() {
        let variant = AttentionVariant(
            mask: .causal, windowLeft: 20, logitsSoftCap: 3, scale: 0.2, positionEncoding: .rope(RoPEParameters()),
            hasSinks: true)
        #expect(variant.form.isFused)
        #expect(variant.form.mask == .causal)
        #expect(variant.windowLeft == 20)
        #expect(variant.logitsSoftCap == 3)
        #expect(variant.scale == 0.2)
        #expect(variant.positionEncoding == .rope(RoPEParameters()))
        #expect(variant.hasSinks)
        #expect(AttentionVariant(positionEncoding: .alibi).positionEncoding == .alibi)
        #expect(AttentionVariant(logitsSoftCap: 1).logitsSoftCap == 1)
        #expect(AttentionVariant(mask: .customPacked, windowLeft: 3).form.mask == .customPacked)
    }

    @Test func windowsAreReplaced() {
        var variant = AttentionVariant(mask: .causal, windowLeft: 20)
        variant.windowLeft = 7
        #expect(variant == AttentionVariant(mask: .causal, windowLeft: 7))
        variant.windowLeft = nil
        #expect(variant == .causal)
        #expect(AttentionVariant(windowLeft: .max) == .full)
    }

    /// Any inequality that says the same.
    @Test func waysToWriteCausalAndWindow() {
        let causal: [Mask] = [
            Mask { $0.keyPosition <= $0.queryPosition }, Mask { $0.queryPosition >= $0.keyPosition },
            Mask { $0.keyPosition < $0.queryPosition + 1 }, Mask { !($0.keyPosition > $0.queryPosition) },
            Mask { 0 <= $0.queryPosition - $0.keyPosition }, Mask { $0.keyPosition - $0.queryPosition < 1 },
        ]
        for mask in causal {
            let form = AttentionVariant("a", mask: mask).form
            #expect(form.isFused && form.mask == .causal, "\(mask)")
        }
        let window: [Mask] = [
            .window(left: 9), Mask { $0.keyPosition >= $0.queryPosition - 9 },
            Mask { $0.keyPosition + 10 > $0.queryPosition },
            Mask { !($0.queryPosition - $0.keyPosition > 9) }, .window(left: 9) && .window(left: 12),
        ]
        for mask in window {
            let form = AttentionVariant("a", mask: mask && .causal).form
            #expect(form.isFused && form.mask == .causal && form.windowLeft == 9, "\(mask)")
        }
    }

    @Test func whatIsLeftOver() {
        let documents = Parameter<Int32>("documents", .perPosition)
        let form = AttentionVariant(
            "a", mask: .causal && .window(left: 99) && .documents(documents) && .prefix(1000), logits: .softCap(30)
        ).form
        #expect(!form.isFused)
        #expect(form.mask == .causal && form.windowLeft == 99 && form.softCap == 30)
        #expect(form.logits == nil && form.weights == nil)
        #expect(
            form.restOfMask?.description
                == "(documents[queryPosition] == documents[keyPosition]) && (keyPosition < 1000)")
        #expect(form.parameters == [documents.declaration])
        // A disjunction is no window, whatever is in it.
        #expect(AttentionVariant("a", mask: .causal || .window(left: 3)).form.windowLeft == nil)
        #expect(AttentionVariant("a", mask: .custom && .causal).form.mask == .custom)
        #expect(AttentionVariant("a", mask: .custom && .causal).form.restOfMask == Mask.causal.expression.graph)
        #expect(!AttentionVariant("a", weights: .sigmoid).form.isFused)
    }

    /// Blocks take neighbouring tiles by twos where those begin at the same key, whatever tensors say.
    @Test func whichMasksReachTheFirstKey() {
        let tensor = Parameter<Int32>("tensor", .perPosition)
        let lengths = Parameter<Int32>("lengths", .perRequest)
        func reaches(_ mask: Mask) -> Bool { AttentionVariant("a", mask: mask).form.restMayReachFirstKey }
        for mask: Mask in [
            .none, .causal, .prefix(lengths), .causal || .prefix(lengths), .strided(3), .tree(ancestors: tensor),
            .causal && .documents(tensor), .items(prompt: lengths, item: tensor), Mask { $0.keyPosition % 3 == 1 },
            // The first half of the heads see all, the others a window.
            .causal && (Mask { $0.head < 8 } || .window(left: 99)),
            .causal && Mask { $0.keyLength * $0.keyLength >= 0 },
        ] { #expect(reaches(mask), "\(mask)") }
        for mask: Mask in [
            .causal && (.window(left: 1023) || .prefix(4)), .blockDiagonal(64), !.causal,
            Mask { abs($0.queryPosition - $0.keyPosition) <= 128 }, Mask { $0.keyPosition > 7 },
            Mask { ($0.queryPosition - $0.keyPosition).float < 900 },
        ] { #expect(!reaches(mask), "\(mask)") }
        // A window that is one is no part of the rest.
        #expect(reaches(.causal && .window(left: 99)))
    }

    /// Each built-in against its plain definition.
    @Test func definitions() {
        typealias Rule = (_ q: Int, _ k: Int) -> Bool
        let rules: [(Mask, Rule)] = [
            (.none, { _, _ in true }), (.causal, { $1 <= $0 }), (.window(left: 3), { $1 >= $0 - 3 }),
            (.window(left: 2, right: 1), { $1 >= $0 - 2 && $1 <= $0 + 1 }), (.prefix(4), { $1 < 4 }),
            (.strided(3), { ($0 - $1) % 3 == 0 }), (.blockDiagonal(4), { $0 / 4 == $1 / 4 }),
            (.causal && (.window(left: 2) || .prefix(1)), { $1 <= $0 && ($0 - $1 <= 2 || $1 < 1) }),
            (!.causal, { $1 > $0 }),
        ]
        for (mask, rule) in rules {
            let oracle = ExprOracle(mask.expression.graph)
            for query in 0..<12 {
                for key in 0..<14 {
                    var site = OracleSite()
                    (site.queryPosition, site.keyPosition) = (query, key)
                    #expect(oracle(site).bool == rule(query, key), "\(mask) at \(query), \(key)")
                }
            }
        }
    }
}
