public import FlashInferCore

/// Why the ``Engine`` refused or ended a request.
public enum EngineError: Error, Hashable {
    /// The scheduler refused the configuration or the request.
    case scheduling(SchedulingError)
    /// A sampling parameter is out of range.
    case sampling(FlashInferError)
    /// A prompt token is not in the vocabulary.
    case promptTokenOutOfRange(position: Int, token: Int32, vocabularySize: Int)
    /// A stop string is empty, so it would end the text before it begins.
    case emptyStopString(position: Int)
    /// The model runner returned a token outside its vocabulary.
    case sampledTokenOutOfRange(token: Int32, vocabularySize: Int)
    /// The engine found its own bookkeeping broken; it serves nothing any more.
    case inconsistent(InvariantViolation)
}

extension EngineError: CustomStringConvertible {
    /// What is wrong, with the value and the limit.
    public var description: String {
        switch self {
        case .scheduling(let error): error.description
        case .sampling(let error): error.description
        case .promptTokenOutOfRange(let position, let token, let vocabularySize):
            "prompt token \(position) is \(token), but the vocabulary has ids 0 through \(vocabularySize - 1)"
        case .emptyStopString(let position):
            "stop string \(position) is empty; give at least one character"
        case .sampledTokenOutOfRange(let token, let vocabularySize):
            "the model runner returned token \(token), but the vocabulary has ids 0 through \(vocabularySize - 1)"
        case .inconsistent(let violation):
            "the engine's page bookkeeping is broken (\(violation)); this is a defect, please report it"
        }
    }
}
