/// Why a model's tensors do not fit its settings.
public enum ModelWeightsError: Error, Equatable, Sendable {
    /// A tensor that the settings call for is not in the file.
    case missingTensor(String)
    /// A tensor has another shape than the settings call for. Shapes are [rows, columns], or [columns] of a vector.
    case wrongShape(tensor: String, expected: [Int], found: [Int])
    /// A tensor is stored in a way that the engine cannot compute with.
    case unsupportedFormat(tensor: String, format: String, supported: [String])
    /// A tensor that the settings do not call for: leaving it out would change what the model says.
    case unexpectedTensor(String)
}

extension ModelWeightsError: CustomStringConvertible {
    /// One line for a person.
    public var description: String { text.escapedForTerminals }

    private var text: String {
        switch self {
        case .missingTensor(let name): "the model has no tensor \"\(name)\""
        case .wrongShape(let name, let expected, let found):
            "tensor \"\(name)\" has the shape \(found); the model's settings call for \(expected)"
        case .unsupportedFormat(let name, let format, let supported):
            "tensor \"\(name)\" is stored as \(format); supported here: \(supported.joined(separator: ", "))"
        case .unexpectedTensor(let name):
            "the model has a tensor \"\(name)\" that its architecture, as it is known here, does not use"
        }
    }
}
