/// What became of one row of logits. Stored as one byte a row, so that a device can report it without a wait.
public enum RowStatus: UInt8, Sendable, Hashable, CaseIterable {
    /// The row has a result.
    case ok = 0
    /// The row holds a NaN.
    case notANumber = 1
    /// Every entry is −∞, so there is nothing to choose.
    case empty = 2
    /// The row holds +∞, so its distribution is undefined. Greedy choices take +∞ as the greatest entry instead.
    case infinite = 3
}

extension RowStatus: CustomStringConvertible {
    /// The status in words, fit to follow "row 3: ".
    public var description: String {
        switch self {
        case .ok: "ok"
        case .notANumber: "the logits hold a NaN"
        case .empty: "all logits are -inf"
        case .infinite: "the logits hold +inf"
        }
    }
}
