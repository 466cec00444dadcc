import Foundation

extension TinyModelWriter {
    /// The model as a GGUF file.
    public func gguf() -> GGUFWriter {
        var writer = GGUFWriter()
        writer.values = metadata
        writer.tensors = weights().map { weight in
            var values = weight.values
            if weight.rotatedHeads > 0 { values = interleaved(values, columns: weight.shape[1]) }
            if weight.isNorm && architecture == .gemma3 { values = values.map { $0 + 1 } }
            let precision = weight.shape.count == 1 ? .float32 : precision
            return GGUFWriter.Tensor(
                weight.ggufName, type: precision.ggmlType, shape: weight.shape.reversed().map(UInt64.init),
                bytes: precision.encode(values))
        }
        return writer
    }

    /// Writes the model as a GGUF file to `path`.
    public func writeGGUF(to path: String) throws {
        try Data(gguf().bytes()).write(to: URL(fileURLWithPath: path))
    }

    private var metadata: [(key: String, value: GGUFWriter.Value)] {
        let name = architecture.rawValue
        var values: [(key: String, value: GGUFWriter.Value)] = [
            ("general.architecture", .string(name)),
            ("general.name", .string("Tiny \(name)")),
            ("\(name).block_count", .uint32(UInt32(layerCount))),
            ("\(name).context_length", .uint32(UInt32(contextLength))),
            ("\(name).embedding_length", .uint32(UInt32(hiddenSize))),
            ("\(name).feed_forward_length", .uint32(UInt32(intermediateSize))),
            ("\(name).attention.head_count", .uint32(UInt32(headCount))),
            ("\(name).attention.head_count_kv", .uint32(UInt32(kvHeadCount))),
            ("\(name).attention.key_length", .uint32(UInt32(headDim))),
            ("\(name).attention.value_length", .uint32(UInt32(headDim))),
            ("\(name).attention.layer_norm_rms_epsilon", .float32(1e-5)),
            ("\(name).rope.freq_base", .float32(ropeTheta)),
            ("tokenizer.ggml.model", .string("gpt2")),
            ("tokenizer.ggml.pre", .string("gpt-2")),
            ("tokenizer.ggml.tokens", .strings(TinyVocabulary.tokens)),
            ("tokenizer.ggml.token_type", .ints(TinyVocabulary.types)),
            ("tokenizer.ggml.merges", .strings(TinyVocabulary.merges)),
            ("tokenizer.ggml.bos_token_id", .uint32(1)),
            ("tokenizer.ggml.eos_token_id", .uint32(2)),
            ("tokenizer.ggml.padding_token_id", .uint32(0)),
            ("tokenizer.ggml.add_bos_token", .bool(0)),
            ("tokenizer.chat_template", .string(TinyVocabulary.chatTemplate)),
        ]
        if architecture == .gemma3 {
            values.append(("gemma3.attention.sliding_window", .uint32(UInt32(slidingWindow))))
        }
        return values
    }

    /// Puts the rows i and i + d/2 of each head next to each other, as rows 2i and 2i + 1.
    private func interleaved(_ values: [Float], columns: Int) -> [Float] {
        let half = headDim / 2
        return (0..<values.count / columns).flatMap { row in
            let (head, position) = row.quotientAndRemainder(dividingBy: headDim)
            let source = head * headDim + position / 2 + position % 2 * half
            return values[source * columns..<(source + 1) * columns]
        }
    }
}

extension TinyModelWriter.Precision {
    /// The number in GGUF files.
    public var ggmlType: UInt32 {
        switch self {
        case .float32: 0
        case .float16: 1
        case .bfloat16: 30
        case .q40: 2
        case .q41: 3
        case .q80: 8
        }
    }

    /// The bytes of `values`, whose count is a multiple of 32 for the block formats; rounded to nearest.
    public func encode(_ values: [Float]) -> [UInt8] {
        var out: [UInt8] = []
        switch self {
        case .float32: for value in values { out.append(little: value.bitPattern) }
        case .float16: for value in values { out.append(little: Float16(value).bitPattern) }
        case .bfloat16:
            for value in values {
                let bits = value.bitPattern
                out.append(little: UInt16((bits + 0x7fff + (bits >> 16 & 1)) >> 16))
            }
        case .q40, .q41, .q80:
            for start in stride(from: 0, to: values.count, by: 32) {
                encode(block: Array(values[start..<start + 32]), to: &out)
            }
        }
        return out
    }

    private func encode(block: [Float], to out: inout [UInt8]) {
        let largest = block.map(abs).max() ?? 0
        let least = block.min() ?? 0
        let offset: Float = self == .q41 ? Float(Float16(least)) : 0
        let steps: Float = self == .q80 ? 127 : self == .q40 ? 7 : 15
        let span = self == .q41 ? (block.max() ?? 0) - least : largest
        let scale = Float16(span / steps)
        out.append(little: scale.bitPattern)
        if self == .q41 { out.append(little: Float16(least).bitPattern) }
        let codes = block.map { scale == 0 ? 0 : (($0 - offset) / Float(scale)).rounded() }
        if self == .q80 {
            for code in codes { out.append(little: Int8(max(-128, min(127, code)))) }
        } else {
            let zero: Float = self == .q40 ? 8 : 0
            let nibbles = codes.map { UInt8(max(0, min(15, $0 + zero))) }
            for index in 0..<16 { out.append(nibbles[index] | nibbles[index + 16] << 4) }
        }
    }
}
