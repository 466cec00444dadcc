/// One unit of attention work: a tile of packed query rows against a range of keys, for a range of key/value heads.
///
/// Packed row `r` of a request is query row `r / group` and head `r % group` of each key/value head's group.
/// Plain 32-bit fields: a GPU reads the array as it is.
@frozen
public struct WorkItem: Sendable, Hashable, BitwiseCopyable {
    /// The request.
    public var request: Int32
    /// Which of ``KernelTraits/tiles`` runs it.
    public var tile: Int32
    /// The first key/value head.
    public var headStart: Int32
    /// The number of key/value heads.
    public var headCount: Int32
    /// The first packed row within the request.
    public var rowStart: Int32
    /// The number of packed rows.
    public var rowCount: Int32
    /// The first key.
    public var keyStart: Int32
    /// The number of keys; 0 for rows that see nothing.
    public var keyCount: Int32
    /// Where the partial state goes, as a row of the workspace: row `partialRow + head · rowCount + row`, with `head` and `row`
    /// counted from the item's first. −1 where the item has all of its tile's keys and writes the output itself.
    public var partialRow: Int32
    /// The merge item that this item is a part of, or −1 where the result goes straight to the output.
    public var merge: Int32
}

/// One tile whose keys were shared out: its partial states are merged, in order, into the output.
@frozen
public struct MergeItem: Sendable, Hashable, BitwiseCopyable {
    /// The request.
    public var request: Int32
    /// The first key/value head.
    public var headStart: Int32
    /// The number of key/value heads.
    public var headCount: Int32
    /// The first packed row within the request.
    public var rowStart: Int32
    /// The number of packed rows.
    public var rowCount: Int32
    /// The first part's first workspace row; part `p` starts `p · headCount · rowCount` rows later.
    public var partialRow: Int32
    /// The number of parts, 2 or more.
    public var partCount: Int32
}
