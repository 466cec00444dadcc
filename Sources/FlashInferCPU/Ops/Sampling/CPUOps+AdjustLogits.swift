public import FlashInferCore

extension CPUOps {
    /// Biases, penalties and masks, on the caller's thread: few logits change, apart from those that a mask forbids.
    public func execute(_ operation: AdjustLogitsOperation) {
        switch operation.logits.dtype {
        case .float16: adjust(operation, as: Float16.self)
        case .bfloat16: adjust(operation, as: BFloat16.self)
        default: adjust(operation, as: Float.self)
        }
    }

    private func adjust<Logit: LogitStorage>(_ operation: AdjustLogitsOperation, as type: Logit.Type) {
        let logits = operation.logits
        let width = logits.shape[1]
        guard let start = logits.elements(as: Logit.self) else { return }
        let history = operation.history?.elements(as: Int32.self)
        let biasTokens = operation.biasTokens?.elements(as: Int32.self)
        let biases = operation.biases?.elements(as: Float.self)
        for (index, row) in operation.rows.enumerated() {
            let values = start + index * logits.strides[0]
            // The ids in the row, each with what happens to it: last bias, whether it occurred, how often in the output.
            var changes: [Int32: (bias: Int?, occurred: Bool, times: Int)] = [:]
            func visit(
                _ ids: UnsafeMutablePointer<Int32>?, _ range: Range<Int>,
                _ take: (inout (bias: Int?, occurred: Bool, times: Int), Int) -> Void
            ) {
                guard let ids else { return }
                for place in range where ids[place] >= 0 && Int(ids[place]) < width {
                    take(&changes[ids[place], default: (nil, false, 0)], place)
                }
            }
            visit(biasTokens, row.bias) { $0.bias = $1 }
            visit(history, row.prompt) { change, _ in change.occurred = true }
            visit(history, row.output) { change, _ in
                change.occurred = true
                change.times += 1
            }
            for (id, change) in changes {
                var logit = values[Int(id)].logit
                if let bias = change.bias, let biases { logit += biases[bias] }
                if change.occurred { logit = logit > 0 ? logit / row.repetition : logit * row.repetition }
                if change.times > 0 {
                    logit -= row.frequency * Float(change.times)
                    logit -= row.presence
                }
                values[Int(id)] = Logit(logit: logit)
            }
            if let mask = operation.mask { forbid(values, width, mask, row: index) }
        }
    }

    /// −∞ for the tokens whose bit is 0.
    private func forbid<Logit: LogitStorage>(
        _ values: UnsafeMutablePointer<Logit>, _ width: Int, _ mask: TensorView, row: Int
    ) {
        guard let start = mask.elements(as: UInt32.self) else { return }
        let words = start + row * mask.strides[0]
        let none = Logit(logit: -.infinity)
        for word in 0..<(width + 31) / 32 {
            var forbidden = ~words[word]
            while forbidden != 0 {
                let place = 32 * word + forbidden.trailingZeroBitCount
                if place >= width { break }
                values[place] = none
                forbidden &= forbidden - 1
            }
        }
    }
}

/// How a logit is stored.
private protocol LogitStorage {
    /// Its value.
    var logit: Float { get }
    /// The nearest one that can be stored, ties to even.
    init(logit: Float)
}

extension Float: LogitStorage {
    fileprivate var logit: Float { self }
    fileprivate init(logit: Float) { self = logit }
}

extension Float16: LogitStorage {
    fileprivate var logit: Float { Float(self) }
    fileprivate init(logit: Float) { self.init(logit) }
}

extension BFloat16: LogitStorage {
    fileprivate var logit: Float { Float(self) }
    fileprivate init(logit: Float) { self.init(logit) }
}
