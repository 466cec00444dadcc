/// A value while a template is rendered.
enum TemplateValue {
    /// What a name or key that is not there gives; the name is for messages.
    case undefined(String)
    case none
    case bool(Bool)
    case int(Int)
    case double(Double)
    case string(String)
    case list(TemplateList)
    case object(TemplateObject)
    case namespace(TemplateNamespace)
    case macro(TemplateMacroValue)
    case loop(TemplateLoopState)
    case function(String)

    init(_ value: ChatValue) throws(ChatTemplateError) {
        try self.init(value, depth: 0)
    }

    private init(_ value: ChatValue, depth: Int) throws(ChatTemplateError) {
        if depth > ChatTemplateLimits.depth / 2 {
            throw .limit(what: "nested values", limit: ChatTemplateLimits.depth / 2)
        }
        switch value {
        case .none: self = .none
        case .bool(let value): self = .bool(value)
        case .int(let value): self = .int(value)
        case .double(let value): self = .double(value)
        case .string(let value): self = .string(value)
        case .list(let values):
            var items: [TemplateValue] = []
            for value in values { items.append(try TemplateValue(value, depth: depth + 1)) }
            self = .list(try TemplateList(items))
        case .object(let members):
            var object = TemplateObject()
            for member in members { try object.set(member.key, TemplateValue(member.value, depth: depth + 1)) }
            self = .object(object)
        }
    }

    /// How deep lists and objects nest in it.
    var depth: Int {
        switch self {
        case .list(let list): list.depth
        case .object(let object): object.depth
        default: 0
        }
    }

    /// What Python's `bool` says.
    var isTrue: Bool {
        switch self {
        case .undefined, .none: false
        case .bool(let value): value
        case .int(let value): value != 0
        case .double(let value): value != 0
        case .string(let value): !value.isEmpty
        case .list(let list): !list.items.isEmpty
        case .object(let object): !object.members.isEmpty
        case .namespace, .macro, .loop, .function: true
        }
    }

    var isUndefined: Bool {
        if case .undefined = self { true } else { false }
    }

    /// The kind in words.
    var kind: String {
        switch self {
        case .undefined(let name): "undefined \(name)"
        case .none: "none"
        case .bool: "a Boolean"
        case .int: "an integer"
        case .double: "a number"
        case .string: "a string"
        case .list: "a list"
        case .object: "an object"
        case .namespace: "a namespace"
        case .macro: "a macro"
        case .loop: "loop"
        case .function(let name): "the function \(name)"
        }
    }

    /// Numbers and Booleans as integers.
    var integer: Int? {
        switch self {
        case .int(let value): value
        case .bool(let value): value ? 1 : 0
        default: nil
        }
    }

    var number: Double? {
        if case .double(let value) = self { value } else { integer.map { Double($0) } }
    }

    /// Equality as in Python: 1 == 1.0 == true; strings by scalars.
    func equals(_ other: TemplateValue) -> Bool {
        if let left = integer, let right = other.integer { return left == right }
        if let left = number, let right = other.number { return left == right }
        switch (self, other) {
        case (.undefined, .undefined), (.none, .none): return true
        case (.string(let left), .string(let right)): return left.utf8.elementsEqual(right.utf8)
        case (.list(let left), .list(let right)):
            return left.isTuple == right.isTuple && left.items.count == right.items.count
                && zip(left.items, right.items).allSatisfy { $0.equals($1) }
        case (.object(let left), .object(let right)):
            return left.members.count == right.members.count
                && left.members.allSatisfy { member in right[member.key]?.equals(member.value) ?? false }
        case (.namespace(let left), .namespace(let right)): return left === right
        default: return false
        }
    }
}

/// Items in order.
struct TemplateList {
    let items: [TemplateValue]
    let depth: Int
    /// Whether Python would make a tuple of it, which shows in its text and in comparisons with lists.
    let isTuple: Bool

    init(_ items: [TemplateValue], isTuple: Bool = false) throws(ChatTemplateError) {
        var depth = 0
        for item in items { depth = max(depth, try Self.depth(ofElement: item)) }
        self.items = items
        self.depth = depth + 1
        self.isTuple = isTuple
    }

    /// The depth of what goes into a list, object or namespace. Nesting is bounded, since values are walked and freed
    /// recursively; and a namespace can be in nothing, so that no cycles are made.
    static func depth(ofElement value: TemplateValue) throws(ChatTemplateError) -> Int {
        if case .namespace = value { throw .evaluation(reason: "a namespace cannot be stored in a value") }
        if case .loop = value { throw .evaluation(reason: "loop cannot be stored in a value") }
        let depth = value.depth
        if depth >= ChatTemplateLimits.depth / 2 {
            throw .limit(what: "nested values", limit: ChatTemplateLimits.depth / 2)
        }
        return depth
    }
}

/// Values by key, in the order in which the keys came.
struct TemplateObject {
    private(set) var members: [(key: String, value: TemplateValue)] = []
    private(set) var depth = 1
    private var places: [String: Int] = [:]

    subscript(key: String) -> TemplateValue? {
        places[key].map { members[$0].value }
    }

    mutating func set(_ key: String, _ value: TemplateValue) throws(ChatTemplateError) {
        depth = max(depth, try TemplateList.depth(ofElement: value) + 1)
        if let place = places[key] {
            members[place].value = value
        } else {
            places[key] = members.count
            members.append((key, value))
        }
    }
}

/// The one thing that a template can change from inside of a loop.
final class TemplateNamespace {
    var members = TemplateObject()
}

/// A macro with the variables that it sees.
final class TemplateMacroValue {
    let macro: TemplateMacro
    init(_ macro: TemplateMacro) { self.macro = macro }
}

/// `loop`, inside of a loop.
final class TemplateLoopState {
    let items: [TemplateValue]
    var index = 0
    var lastChanged: [TemplateValue]?

    init(_ items: [TemplateValue]) {
        self.items = items
    }

    func attribute(_ name: String) -> TemplateValue {
        switch name {
        case "index": .int(index + 1)
        case "index0": .int(index)
        case "revindex": .int(items.count - index)
        case "revindex0": .int(items.count - index - 1)
        case "first": .bool(index == 0)
        case "last": .bool(index == items.count - 1)
        case "length": .int(items.count)
        // These count the levels of recursive loops, which are not supported.
        case "depth": .int(1)
        case "depth0": .int(0)
        case "previtem": index > 0 ? items[index - 1] : .undefined("loop.previtem")
        case "nextitem": index + 1 < items.count ? items[index + 1] : .undefined("loop.nextitem")
        default: .undefined("loop.\(name)")
        }
    }
}
