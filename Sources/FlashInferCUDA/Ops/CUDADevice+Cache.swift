internal import CUDAKernels
internal import FlashInferCore

extension CUDADevice {
    /// Stores new keys and values.
    func execute(_ operation: AppendKVOperation) throws(FlashInferError) {
        if operation.slots.count == 0 { return }
        if let table = operation.slots.table {
            try table.checkAlignment("slot table")
            return try append(operation, slots: table.address)
        }
        try refuseHostArrays("an append with slots of the host", instead: "slots in device memory, KVSlots(table:)")
        try operations.withSlots(operation.slots) { (address) throws(FlashInferError) in
            try append(operation, slots: address)
        }
    }

    private func append(_ operation: AppendKVOperation, slots: UInt) throws(FlashInferError) {
        for launch in try AppendKVKernel.lower(operation, slots: slots) { try enqueue(launch) }
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
