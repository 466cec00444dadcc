internal import FlashInferCore

/// The CUDA C++ of what of a variant no kernel was written for: what `portable/attention_scores.cuh` calls for each row and each score,
/// a line for each term.
///
/// Terms that depend on the row alone are members of `VariantRow`, computed once a row; the others are computed for each score. Hooks
/// are preceded by `#line` with the place in Swift where they were written, so that a compiler's message names it.
package struct VariantText: Hashable, Sendable {
    /// The name that kernels include it by.
    package static let file = "fi_variant.cuh"

    /// The text.
    package let text: String

    /// The same for a frame: a kernel for all variants of this one's kind, into which this one's machine-independent code is put; nil
    /// where a variant changes more than scores, and where it keeps more terms of a row than a frame has room for.
    package let splice: VariantSplice?

    /// Tensors that a kernel can be given.
    package static let maximumParameters = 16

    /// The text of a variant's hooks that are left over: of its mask besides causality, window and the run's own.
    package init(_ variant: AttentionVariant) {
        let form = variant.form
        // Scores that the kernels have words for are finished before.
        let hasLogits = form.logits != nil || form.weights != nil
        let score = Logits.plain.expression.graph
        let mask = form.restOfMask ?? .constant(true)
        let row = "const fi_attention_params &p, const VariantRow &at"
        let zero = ExprGraph.constant(Float(0))
        let hooks = [
            VariantHook(
                "logit", "float variant_logit(\(row), float score, int key, int position)",
                hasLogits ? variant.scaledLogits : score, variant.logits.place, form.parameters),
            VariantHook(
                "weight", "float variant_weight(\(row), float score, int key, int position)", form.weights ?? score,
                variant.weights.place, form.parameters),
            VariantHook(
                "shows", "bool variant_shows(\(row), int key, int position)", mask, variant.mask.place, form.parameters),
            VariantHook(
                "sink", "float variant_sink(\(row))", form.sink ?? zero, variant.sink.place, form.parameters),
            VariantHook(
                "sum", "float variant_sum(\(row), float score)", form.normalizer ?? score, variant.normalizer.place,
                form.parameters),
            VariantHook(
                "output", "float variant_output(\(row), float score)", form.output ?? score, variant.output.place,
                form.parameters),
        ]
        let value = VariantHook(
            "value",
            "float variant_value(const fi_attention_params &p, const VariantKey &at, float score, int position)",
            form.valueFactor ?? form.values ?? score, variant.value.place, form.parameters, isOfKeys: true)
        let valueHook = form.valueFactor != nil ? "factor" : form.values != nil ? "element" : "none"
        let hides = !mask.isConstant(true)
        let bits = hides ? KeyBits(mask, hooks[2]) : nil
        let readsKeys = hooks.contains { $0.readsKeys }
        let head = """
            #pragma once
            constexpr bool normalises = \(form.weights == nil), changes_output = \(form.output != nil);
            constexpr bool computes_sink = \(form.sink != nil), changes_sum = \(form.normalizer != nil);
            constexpr ValueHook value_hook = ValueHook::\(valueHook);
            constexpr bool hides_keys = \(hides), hides_by_words = \(bits != nil), reads_keys = \(readsKeys);

            """
        let members = hooks.flatMap(\.members)
        func body(_ rowsOwn: String) -> String {
            var text = "struct VariantRow : VariantSite {\n"
            for member in members { text += "    \(member.type) \(member.name);\n" }
            text += """
                    __device__ __forceinline__ VariantRow(const fi_attention_params &p, const Item &item, int query_row, int query_head)
                        : VariantSite(p, item, query_row, query_head) {
                        const VariantRow &at = *this;

                """
            for line in hooks.flatMap(\.rowLines) { text += line + "\n" }
            text += "    }\n\(rowsOwn)};\nstruct VariantKey : VariantKeySite {\n"
            for member in value.members { text += "    \(member.type) \(member.name);\n" }
            text += """
                    __device__ __forceinline__ VariantKey(const fi_attention_params &p, const Item &item, int position) : VariantKeySite(item) {
                        const VariantKey &at = *this;

                """
            for line in value.rowLines { text += line + "\n" }
            text += "    }\n};\n"
            for hook in hooks + [value] { text += hook.function }
            text += """
                FI_DEVICE uint32 variant_bits(\(row), int first_key, int quad) { return \(bits?.text ?? "0"); }
                FI_DEVICE bool variant_may_hide(const fi_attention_params &p, const Item &item, int warp_row, int first_key) {
                    const VariantBlock at(p, item, warp_row, first_key);
                    return !(\(BlockTest(mask).text));
                }

                """
            return text
        }
        text = head + body("")
        // What ends rows, and what changes values, is outside of the loop over scores, in functions of its own.
        let changesScoresOnly =
            form.sink == nil && form.normalizer == nil && form.output == nil && form.values == nil
            && form.valueFactor == nil
        guard changesScoresOnly, members.count <= VariantSplice.keptTerms else {
            splice = nil
            return
        }
        splice = VariantSplice(
            head: head, changesLogits: hasLogits, weighs: form.weights != nil,
            hides: hides, hidesByWords: bits != nil, parts: head + body(VariantSplice.rowFunctions(members)))
    }
}

/// One hook as C++: its terms a row, or a key for values, and the function of its terms a score.
private struct VariantHook {
    /// Declarations of the terms that depend on the row (or the key) alone, and the lines that compute them.
    private(set) var members: [(type: String, name: String)] = []
    private(set) var rowLines: [String] = []
    private(set) var function = ""
    /// Whether elements of tensors are read for each score.
    private(set) var readsKeys = false
    /// What each term is called, and whether it depends on the row alone.
    private(set) var names: [String] = []
    private(set) var areRows: [Bool] = []

    init(
        _ prefix: String, _ head: String, _ graph: ExprGraph, _ place: SourcePlace,
        _ parameters: [ParameterDeclaration], isOfKeys: Bool = false
    ) {
        // A file may be a variant's name from JSON, with anything in it: it must not end its string or its line.
        let file = place.file.filter { $0 != "\"" && $0 != "\\" && !$0.isNewline && $0 != "\0" }
        // The same line again and again: all of a hook's terms were written at one place.
        let line = "#line \(place.line) \"\(file)\""
        var lines = ["FI_DEVICE \(head) {"]
        for (index, node) in graph.nodes.enumerated() {
            let isRow =
                node.operation != .score && (isOfKeys || !node.field(is: .keyPosition))
                && !(node.operation == .load && node.operands.isEmpty) && node.operands.allSatisfy { areRows[$0] }
            areRows.append(isRow)
            if let name = Self.name(node) {
                names.append(name)
                continue
            }
            let value = Self.term(node, node.operands.map { names[$0] }, graph, parameters)
            if isRow {
                members.append((Self.type(node.type), "\(prefix)\(index)"))
                rowLines += [line, "        \(prefix)\(index) = \(value);"]
                names.append("at.\(prefix)\(index)")
            } else {
                lines += [line, "    const \(Self.type(node.type)) t\(index) = \(value);"]
                names.append("t\(index)")
                readsKeys = readsKeys || node.operation == .load
            }
        }
        lines.append("    return \(names[graph.root]);")
        lines.append("}")
        function = lines.joined(separator: "\n") + "\n"
    }

    private static func type(_ type: ExprType) -> String {
        switch type {
        case .float: "float"
        case .int: "int"
        case .bool: "bool"
        }
    }

    /// What is written as it is; `nil` for terms that have a line.
    private static func name(_ node: ExprGraph.Node) -> String? {
        switch node.operation {
        case .constant: constant(node)
        case .score: "score"
        case .site:
            switch node.field ?? .request {
            case .request: "at.request"
            case .head: "at.head"
            case .kvHead: "at.kv_head"
            case .queryIndex: "at.query_index"
            case .queryPosition: "at.query_position"
            case .keyPosition: "position"
            case .queryLength: "at.query_length"
            case .keyLength: "at.key_length"
            }
        default: nil
        }
    }

    private static func constant(_ node: ExprGraph.Node) -> String {
        switch node.type {
        case .int: node.int == .min ? "(-2147483647 - 1)" : node.int < 0 ? "(\(node.int))" : "\(node.int)"
        case .bool: "\(node.bool)"
        case .float:
            node.float.isFinite
                ? (node.float < 0 ? "(\(node.float)f)" : "\(node.float)f")
                : "__int_as_float(0x\(String(node.payload, radix: 16)))"
        }
    }

    private static func term(
        _ node: ExprGraph.Node, _ operands: [String], _ graph: ExprGraph, _ parameters: [ParameterDeclaration]
    ) -> String {
        let isFloat = node.operands.first.map { graph.nodes[$0].type == .float } ?? false
        func call(_ name: String) -> String { "\(name)(\(operands.joined(separator: ", ")))" }
        func infix(_ symbol: String) -> String { "\(operands[0]) \(symbol) \(operands[1])" }
        switch node.operation {
        case .add: return isFloat ? infix("+") : call("wrap_add")
        case .subtract: return isFloat ? infix("-") : call("wrap_sub")
        case .multiply: return isFloat ? infix("*") : call("wrap_mul")
        case .divide:
            guard isFloat else { return call("quotient") }
            let divisor = graph.nodes[Int(node.b)]
            // One more rounding, and a tenth of the instructions.
            guard divisor.operation == .constant, (1 / divisor.float).isNormal else { return infix("/") }
            return "\(operands[0]) * \(constant(.init(.constant, .float, payload: (1 / divisor.float).bitPattern)))"
        case .remainder: return call("remainder")
        case .minimum: return call(isFloat ? "fminf" : "min")
        case .maximum: return call(isFloat ? "fmaxf" : "max")
        case .negate: return isFloat ? "-\(operands[0])" : "wrap_sub(0, \(operands[0]))"
        case .absolute: return call(isFloat ? "fabsf" : "wrap_abs")
        case .exp: return call("expf")
        case .exp2: return call("exp2f")
        case .log: return call("logf")
        case .log2: return call("log2f")
        case .tanh: return call("tanh_by_exp")
        case .sigmoid: return call("sigmoid")
        case .sqrt: return call("sqrtf")
        case .floor: return call("floorf")
        case .sin: return call("variant_sin")
        case .cos: return call("variant_cos")
        case .less: return infix("<")
        case .lessEqual: return infix("<=")
        case .equal: return infix("==")
        // All of a condition is computed, so that reads do not wait for branches.
        case .and: return infix("&")
        case .or: return infix("|")
        case .not: return "!\(operands[0])"
        case .bitAnd: return infix("&")
        case .bitOr: return infix("|")
        case .bitXor: return infix("^")
        case .shiftLeft: return call("shift_left")
        case .shiftRight: return call("shift_right")
        case .select: return "\(operands[0]) ? \(operands[1]) : \(operands[2])"
        case .toFloat: return call("static_cast<float>")
        // Saturating, and 0 for NaN.
        case .toInt: return call("__float2int_rz")
        case .load: return load(graph.parameters[Int(node.payload)], operands, parameters)
        case .constant, .score, .site: return operands.first ?? "0"
        }
    }

    private static func load(
        _ parameter: ParameterDeclaration, _ operands: [String], _ parameters: [ParameterDeclaration]
    ) -> String {
        switch parameter.extent {
        case .maskBytes: return "variant_mask(p, at, key, false)"
        case .maskBits: return "variant_mask(p, at, key, true)"
        default: break
        }
        if parameter == .alibiSlopes {
            return "pointer<const float>(p.alibi_slopes)[max(min(\(operands[0]), p.query_heads - 1), 0)]"
        }
        let row = operands.count > 1 ? operands[1] : parameter.extent == .perPosition ? "at.request" : "0"
        let number = parameters.firstIndex(of: parameter) ?? 0
        return "variant_element<\(type(parameter.type.expression))>(p.variant[\(number)], \(row), \(operands[0]))"
    }
}

extension ExprGraph {
    /// Whether it is one constant.
    fileprivate func isConstant(_ value: Bool) -> Bool {
        nodes[root].operation == .constant && nodes[root].type == .bool && nodes[root].bool == value
    }
}

extension ExprGraph.Node {
    fileprivate func field(is field: SiteField) -> Bool { operation == .site && payload == field.rawValue }
}

/// A C++ condition under which a mask shows all pairs of a block: exact for sums of the site's numbers, and false where it is not known.
private struct BlockTest {
    let text: String

    init(_ graph: ExprGraph) {
        let forms = Self.forms(graph)
        var tests: [String] = []
        for node in graph.nodes {
            switch node.operation {
            case .constant where node.type == .bool: tests.append("\(node.bool)")
            case .and: tests.append("(\(tests[Int(node.a)]) && \(tests[Int(node.b)]))")
            case .or: tests.append("(\(tests[Int(node.a)]) || \(tests[Int(node.b)]))")
            case .less, .lessEqual:
                if let left = forms[Int(node.a)], let right = forms[Int(node.b)],
                    let margin = right.adding(left, times: -1)
                {
                    tests.append("\(Self.least(margin)) \(node.operation == .less ? ">" : ">=") 0")
                } else {
                    tests.append("false")
                }
            default: tests.append("false")
            }
        }
        // Sums of a few positions below 2^26 fit in 32 bits, so that none has wrapped where they are compared.
        // Keys of a block-sparse matrix come in any order: nothing is known of a block of them.
        text = "!FI_COLUMNS && at.key_length < (1 << 26) && \(tests[graph.root])"
    }

    /// The terms that are sums, unless one of them might not fit in 32 bits.
    private static func forms(_ graph: ExprGraph) -> [Affine?] {
        let forms = Affine.forms(of: graph)
        let areSmall = forms.allSatisfy { form in
            guard let form else { return true }
            return SiteField.allCases.reduce(0) { $0 + abs(form[$1]) } <= 16 && abs(form.constant) < 1 << 29
        }
        return areSmall ? forms : [Affine?](repeating: nil, count: forms.count)
    }

    /// The least value of a sum over a block.
    private static func least(_ sum: Affine) -> String {
        let ends: [(SiteField, String, String)] = [
            (.request, "request", "request"), (.head, "first_head", "last_head"), (.kvHead, "kv_head", "kv_head"),
            (.queryIndex, "first_index", "last_index"), (.queryPosition, "first_position", "last_position"),
            (.keyPosition, "first_key", "last_key"), (.queryLength, "query_length", "query_length"),
            (.keyLength, "key_length", "key_length"),
        ]
        var terms: [String] = []
        for (field, first, last) in ends where sum[field] != 0 {
            terms.append("\(sum[field])ll * at.\(sum[field] > 0 ? first : last)")
        }
        return (terms + ["\(sum.constant)ll"]).joined(separator: " + ")
    }
}

/// A mask as what a row sees of a stage, in words of a thread's bits, where its conditions are ranges of keys: comparisons of the key's position,
/// or of its distance from what a row has, with what does not depend on it; and what joins those.
private struct KeyBits {
    let text: String

    /// - Parameter hook: the mask's terms.
    init?(_ graph: ExprGraph, _ hook: VariantHook) {
        let forms = Affine.forms(of: graph)
        var words: [String?] = []
        for (place, node) in graph.nodes.enumerated() {
            let operands = node.operands.map { words[$0] }
            let word: String?
            switch node.operation {
            case _ where node.type != .bool: word = nil
            case _ where hook.areRows[place]: word = "(\(hook.names[place]) ? 0xffffffffu : 0u)"
            case .not: word = operands[0].map { "~\($0)" }
            case .and, .or:
                if let left = operands[0], let right = operands[1] {
                    word = "(\(left) \(node.operation == .and ? "&" : "|") \(right))"
                } else {
                    word = nil
                }
            case .less, .lessEqual, .equal: word = Self.comparison(node, graph, hook, forms)
            default: word = nil
            }
            words.append(word)
        }
        guard let word = words[graph.root] else { return nil }
        text = word
    }

    /// A comparison of a sum that has the key once with a term of the row.
    private static func comparison(
        _ node: ExprGraph.Node, _ graph: ExprGraph, _ hook: VariantHook, _ forms: [Affine?]
    ) -> String? {
        let (a, b) = (Int(node.a), Int(node.b))
        guard graph.nodes[a].type == .int, hook.areRows[a] != hook.areRows[b] else { return nil }
        let (sumPlace, row) = hook.areRows[a] ? (b, hook.names[a]) : (a, hook.names[b])
        guard fits(sumPlace, graph, forms), let sum = forms[sumPlace], abs(sum[.keyPosition]) == 1 else { return nil }
        // The key is at the row's term less the rest of the sum, or the other way round.
        let isRising = sum[.keyPosition] == 1
        var rest = sum
        rest.coefficients[Int(SiteField.keyPosition.rawValue)] = 0
        let (term, others) = ("static_cast<int64>(\(row))", "(\(text(rest)))")
        let edge = isRising ? "\(term) - \(others)" : "\(others) - \(term)"
        func call(_ name: String, _ offset: Int) -> String {
            "bits_\(name)(\(edge)\(offset == 0 ? "" : offset < 0 ? " - 1" : " + 1"), first_key, quad)"
        }
        if node.operation == .equal { return "(\(call("from", 0)) & \(call("until", 0)))" }
        let strict = node.operation == .less ? 1 : 0
        // The sum is at most the row's term where it is the left one.
        return (sumPlace == a) == isRising ? call("until", -strict) : call("from", strict)
    }

    /// Whether a sum and all that it is made of fit in 32 bits wherever a score is, so that none wraps.
    private static func fits(_ place: Int, _ graph: ExprGraph, _ forms: [Affine?]) -> Bool {
        guard let sum = forms[place] else { return false }
        var (low, high) = (sum.constant, sum.constant)
        for field in SiteField.allCases {
            let product = sum[field].multipliedReportingOverflow(by: Int(Int32.max))
            // What one term passes, no sum of them brings back.
            if product.overflow || Int32(exactly: product.partialValue) == nil { return false }
            if product.partialValue < 0 { low += product.partialValue } else { high += product.partialValue }
        }
        return low >= Int(Int32.min) && high <= Int(Int32.max)
            && graph.nodes[place].operands.allSatisfy { fits($0, graph, forms) }
    }

    private static func text(_ sum: Affine) -> String {
        let fields: [(SiteField, String)] = [
            (.request, "request"), (.head, "head"), (.kvHead, "kv_head"), (.queryIndex, "query_index"),
            (.queryPosition, "query_position"), (.queryLength, "query_length"), (.keyLength, "key_length"),
        ]
        let terms = fields.filter { sum[$0.0] != 0 }.map { "\(sum[$0.0])ll * at.\($0.1)" }
        return (terms + ["\(sum.constant)ll"]).joined(separator: " + ")
    }
}
