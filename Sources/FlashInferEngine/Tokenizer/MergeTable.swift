/// Merge rules by the pair of ids that they join.
struct MergeTable: Sendable {
    /// One rule. `key` is the left id in the high half and the right id in the low one.
    private struct Slot {
        var key: UInt64 = .max
        var rank: Int32 = 0
        var merged: Int32 = 0
    }

    private var slots: [Slot]
    private let seed = UInt64.random(in: .min ... .max)

    init(capacity: Int) {
        var slotCount = 16
        while slotCount < capacity * 2 { slotCount *= 2 }
        slots = Array(repeating: Slot(), count: slotCount)
    }

    @inline(__always)
    private static func key(_ left: Int32, _ right: Int32) -> UInt64 {
        UInt64(UInt32(bitPattern: left)) << 32 | UInt64(UInt32(bitPattern: right))
    }

    /// Adds a rule; of several for one pair the last holds, as in Hugging Face `tokenizers`. There must be room.
    mutating func insert(left: Int32, right: Int32, rank: Int32, merged: Int32) {
        let key = Self.key(left, right)
        let mask = slots.count - 1
        var slot = Int(truncatingIfNeeded: ByteStringTable.mix(key ^ seed)) & mask
        while slots[slot].key != .max, slots[slot].key != key { slot = (slot + 1) & mask }
        slots[slot] = Slot(key: key, rank: rank, merged: merged)
    }

    /// The rule for a pair; a rank of -1 when there is none.
    @inline(__always)
    func rule(_ left: Int32, _ right: Int32) -> (rank: Int32, merged: Int32) {
        let key = Self.key(left, right)
        return slots.withUnsafeBufferPointer { slots in
            let mask = slots.count - 1
            var slot = Int(truncatingIfNeeded: ByteStringTable.mix(key ^ seed)) & mask
            while slots[slot].key != .max {
                if slots[slot].key == key { return (slots[slot].rank, slots[slot].merged) }
                slot = (slot + 1) & mask
            }
            return (-1, -1)
        }
    }
}
