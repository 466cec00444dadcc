/// A value that a chat template can be given: what JSON can write, with the order of keys.
public indirect enum ChatValue: Hashable, Sendable {
    /// Nothing.
    case none
    /// True or false.
    case bool(Bool)
    /// A whole number.
    case int(Int)
    /// A number.
    case double(Double)
    /// A text.
    case string(String)
    /// Values in order.
    case list([ChatValue])
    /// Values by key, in order.
    case object([Member])

    /// A key and its value.
    public struct Member: Hashable, Sendable {
        /// The key.
        public var key: String
        /// The value.
        public var value: ChatValue

        /// Makes a member.
        public init(key: String, value: ChatValue) {
            self.key = key
            self.value = value
        }
    }

    /// Makes a value from JSON text, as for the descriptions of tools.
    ///
    /// - Throws: `TokenizerError.malformedJSON` with the byte and reason.
    public init(json: String) throws(TokenizerError) {
        self.init(try OrderedJSON(Array(json.utf8)))
    }

    package init(_ json: OrderedJSON) {
        self =
            switch json {
            case .null: .none
            case .bool(let value): .bool(value)
            case .integer(let value): .int(value)
            case .number(let value): .double(value)
            case .string(let value): .string(value)
            case .array(let values): .list(values.map { ChatValue($0) })
            case .object(let members): .object(members.map { Member(key: $0.key, value: ChatValue($0.value)) })
            }
    }
}

/// One message of a conversation.
public struct ChatMessage: Hashable, Sendable {
    /// Who says it: `system`, `user`, `assistant`, `tool`, or what else the template knows.
    public var role: String
    /// What is said.
    public var content: String
    /// Everything else that the template may look for, such as `tool_calls` or `name`; a `content` here takes the
    /// place of the text, for content in parts.
    public var fields: [ChatValue.Member]

    /// Makes a message.
    public init(role: String, content: String, fields: [ChatValue.Member] = []) {
        self.role = role
        self.content = content
        self.fields = fields
    }

    var value: ChatValue {
        var members = [ChatValue.Member(key: "role", value: .string(role))]
        if !fields.contains(where: { $0.key == "content" }) {
            members.append(ChatValue.Member(key: "content", value: .string(content)))
        }
        return .object(members + fields)
    }
}
