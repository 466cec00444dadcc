/// Ranks that exchange states of attention and merge them in one step, without a collective of bytes before it.
package protocol StateMerging: Communicator {
    /// Merges the states of all ranks on every one of them.
    ///
    /// - Parameter operation: a valid merge of `worldSize` states, of which memory holds this rank's alone, in its place.
    /// - Returns: whether it was enqueued; where not, the caller gathers and merges. The same on all ranks, as they have states of the
    ///   same shape and type.
    func exchange(_ operation: MergeStatesOperation) throws(FlashInferError) -> Bool
}
