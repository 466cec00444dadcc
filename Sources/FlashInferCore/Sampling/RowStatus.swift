/// What became of one row of logits or probabilities. Stored as one byte a row, so that a device can report it without a wait.
public enum RowStatus: UInt8, Sendable, Hashable, CaseIterable {
    /// The row has a result.
    case ok = 0
    /// The row holds a NaN.
    case notANumber = 1
    /// Every logit is −∞, or every probability 0, so there is nothing to choose.
    case empty = 2
    /// The row holds +∞, so its distribution is undefined. Greedy choices take +∞ as the greatest entry instead.
    case infinite = 3
    /// The row of probabilities holds a negative number.
    case negative = 4
}

extension RowStatus: CustomStringConvertible {
    /// The status in words, fit to follow "row 3: ".
    public var description: String {
        switch self {
        case .ok: "ok"
        case .notANumber: "the row holds a NaN"
        case .empty: "all logits are -inf, or all probabilities 0"
        case .infinite: "the row holds +inf"
        case .negative: "the probabilities hold a negative number"
        }
    }
}
