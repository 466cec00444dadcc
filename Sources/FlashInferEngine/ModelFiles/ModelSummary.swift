/// What a model's files hold, as text for `flashinfer inspect`: settings, metadata, tensors and totals.
///
/// Names and texts come from strangers, so anything that could steer a terminal is shown escaped.
public struct ModelSummary: Sendable {
    private let source: ModelSource

    /// Texts and arrays longer than this are cut.
    private static let longest = 72

    /// Summarises `source`.
    public init(_ source: ModelSource) { self.source = source }

    /// The whole summary; without the list of tensors when `tensors` is false.
    public func text(tensors: Bool = true) -> String {
        let rows = source.tensorRows
        var sections = [heading, settings, Self.table("Metadata", metadataRows)]
        if tensors { sections.append(Self.table("Tensors", rows.map(\.cells))) }
        sections.append(totals(rows))
        return sections.joined(separator: "\n\n") + "\n"
    }

    private var heading: String {
        switch source {
        case .gguf(let file):
            "\(Self.safe(file.file.path)): GGUF version \(file.version), alignment \(file.alignment), "
                + "\(ByteText(file.file.count)), data from byte \(file.dataOffset) on"
        case .huggingFace(let folder):
            "\(Self.safe(folder.path)): Hugging Face folder, \(folder.weights.files.count) safetensors file(s), "
                + "\(ByteText(folder.weights.files.reduce(0) { $0 + $1.file.count }))"
        }
    }

    private var settings: String {
        do throws(ModelConfigError) {
            let config = try source.config()
            var text = Self.table("Settings", config.summaryRows)
            do throws(ModelWeightsError) {
                _ = try source.weights(config)
            } catch {
                text += "\nThe engine cannot run this model: \(Self.safe(error.description))"
            }
            return text
        } catch {
            return "Settings\n  The engine cannot run this model: \(Self.safe(error.description))"
        }
    }

    private var metadataRows: [[String]] {
        switch source {
        case .gguf(let file):
            return file.keys.map { key in
                let value = file[key] ?? .string("")
                return [Self.safe(key), Self.typeName(value), Self.valueText(value)]
            }
        case .huggingFace(let folder):
            return Self.flatten(folder.config, prefix: "").sorted { $0[0] < $1[0] }
        }
    }

    private func totals(_ rows: [TensorRow]) -> String {
        var groups: [String: (count: Int, elements: Int, bytes: Int)] = [:]
        for row in rows {
            var group = groups[row.format] ?? (0, 0, 0)
            group.count += 1
            group.elements += row.elements
            group.bytes += row.byteCount
            groups[row.format] = group
        }
        var cells = groups.sorted { $0.value.bytes > $1.value.bytes }.map { format, group in
            [format, "\(group.count) tensors", "\(group.elements) elements", ByteText(group.bytes).description]
        }
        let elements = rows.reduce(0) { $0 + $1.elements }
        let bytes = rows.reduce(0) { $0 + $1.byteCount }
        cells.append(["all", "\(rows.count) tensors", "\(elements) elements", ByteText(bytes).description])
        return Self.table("Totals", cells)
    }
}

// Texts of values.
extension ModelSummary {
    private static func typeName(_ value: GGUFValue) -> String {
        if case .array(let array) = value { "[\(array.elementType)]" } else { "\(value.type)" }
    }

    private static func valueText(_ value: GGUFValue) -> String {
        guard case .array(let array) = value else { return cut(safe(value.description)) }
        let shown = array.prefix(4).map { element in
            if case .string(let text) = element { "\"\(safe(text))\"" } else { safe(element.description) }
        }
        let rest = array.count - shown.count
        return cut(shown.joined(separator: ", ")) + (rest > 0 ? ", ... \(rest) more" : "")
    }

    private static func flatten(_ node: JSONNode, prefix: String) -> [[String]] {
        switch node {
        case .object(let members):
            return members.flatMap { key, value in
                flatten(value, prefix: prefix.isEmpty ? safe(key) : "\(prefix).\(safe(key))")
            }
        case .array(let elements):
            let shown = elements.prefix(4).map { leafText($0) }.joined(separator: ", ")
            let rest = elements.count - 4
            return [[prefix, "array", cut(shown) + (rest > 0 ? ", ... \(rest) more" : "")]]
        default:
            return [[prefix, node.typeName, leafText(node)]]
        }
    }

    private static func leafText(_ node: JSONNode) -> String {
        switch node {
        case .null: "null"
        case .bool(let value): "\(value)"
        case .integer(let value): "\(value)"
        case .number(let value): "\(value)"
        case .string(let value): cut(safe(value))
        case .array, .object: "..."
        }
    }

    fileprivate static func safe(_ text: String) -> String { text.escapedForTerminals }

    private static func cut(_ text: String) -> String {
        text.count > longest ? text.prefix(longest) + "..." : text
    }

    /// Rows under a title, all columns but the last padded to one width.
    static func table(_ title: String, _ rows: [[String]]) -> String {
        var widths: [Int] = []
        for row in rows {
            for (column, cell) in row.enumerated() {
                if column == widths.count { widths.append(0) }
                widths[column] = max(widths[column], cell.count)
            }
        }
        let lines = rows.map { row in
            let cells = row.enumerated().map { column, cell in
                column == row.count - 1 ? cell : cell + String(repeating: " ", count: widths[column] - cell.count)
            }
            return "  " + cells.joined(separator: "  ")
        }
        return ([title] + lines).joined(separator: "\n")
    }
}

extension JSONNode {
    fileprivate var typeName: String {
        switch self {
        case .null: "null"
        case .bool: "bool"
        case .integer, .number: "number"
        case .string: "string"
        case .array: "array"
        case .object: "object"
        }
    }
}

/// A tensor as the summary lists it.
private struct TensorRow {
    let name: String
    let format: String
    /// In the order of the file's own format, outermost first.
    let shape: [Int]
    let byteCount: Int

    /// Cannot overflow: the shape was checked against the bytes.
    var elements: Int { shape.reduce(1, *) }

    var cells: [String] {
        [
            ModelSummary.safe(name), format, shape.map(String.init).joined(separator: " x "),
            ByteText(byteCount).description,
        ]
    }
}

extension ModelSource {
    fileprivate var tensorRows: [TensorRow] {
        switch self {
        case .gguf(let file):
            file.tensors.map {
                TensorRow(
                    name: $0.name, format: $0.type.name, shape: $0.shape.reversed(), byteCount: $0.range.count)
            }
        case .huggingFace(let folder):
            folder.weights.files.flatMap(\.tensors).map {
                TensorRow(name: $0.name, format: $0.type.name, shape: $0.shape, byteCount: $0.range.count)
            }
        }
    }
}

/// A number of bytes for people, in decimal units.
private struct ByteText: CustomStringConvertible {
    let count: Int

    init(_ count: Int) { self.count = count }

    var description: String {
        for (unit, size) in [("GB", 1_000_000_000), ("MB", 1_000_000), ("kB", 1000)] where count >= size {
            let tenths = count / (size / 10)
            return "\(tenths / 10).\(tenths % 10) \(unit)"
        }
        return "\(count) B"
    }
}

extension ModelConfig {
    /// The settings in words.
    fileprivate var summaryRows: [[String]] {
        var rows = [
            ["architecture", architecture.rawValue],
            ["layers", "\(layerCount)"],
            ["hidden size", "\(hiddenSize)"],
            ["feed-forward size", "\(intermediateSize), \(activation)"],
            ["heads", "\(headCount) query, \(kvHeadCount) key/value, dim \(headDim), scale \(attentionScale)"],
            ["vocabulary", "\(vocabularySize), \(tiedEmbeddings ? "output tied to the embedding" : "own output")"],
            ["context", "\(contextLength)"],
            ["norm epsilon", "\(rmsNormEpsilon)"],
            ["rope", rope.summary],
        ]
        if let slidingWindow {
            let count = slidingWindow.layers.count { $0 }
            rows.append(["window", "\(slidingWindow.size) keys in \(count) of \(layerCount) layers"])
        }
        var extras: [String] = []
        if attentionBias { extras.append("q, k, v biases") }
        if qkNorm { extras.append("q, k norms") }
        if postNorms { extras.append("post norms") }
        if embeddingScale != 1 { extras.append("embedding x \(embeddingScale)") }
        if normWeightOffset != 0 { extras.append("norm weights + \(normWeightOffset)") }
        if let attentionSoftCap { extras.append("attention cap \(attentionSoftCap)") }
        if let finalSoftCap { extras.append("logit cap \(finalSoftCap)") }
        if !extras.isEmpty { rows.append(["extras", extras.joined(separator: ", ")]) }
        func text(_ id: Int?) -> String { id.map(String.init) ?? "none" }
        let starts = addBos.map { $0 ? ", put first" : ", not put first" } ?? ""
        rows.append([
            "tokens",
            "bos \(text(bosID))\(starts), eos \(eosIDs.map(String.init).joined(separator: " or ")), pad \(text(padID))",
        ])
        rows.append(["KV cache", "\(2 * layerCount * kvWidth) elements per token"])
        return rows
    }
}

extension RopeConfig {
    fileprivate var summary: String {
        var text = "theta \(theta), \(pairing == .interleaved ? "interleaved pairs" : "half-split pairs")"
        if let localTheta { text += ", theta \(localTheta) in windows" }
        switch scaling {
        case .none: break
        case .linear(let factor): text += ", positions / \(factor)"
        case .llama3(let factor, let low, let high, let original):
            text += ", Llama 3 scaling x \(factor) (\(low) to \(high) turns over \(original))"
        case .frequencyFactors(let factors): text += ", \(factors.count) frequency factors"
        }
        return text
    }
}
