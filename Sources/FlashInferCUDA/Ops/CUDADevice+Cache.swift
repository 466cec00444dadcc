internal import CUDAKernels
internal import FlashInferCore

extension CUDADevice {
    /// Stores new keys and values.
    func execute(_ operation: AppendKVOperation) throws(FlashInferError) {
        try withSlots(operation.slots, of: "an append") { (slots) throws(FlashInferError) in
            for launch in try AppendKVKernel.lower(operation, slots: slots) { try enqueue(launch) }
        }
    }

    /// Turns queries and keys, and stores keys and values.
    func execute(_ operation: RoPEAppendKVOperation) throws(FlashInferError) {
        if operation.slots.count == 0 { return }
        let angles = try angles(operation.parameters, headDim: operation.queries.shape[2], operation.table)
        try withSlots(operation.slots, of: "RoPE with an append") { (slots) throws(FlashInferError) in
            try enqueue(RoPEPartsKernel.lower(operation, angles: angles, slots: slots))
        }
    }

    /// Turns the one part of heads, converts both, and stores keys and values.
    func execute(_ operation: SplitRoPEOperation) throws(FlashInferError) {
        if operation.queries.turning.shape[0] == 0 { return }
        let angles = try angles(operation.parameters, headDim: operation.rotaryDim, operation.table)
        switch operation.keyOutput {
        case .tensors: try enqueue(RoPEPartsKernel.lower(operation, angles: angles, slots: 0))
        case .cache(_, let slots), .latentCache(_, let slots):
            try withSlots(slots, of: "RoPE with an append") { (slots) throws(FlashInferError) in
                try enqueue(RoPEPartsKernel.lower(operation, angles: angles, slots: slots))
            }
        }
    }

    /// Calls `body` with the address of slots on the device; not at all where there are none.
    private func withSlots(
        _ slots: KVSlots, of what: String, _ body: (UInt) throws(FlashInferError) -> Void
    ) throws(FlashInferError) {
        if slots.count == 0 { return }
        if let table = slots.table {
            try table.checkAlignment("slot table")
            return try body(table.address)
        }
        try refuseHostArrays("\(what) with slots of the host", instead: "slots in device memory, KVSlots(table:)")
        try operations.withSlots(slots, body)
    }

    /// Copies pages.
    func execute(_ operation: CopyPagesOperation) throws(FlashInferError) {
        let moves = PageMoves(operation)
        if moves.chainCount == 0 { return }
        try refuseHostArrays("copying pages", instead: "copying them before the graph's replay")
        try operations.withStaged(byteCount: moves.byteCount) { bytes in
            let size = 4 * moves.moves.count
            moves.moves.withUnsafeBytes { UnsafeMutableRawBufferPointer(rebasing: bytes[..<size]).copyMemory(from: $0) }
            moves.indptr.withUnsafeBytes {
                UnsafeMutableRawBufferPointer(rebasing: bytes[size...]).copyMemory(from: $0)
            }
        } _: { (address) throws(FlashInferError) in
            try enqueue(CopyPagesKernel.lower(operation, moves, lists: address))
        }
    }
}
