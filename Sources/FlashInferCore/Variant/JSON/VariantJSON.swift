/// The JSON form of variants: for callers that are not Swift, and for keeping them.
///
/// ```json
/// {"name": "documents", "mask": ["and", ["le", "keyPosition", "queryPosition"],
///                                ["eq", ["load", "documents", "queryPosition"], ["load", "documents", "keyPosition"]]],
///  "parameters": {"documents": ["int", "perPosition"]}}
/// ```
/// A term is a number (`1` is whole, `1.0` floating point), `true`, `false`, the name of a number of the site, `"score"`, or a list of
/// an operation (see ``ExprOperation``'s names) and its operands. `["let", [terms…], term]` lets `["ref", n]` stand for the n-th of
/// the terms, each of which may refer to those before. `"inf"` and `"-inf"` are floating point. Members: `name`, `mask`, `query` and `key`
/// (factors), `value` (of which `"score"` is the element), `logits`, `weights` (`null` or absent: softmax), `sink` (a number, `"perHead"`,
/// or a term), `normalizer` (of which `"score"` is the logarithm of the row's sum), `output` (of which `"score"` is the element), `scale`,
/// `parameters`: each `[type, extent]` or `[type, extent, count]`.
extension AttentionVariant {
    /// The JSON form, the same for equal variants. Rotation is not part of it.
    public var json: String {
        var members = ["\"name\":\(JSONText.quoted(name))", "\"mask\":\(mask.expression.graph.json)"]
        if let query = query.expression { members.append("\"query\":\(query.graph.json)") }
        if let key = key.expression { members.append("\"key\":\(key.graph.json)") }
        if let value = value.expression { members.append("\"value\":\(value.graph.json)") }
        members.append("\"logits\":\(logits.expression.graph.json)")
        if let weights = weights.expression { members.append("\"weights\":\(weights.graph.json)") }
        if let normalizer = normalizer.expression { members.append("\"normalizer\":\(normalizer.graph.json)") }
        if let output = output.expression { members.append("\"output\":\(output.graph.json)") }
        switch sink {
        case .none: break
        case .perHead: members.append("\"sink\":\"perHead\"")
        case .logit(let logit): members.append("\"sink\":\(JSONText.number(logit))")
        case .rule(let rule): members.append("\"sink\":\(rule.expression.graph.json)")
        }
        if let scale { members.append("\"scale\":\(JSONText.number(scale))") }
        let parameters = form.parameters.map { parameter in
            var parts = ["\"\(parameter.type.rawValue)\"", "\"\(parameter.extent.jsonName)\""]
            switch parameter.extent {
            case .table(let count), .perHeadTable(let count): parts.append("\(count)")
            default: break
            }
            return "\(JSONText.quoted(parameter.name)):[\(parts.joined(separator: ","))]"
        }
        if !parameters.isEmpty { members.append("\"parameters\":{\(parameters.joined(separator: ","))}") }
        return "{\(members.joined(separator: ","))}"
    }

    /// A variant from its JSON form.
    ///
    /// - Throws: ``FlashInferError/invalidArgument(_:found:expected:)`` that names the member and the term.
    public init(json text: String) throws(FlashInferError) {
        let value = try JSONParser.parse(text)
        guard case .object(let members) = value else {
            throw .invalidArgument("variant", found: value.kind, expected: "a JSON object")
        }
        let known = [
            "name", "mask", "query", "key", "value", "logits", "weights", "sink", "normalizer", "output", "scale",
            "parameters",
        ]
        for key in members.map(\.key) where !known.contains(key) {
            throw .invalidArgument(
                "variant: \(key)", found: "given", expected: "one of \(known.joined(separator: ", "))")
        }
        func member(_ key: String) -> JSONValue? {
            let value = members.last { $0.key == key }?.value
            return value == .null ? nil : value
        }
        var name = "variant"
        if let given = member("name") {
            guard case .string(let text) = given else {
                throw .invalidArgument("variant: name", found: given.kind, expected: "a string")
            }
            name = text
        }
        let parameters = try JSONTerms.parameters(member("parameters"), name)
        func hook(_ key: String, _ type: ExprType) throws(FlashInferError) -> ExprGraph? {
            guard let term = member(key) else { return nil }
            var terms = JSONTerms(variant: name, hook: key, parameters: parameters)
            return try terms.graph(term, type)
        }
        let place = SourcePlace(file: "\(name).json", line: 1)
        let mask = try hook("mask", .bool).map { Mask(Expr(graph: $0), at: place) } ?? .none
        let query = try hook("query", .float).map { Scaling(Expr(graph: $0), at: place) } ?? .none
        let key = try hook("key", .float).map { Scaling(Expr(graph: $0), at: place) } ?? .none
        let values = try hook("value", .float).map { Values(Expr(graph: $0), at: place) } ?? .plain
        let normalizer = try hook("normalizer", .float).map { Normalizer(Expr(graph: $0), at: place) } ?? .plain
        let output = try hook("output", .float).map { Output(Expr(graph: $0), at: place) } ?? .plain
        let logits = try hook("logits", .float).map { Logits(Expr(graph: $0), at: place) } ?? .plain
        let weights = try hook("weights", .float).map { Weights(Expr(graph: $0), at: place) } ?? .softmax
        var sink = Sink.none
        if let given = member("sink") {
            switch given {
            case .string("perHead"): sink = .perHead
            case .number(let number, _): sink = .logit(Float(number))
            case .array: if let term = try hook("sink", .float) { sink = Sink(Expr(graph: term), at: place) }
            default:
                throw .invalidArgument(
                    "variant '\(name)': sink", found: given.kind, expected: "a number, \"perHead\" or a term")
            }
        }
        var scale: Float?
        if let given = member("scale") {
            guard case .number(let number, _) = given else {
                throw .invalidArgument("variant '\(name)': scale", found: given.kind, expected: "a number")
            }
            scale = Float(number)
        }
        self.init(
            name, mask: mask, scale: scale, query: query, key: key, value: values, logits: logits, weights: weights,
            sink: sink, normalizer: normalizer, output: output)
        try validate()
    }
}

extension ParameterExtent {
    /// The name without the count.
    fileprivate var jsonName: String {
        switch self {
        case .table: "table"
        case .perHeadTable: "perHeadTable"
        default: description
        }
    }
}

extension ExprGraph {
    /// The terms as nested lists; those that are used more than once in a `let`.
    fileprivate var json: String {
        var uses = [Int](repeating: 0, count: nodes.count)
        for node in nodes { for operand in node.operands { uses[operand] += 1 } }
        var shared: [String] = []
        var texts: [String] = []
        for (place, node) in nodes.enumerated() {
            var text = json(node, node.operands.map { texts[$0] })
            if uses[place] > 1, !node.operands.isEmpty {
                shared.append(text)
                text = "[\"ref\",\(shared.count - 1)]"
            }
            texts.append(text)
        }
        return shared.isEmpty ? texts[root] : "[\"let\",[\(shared.joined(separator: ","))],\(texts[root])]"
    }

    private func json(_ node: Node, _ operands: [String]) -> String {
        switch node.operation {
        case .constant:
            switch node.type {
            case .float: return JSONText.number(node.float)
            case .int: return "\(node.int)"
            case .bool: return "\(node.bool)"
            }
        case .score: return "\"score\""
        case .site: return "\"\(node.field?.name ?? "")\""
        case .load:
            let parameter = parameters[Int(node.payload)]
            if parameter == .maskBytes { return "\"maskBytes\"" }
            if parameter == .maskBits { return "\"maskBits\"" }
            return "[\"load\",\(([JSONText.quoted(parameter.name)] + operands.reversed()).joined(separator: ","))]"
        default: return "[\(([JSONText.quoted(node.operation.rawValue)] + operands).joined(separator: ","))]"
        }
    }
}
