/// A value of a tokenizer file with its path, for reading with errors that say where.
struct JSONField {
    let value: OrderedJSON?
    let path: String

    init(_ value: OrderedJSON?, path: String = "") {
        self.value = value
        self.path = path
    }

    subscript(key: String) -> JSONField {
        JSONField(value?[key: key], path: path.isEmpty ? key : path + "." + key)
    }

    /// Whether it is absent or null.
    var isAbsent: Bool { value == nil || value == .null }

    func wrong(_ expected: String) -> TokenizerError {
        .malformedField(path: path, expected: expected, found: value?.kind ?? "nothing")
    }

    func string() throws(TokenizerError) -> String {
        guard let text = value?.string else { throw wrong("a string") }
        return text
    }

    func string(default text: String) throws(TokenizerError) -> String {
        isAbsent ? text : try string()
    }

    func bool(default flag: Bool) throws(TokenizerError) -> Bool {
        if isAbsent { return flag }
        guard let flag = value?.bool else { throw wrong("a Boolean") }
        return flag
    }

    func integer() throws(TokenizerError) -> Int {
        guard let number = value?.integer else { throw wrong("an integer") }
        return number
    }

    func tokenID() throws(TokenizerError) -> Int32 {
        let number = try integer()
        guard number >= 0, number < TokenizerDefinition.tokenLimit else {
            throw .tokenIDOutOfRange(what: path, id: number, vocabularyCount: TokenizerDefinition.tokenLimit)
        }
        return Int32(number)
    }

    /// The elements; none when absent.
    func elements() throws(TokenizerError) -> [JSONField] {
        if isAbsent { return [] }
        guard let values = value?.array else { throw wrong("an array") }
        return values.enumerated().map { JSONField($0.element, path: "\(path)[\($0.offset)]") }
    }

    func scalar(default text: String) throws(TokenizerError) -> Unicode.Scalar {
        let text = try string(default: text)
        guard text.unicodeScalars.count == 1, let scalar = text.unicodeScalars.first else { throw wrong("one scalar") }
        return scalar
    }

    func choice<Value: RawRepresentable<String> & CaseIterable>(
        _ type: Value.Type, default value: Value
    ) throws(TokenizerError) -> Value {
        if isAbsent { return value }
        let name = try string()
        guard let found = type.allCases.first(where: { $0.rawValue.lowercased() == name.lowercased() }) else {
            throw .unsupportedComponent(kind: path, name: name, known: type.allCases.map(\.rawValue))
        }
        return found
    }

    /// A `pattern`: `{"Regex": …}` or `{"String": …}`.
    func pattern() throws(TokenizerError) -> PreTokenizerRegex {
        if let text = value?.string { return PreTokenizerRegex(literal: text) }
        if !self["String"].isAbsent { return PreTokenizerRegex(literal: try self["String"].string()) }
        return try PreTokenizerRegex(try self["Regex"].string())
    }
}
