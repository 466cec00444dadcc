/// The order of a KV tensor's token and head dimensions.
public enum KVLayout: Sendable, Hashable {
    /// Tokens before heads: `[pages, pageSize, heads, headDim]`, or ragged `[tokens, heads, headDim]`.
    case nhd
    /// Heads before tokens: `[pages, heads, pageSize, headDim]`, or ragged `[heads, tokens, headDim]`.
    case hnd
}
