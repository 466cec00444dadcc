/// The components of a `tokenizer.json` by their `type`.
extension TokenizerDefinition {
    static func normalizers(_ field: JSONField) throws(TokenizerError) -> [Normalizer] {
        if field.isAbsent { return [] }
        switch try field["type"].string() {
        case "Sequence":
            var steps: [Normalizer] = []
            for step in try field["normalizers"].elements() { steps += try normalizers(step) }
            return steps
        case "NFC": return [.nfc]
        case "NFD": return [.nfd]
        case "NFKC": return [.nfkc]
        case "NFKD": return [.nfkd]
        case "Lowercase": return [.lowercase]
        case "Prepend": return [.prepend(try field["prepend"].string())]
        case "Replace": return [.replace(try field["pattern"].pattern(), with: try field["content"].string())]
        case "Strip":
            return [
                .strip(
                    left: try field["strip_left"].bool(default: true),
                    right: try field["strip_right"].bool(default: true))
            ]
        case let name:
            throw .unsupportedComponent(
                kind: "normalizer", name: name,
                known: ["NFC", "NFD", "NFKC", "NFKD", "Lowercase", "Prepend", "Replace", "Strip", "Sequence"])
        }
    }

    static func preTokenizers(_ field: JSONField) throws(TokenizerError) -> [PreTokenizer] {
        if field.isAbsent { return [] }
        switch try field["type"].string() {
        case "Sequence":
            var steps: [PreTokenizer] = []
            for step in try field["pretokenizers"].elements() { steps += try preTokenizers(step) }
            return steps
        case "ByteLevel":
            return [
                .byteLevel(
                    addPrefixSpace: try field["add_prefix_space"].bool(default: true),
                    usesPattern: try field["use_regex"].bool(default: true))
            ]
        case "Split":
            return [
                .split(
                    try field["pattern"].pattern(),
                    try field["behavior"].choice(SplitBehavior.self, default: .isolated),
                    invert: try field["invert"].bool(default: false))
            ]
        case "Digits": return [.digits(individual: try field["individual_digits"].bool(default: false))]
        case "Metaspace": return [try metaspace(field)]
        case "Whitespace": return [.whitespace]
        case "WhitespaceSplit": return [.whitespaceSplit]
        case "Punctuation":
            return [.punctuation(try field["behavior"].choice(SplitBehavior.self, default: .isolated))]
        case let name:
            throw .unsupportedComponent(
                kind: "pre_tokenizer", name: name,
                known: [
                    "ByteLevel", "Split", "Digits", "Metaspace", "Whitespace", "WhitespaceSplit", "Punctuation",
                    "Sequence",
                ])
        }
    }

    private static func metaspace(_ field: JSONField) throws(TokenizerError) -> PreTokenizer {
        .metaspace(
            replacement: try field["replacement"].scalar(default: "\u{2581}"), try prependScheme(field),
            splits: try field["split"].bool(default: true))
    }

    /// Newer files name a scheme, older ones have a flag.
    private static func prependScheme(_ field: JSONField) throws(TokenizerError) -> PreTokenizer.PrependScheme {
        if field["prepend_scheme"].isAbsent {
            return try field["add_prefix_space"].bool(default: true) ? .always : .never
        }
        return try field["prepend_scheme"].choice(PreTokenizer.PrependScheme.self, default: .always)
    }

    static func decoders(_ field: JSONField) throws(TokenizerError) -> [TokenDecoder] {
        if field.isAbsent { return [] }
        switch try field["type"].string() {
        case "Sequence":
            var steps: [TokenDecoder] = []
            for step in try field["decoders"].elements() { steps += try decoders(step) }
            return steps
        case "ByteLevel": return [.byteLevel]
        case "ByteFallback": return [.byteFallback]
        case "Fuse": return [.fuse]
        case "Strip":
            return [
                .strip(
                    try field["content"].scalar(default: " "), start: max(0, try field["start"].integer()),
                    stop: max(0, try field["stop"].integer()))
            ]
        case "Replace":
            let pattern = field["pattern"]
            let text = pattern.value?.string == nil ? try pattern["String"].string() : try pattern.string()
            return [.replace(text, with: try field["content"].string())]
        case "Metaspace":
            return [
                .metaspace(
                    replacement: try field["replacement"].scalar(default: "\u{2581}"),
                    dropsFirst: try prependScheme(field) != .never)
            ]
        case let name:
            throw .unsupportedComponent(
                kind: "decoder", name: name,
                known: ["ByteLevel", "ByteFallback", "Fuse", "Strip", "Replace", "Metaspace", "Sequence"])
        }
    }
}
