extension String {
    /// The text on one line, with everything escaped that a terminal might obey.
    ///
    /// Names and texts of model files come from strangers: errors and summaries show them like this.
    var escapedForTerminals: String {
        var result = ""
        for scalar in unicodeScalars {
            switch scalar {
            case "\n": result += "\\n"
            case "\t": result += "\\t"
            default:
                let isControl =
                    scalar.properties.generalCategory == .control || scalar.properties.generalCategory == .format
                result += isControl ? "\\u{\(String(scalar.value, radix: 16))}" : String(scalar)
            }
        }
        return result
    }
}
