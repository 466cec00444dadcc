import FlashInferCore
import Testing

/// Misuse is an error that names the variant and where it was written.
@Suite struct VariantErrorTests {
    private func problem(
        _ variant: AttentionVariant, parameters: [String: ParameterValue] = [:]
    ) throws -> AttentionProblem {
        try AttentionProblem(
            geometry: .ragged(queryIndptr: [0, 2, 5], kvIndptr: [0, 10, 30]),
            shape: AttentionShape(queryHeads: 4, kvHeads: 2, headDimQK: 64), variant: variant, queryType: .float32,
            kvType: .float32, parameters: parameters)
    }

    private func message(_ variant: AttentionVariant, parameters: [String: ParameterValue] = [:]) -> String {
        do {
            _ = try problem(variant, parameters: parameters)
            return "no error"
        } catch {
            return "\(error)"
        }
    }

    @Test func masksThatHideEverything() {
        for mask: Mask in [
            .causal && !.causal, .causal && .window(left: -1), .window(left: 2) && !.window(left: 5), !.none,
            Mask { _ in false },
        ] {
            let text = message(AttentionVariant("blind", mask: mask))
            #expect(text.contains("variant 'blind': mask"), "\(text)")
            #expect(text.contains("hides every key"), "\(text)")
        }
        let line = #line + 2
        for mask: Mask in [
            Mask { _ in false }, .window(left: -1) && .causal, .causal && .window(left: -1, right: -5),
        ] {
            let text = message(AttentionVariant("blind", mask: mask))
            #expect(text.contains("VariantErrorTests.swift:\(line)"), "\(text)")
        }
        // Where only constants were put together there is no place to name.
        #expect(!message(AttentionVariant("blind", mask: !.none)).contains(".swift"))
    }

    @Test func constantsThatAreNoNumbers() {
        #expect(message(AttentionVariant("n") { score, _ in score + Expr(Float.nan) }).contains("variant 'n': logits"))
        // 0 / 0 among constants.
        #expect(message(AttentionVariant("n") { score, _ in score + Expr<Float>(0) / Expr(0) }).contains("NaN"))
        #expect(message(AttentionVariant("n", logits: .softCap(.nan))).contains("n"))
        #expect(message(AttentionVariant("n", sink: .logit(.nan))).contains("sink"))
    }

    @Test func hooksOfValuesAndState() {
        func text(_ value: Values = .plain, _ sink: Sink = .none, _ normalizer: Normalizer = .plain) -> String {
            message(AttentionVariant("v", value: value, sink: sink, normalizer: normalizer))
        }
        #expect(text(Values { value, at in value * at.head.float }).contains("value"))
        #expect(text(Values { value, at in value * at.head.float }).contains("a use of head"))
        #expect(text(Values { value, at in value * at.queryPosition.float }).contains("a use of queryPosition"))
        let line = #line + 1
        #expect(text(.plain, .computed { at in at.keyPosition.float }).contains("VariantErrorTests.swift:\(line)"))
        #expect(text(.plain, .computed { at in at.keyPosition.float }).contains("a use of keyPosition"))
        #expect(text(.plain, .none, Normalizer { sum, at in sum + at.keyPosition.float }).contains("normalizer"))
        #expect(text(.plain, .initial { at in (Expr(0), Expr(2)) }) == "no error")
        let own = AttentionVariant("w", weights: .sigmoid, normalizer: Normalizer { sum, _ in sum * 2 })
        #expect(message(own).contains("only the softmax has a sum"))
        #expect(Sink.computed { _ in 0.5 } == .logit(0.5))
    }

    @Test func parameters() {
        let ids = Parameter<Int32>("ids", .perPosition)
        let variant = AttentionVariant("docs", mask: .documents(ids))
        #expect(message(variant, parameters: ["id": [0]]).contains("one of 'ids'"))
        #expect(message(variant, parameters: ["ids": ParameterValue([Float(1)])]).contains("int32"))
        #expect(message(variant, parameters: ["ids": [1, 2, 3]]).contains("2 × 20"))
        #expect(message(variant, parameters: ["ids": ParameterValue([Int32](repeating: 0, count: 40))]) == "no error")
        let lengths = Parameter<Int32>("n", .perRequest)
        let prefix = AttentionVariant("p", mask: .prefix(lengths))
        #expect(message(prefix, parameters: ["n": [1, 2, 3]]).contains("length 3"))
        #expect(message(.causal, parameters: ["n": [1]]).contains("left out"))
        let twice = AttentionVariant(
            "twice", mask: .prefix(lengths) && .documents(Parameter<Int32>("n", .perPosition)))
        #expect(message(twice).contains("declared once"))
        let builtIn = AttentionVariant("b") { score, at in score + Parameter<Float>("sinks", .perRequest)[at.request] }
        #expect(message(builtIn).contains("built in"))
    }

    @Test func hooksOfOneRowKnowNothingOfTheOthers() {
        let query = message(AttentionVariant("q", query: Scaling { at in at.keyPosition.float }))
        #expect(query.contains("variant 'q': query") && query.contains("a use of keyPosition"), "\(query)")
        let key = message(AttentionVariant("k", key: Scaling { at in 1 + at.queryPosition.float }))
        #expect(key.contains("variant 'k': key") && key.contains("without head, queryIndex, queryPosition"), "\(key)")
        let output = message(AttentionVariant("o", output: Output { value, at in value * at.keyPosition.float }))
        #expect(output.contains("variant 'o': output"), "\(output)")
        let marked = Output { value, _ in select(Mask.custom.expression, value, 0) }
        #expect(message(AttentionVariant("o", output: marked)).contains("the run's mask"))
        // What changes nothing is nothing.
        #expect(AttentionVariant("o", output: Output { value, _ in value }) == AttentionVariant("plain"))
        #expect(AttentionVariant("o", query: Scaling { _ in 2 }) != AttentionVariant("plain"))
    }

    @Test func hooksThatDoNotGoTogether() {
        #expect(message(AttentionVariant("s", weights: .sigmoid, sink: .perHead)).contains("no sink"))
    }
}
