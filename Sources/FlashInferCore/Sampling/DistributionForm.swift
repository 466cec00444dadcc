/// How a row of numbers stands for a distribution over its places.
public enum DistributionForm: Sendable, Hashable, CaseIterable {
    /// The probability of a place is proportional to `exp(logit / temperature)`.
    case logits
    /// The probability of a place is proportional to its number, which is not negative. Rows need not sum to 1: all that is said
    /// of shares is said of the row's own sum.
    case probabilities

    /// "logits".
    public var name: String { self == .logits ? "logits" : "probabilities" }
}
