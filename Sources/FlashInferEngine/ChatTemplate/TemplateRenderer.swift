/// Runs the statements of a template once.
final class TemplateRenderer {
    private var output: [UInt8] = []
    /// The innermost scope is the last; the first is the template's own.
    private var scopes: [[String: TemplateValue]]
    private var steps = 0
    private var depth = 0
    let now: ChatTemplateTime

    init(_ variables: [String: TemplateValue], now: ChatTemplateTime) {
        scopes = [variables, [:]]
        self.now = now
    }

    func render(_ statements: [TemplateStatement]) throws(ChatTemplateError) -> String {
        guard try run(statements) == .done else { throw .evaluation(reason: "break or continue outside of a loop") }
        return String(decoding: output, as: UTF8.self)
    }

    /// Counts work: one step, and one for every 64 bytes of text that it makes.
    func charge(_ bytes: Int = 0) throws(ChatTemplateError) {
        steps += 1 + bytes / 64
        if steps > ChatTemplateLimits.steps { throw .limit(what: "steps", limit: ChatTemplateLimits.steps) }
        if bytes > ChatTemplateLimits.outputBytes {
            throw .limit(what: "bytes of text", limit: ChatTemplateLimits.outputBytes)
        }
    }

    func enter() throws(ChatTemplateError) {
        depth += 1
        if depth > ChatTemplateLimits.depth {
            throw .limit(what: "nested evaluations", limit: ChatTemplateLimits.depth)
        }
        try charge()
    }

    func leave() {
        depth -= 1
    }

    private enum Flow { case done, leave, next }

    private func write(_ text: String) throws(ChatTemplateError) {
        try charge(text.utf8.count)
        if output.count + text.utf8.count > ChatTemplateLimits.outputBytes {
            throw .limit(what: "bytes of output", limit: ChatTemplateLimits.outputBytes)
        }
        output.append(contentsOf: text.utf8)
    }

    private func run(_ statements: [TemplateStatement]) throws(ChatTemplateError) -> Flow {
        for statement in statements {
            try enter()
            defer { leave() }
            let flow = try run(statement)
            if flow != .done { return flow }
        }
        return .done
    }

    private func run(_ statement: TemplateStatement) throws(ChatTemplateError) -> Flow {
        switch statement {
        case .text(let text): try write(text)
        case .output(let expression): try write(try text(of: evaluate(expression)))
        case .condition(let branches, let otherwise):
            for branch in branches where try evaluate(branch.condition).isTrue { return try run(branch.body) }
            return try run(otherwise)
        case .loop(let loop): return try run(loop)
        case .set(let names, let expression): try assign(names, try evaluate(expression))
        case .setAttribute(let name, let attribute, let expression):
            guard case .namespace(let namespace) = lookUp(name) else {
                throw .evaluation(reason: "\(name) is no namespace")
            }
            try namespace.members.set(attribute, try evaluate(expression))
        case .setBlock(let name, let body):
            set(name, .string(try capture { () throws(ChatTemplateError) in try run(body) }))
        case .macro(let macro): set(macro.name, .macro(TemplateMacroValue(macro)))
        case .leave: return .leave
        case .next: return .next
        }
        return .done
    }

    /// The text that a body writes, kept from the output.
    private func capture(_ body: () throws(ChatTemplateError) -> Flow) throws(ChatTemplateError) -> String {
        let outer = output
        output = []
        guard try body() == .done else { throw .evaluation(reason: "break or continue out of a block") }
        let text = String(decoding: output, as: UTF8.self)
        output = outer
        return text
    }

    private func run(_ loop: TemplateLoop) throws(ChatTemplateError) -> Flow {
        var items = try elements(of: evaluate(loop.items))
        scopes.append([:])
        defer { scopes.removeLast() }
        if let condition = loop.condition {
            var kept: [TemplateValue] = []
            for item in items {
                scopes[scopes.count - 1] = [:]
                try assign(loop.targets, item)
                if try evaluate(condition).isTrue { kept.append(item) }
            }
            items = kept
        }
        if items.isEmpty { return try run(loop.otherwise) }
        let state = TemplateLoopState(items)
        for (index, item) in items.enumerated() {
            state.index = index
            // Variables set in one turn are gone in the next; only a namespace carries over.
            scopes[scopes.count - 1] = ["loop": .loop(state)]
            try assign(loop.targets, item)
            if try run(loop.body) == .leave { break }
        }
        return .done
    }

    private func assign(_ names: [String], _ value: TemplateValue) throws(ChatTemplateError) {
        try charge()
        if names.count == 1 {
            set(names[0], value)
            return
        }
        let values = try elements(of: value)
        guard values.count == names.count else {
            throw .evaluation(reason: "\(values.count) values for \(names.count) names")
        }
        for (name, value) in zip(names, values) { set(name, value) }
    }

    private func set(_ name: String, _ value: TemplateValue) {
        scopes[scopes.count - 1][name] = value
    }

    func lookUp(_ name: String) -> TemplateValue {
        for scope in scopes.reversed() {
            if let value = scope[name] { return value }
        }
        return Self.functionNames.contains(name) ? .function(name) : .undefined(name)
    }

    /// What a loop goes through: items, keys, or scalars.
    func elements(of value: TemplateValue) throws(ChatTemplateError) -> [TemplateValue] {
        switch value {
        case .undefined: return []
        case .list(let list): return list.items
        case .object(let object): return object.members.map { .string($0.key) }
        case .string(let text):
            try charge(text.utf8.count * 16)
            return text.unicodeScalars.map { .string(String($0)) }
        default: throw .evaluation(reason: "\(value.kind) cannot be iterated over")
        }
    }

    /// Runs a macro in a scope of its own, above the template's; the text that it writes.
    func call(
        _ value: TemplateMacroValue, _ arguments: TemplateCallValues
    ) throws(ChatTemplateError) -> TemplateValue {
        let macro = value.macro
        guard arguments.positional.count <= macro.parameters.count else {
            throw .evaluation(reason: "\(macro.name) takes \(macro.parameters.count) arguments")
        }
        var scope: [String: TemplateValue] = [:]
        let outer = scopes
        scopes = [outer[0], outer[1], [:]]
        defer { scopes = outer }
        for (index, parameter) in macro.parameters.enumerated() {
            if index < arguments.positional.count {
                scope[parameter.name] = arguments.positional[index]
            } else if let given = arguments.named[parameter.name] {
                scope[parameter.name] = given
            } else if let initial = parameter.value {
                scopes[2] = scope
                scope[parameter.name] = try evaluate(initial)
            } else {
                scope[parameter.name] = .undefined(parameter.name)
            }
        }
        for name in arguments.named.keys where !macro.parameters.contains(where: { $0.name == name }) {
            throw .evaluation(reason: "\(macro.name) has no parameter \(name)")
        }
        scopes[2] = scope
        return .string(try capture { () throws(ChatTemplateError) in try run(macro.body) })
    }

    /// The text of a value; what has no bounded text is measured first.
    func text(of value: TemplateValue) throws(ChatTemplateError) -> String {
        if case .string(let text) = value { return text }
        try charge(try size(of: value))
        return TemplateText.display(value)
    }

    /// A bound on how long the text of a value is; shared values count at every place.
    func size(of value: TemplateValue) throws(ChatTemplateError) -> Int {
        try charge()
        switch value {
        case .string(let text): return text.utf8.count + 2
        case .list(let list):
            var total = 2
            for item in list.items { total += 2 + (try size(of: item)) }
            return total
        case .object(let object):
            var total = 2
            for member in object.members { total += 6 + member.key.utf8.count + (try size(of: member.value)) }
            return total
        default: return 8
        }
    }
}

/// What a call, filter or test is given, evaluated.
struct TemplateCallValues {
    var positional: [TemplateValue] = []
    var named: [String: TemplateValue] = [:]

    /// An argument by its place or name.
    func value(_ index: Int, _ name: String) -> TemplateValue? {
        index < positional.count ? positional[index] : named[name]
    }

    func string(_ index: Int, _ name: String) throws(ChatTemplateError) -> String? {
        switch value(index, name) {
        case nil, .some(.none): nil
        case .string(let text): text
        case .some(let other): throw .evaluation(reason: "\(name) is \(other.kind), not a string")
        }
    }

    func integer(_ index: Int, _ name: String) throws(ChatTemplateError) -> Int? {
        guard let value = value(index, name) else { return nil }
        if case .none = value { return nil }
        guard let integer = value.integer else {
            throw .evaluation(reason: "\(name) is \(value.kind), not an integer")
        }
        return integer
    }
}
