/// A JSON value.
///
/// Foundation's reader is not used: it accepts duplicate keys, mixes booleans with numbers and rounds integers, and
/// the files read here come from strangers.
package enum JSONNode: Hashable, Sendable {
    case null
    case bool(Bool)
    case integer(Int)
    case number(Double)
    case string(String)
    case array([JSONNode])
    case object([String: JSONNode])
}

extension JSONNode {
    /// The member `key` of an object; nil when this is no object or has no such member.
    package subscript(key: String) -> JSONNode? { object?[key] }

    /// The members, if this is an object.
    package var object: [String: JSONNode]? { if case .object(let value) = self { value } else { nil } }

    /// The elements, if this is an array.
    package var array: [JSONNode]? { if case .array(let value) = self { value } else { nil } }

    /// The text, if this is a string.
    package var string: String? { if case .string(let value) = self { value } else { nil } }

    /// The value, if this is a boolean.
    package var bool: Bool? { if case .bool(let value) = self { value } else { nil } }

    /// The value, if this is a whole number that fits `Int`, also when written as 1e6 or 8.0.
    package var int: Int? {
        switch self {
        case .integer(let value): value
        case .number(let value): Int(exactly: value)
        default: nil
        }
    }

    /// The value, if this is a number.
    package var double: Double? {
        switch self {
        case .integer(let value): Double(value)
        case .number(let value): value
        default: nil
        }
    }

    /// The kind of value in words.
    package var kind: String {
        switch self {
        case .null: "null"
        case .bool(let value): "the boolean \(value)"
        case .integer(let value): "the number \(value)"
        case .number(let value): "the number \(value)"
        case .string(let value): "the string \"\(value)\""
        case .array: "an array"
        case .object: "an object"
        }
    }
}

extension JSONNode {
    /// Reads `file` as one JSON value.
    package init(parsing file: MappedFile) throws(ModelFileError) { self = try JSONParser.parse(file) }
}
