/// Why a model's settings cannot be used.
public enum ModelConfigError: Error, Equatable, Sendable {
    /// The model is of a family that the engine does not know.
    case unknownArchitecture(String, known: [String])
    /// A setting that must be there is not.
    case missingKey(String)
    /// A setting is of another type than the one that belongs there.
    case wrongType(key: String, expected: String, found: String)
    /// A setting has a value that cannot be.
    case invalidValue(key: String, value: String, requirement: String)
    /// A setting asks for something that the engine cannot do.
    case unsupported(key: String, value: String, supported: String)
}

extension ModelConfigError: CustomStringConvertible {
    /// One line for a person.
    public var description: String { text.escapedForTerminals }

    private var text: String {
        switch self {
        case .unknownArchitecture(let name, let known):
            "the model's architecture is \"\(name)\"; known are \(known.joined(separator: ", "))"
        case .missingKey(let key): "the model's settings have no \"\(key)\""
        case .wrongType(let key, let expected, let found): "the setting \"\(key)\" is \(found), not \(expected)"
        case .invalidValue(let key, let value, let requirement):
            "the setting \"\(key)\" is \(value), but must be \(requirement)"
        case .unsupported(let key, let value, let supported):
            "the setting \"\(key)\" is \(value), which is not supported; supported: \(supported)"
        }
    }
}
