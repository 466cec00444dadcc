/// Byte strings by id, and ids by byte string: one buffer of bytes and an open-addressing table.
///
/// Lookups allocate nothing, and filling it with 49 000 tokens takes a few milliseconds, where a dictionary of strings
/// takes ten times as long. The hash is seeded per table, so that a crafted vocabulary cannot make probes long.
struct ByteStringTable: Sendable {
    private var bytes: [UInt8] = []
    private var offsets: [Int] = [0]
    private var slots: [Slot] = []
    private var used = 0
    private let seed = UInt64.random(in: .min ... .max)
    /// Bytes of the longest string that can be looked up.
    private(set) var longest = 0

    private struct Slot {
        var id: Int32 = -1
        /// The high half of the hash, so that most probes that miss never read the bytes.
        var tag: UInt32 = 0
    }

    init(capacity: Int) {
        var slotCount = 16
        while slotCount < capacity * 2 { slotCount *= 2 }
        slots = Array(repeating: Slot(), count: slotCount)
        offsets.reserveCapacity(capacity + 1)
        bytes.reserveCapacity(capacity * 8)
    }

    /// How many ids have bytes.
    var count: Int { offsets.count - 1 }

    /// Gives the next id its bytes, without making them findable.
    mutating func append(_ string: some Sequence<UInt8>) {
        bytes.append(contentsOf: string)
        offsets.append(bytes.count)
    }

    /// As `append`, with a closure that writes the bytes.
    mutating func append(_ write: (inout [UInt8]) -> Void) {
        write(&bytes)
        offsets.append(bytes.count)
    }

    func withBytes<Result>(of id: Int, _ body: (UnsafeBufferPointer<UInt8>) -> Result) -> Result {
        bytes.withUnsafeBufferPointer { body(UnsafeBufferPointer(rebasing: $0[offsets[id]..<offsets[id + 1]])) }
    }

    func bytes(of id: Int) -> ArraySlice<UInt8> {
        bytes[offsets[id]..<offsets[id + 1]]
    }

    /// Makes an id findable by its bytes; the id already there when another has the same bytes.
    mutating func index(_ id: Int) -> Int? {
        if (used + 1) * 2 > slots.count { grow() }
        let range = offsets[id]..<offsets[id + 1]
        longest = max(longest, range.count)
        let hash = bytes.withUnsafeBufferPointer { Self.hash(UnsafeBufferPointer(rebasing: $0[range]), seed: seed) }
        let (slot, found) = bytes.withUnsafeBufferPointer {
            probe(UnsafeBufferPointer(rebasing: $0[range]), hash: hash)
        }
        if let found { return found }
        slots[slot] = Slot(id: Int32(id), tag: UInt32(truncatingIfNeeded: hash >> 32))
        used += 1
        return nil
    }

    /// The id with these bytes, or -1.
    @inline(__always)
    func id(of string: UnsafeBufferPointer<UInt8>) -> Int32 {
        guard string.count <= longest else { return -1 }
        return probe(string, hash: Self.hash(string, seed: seed)).found.map { Int32($0) } ?? -1
    }

    private func probe(_ string: UnsafeBufferPointer<UInt8>, hash: UInt64) -> (slot: Int, found: Int?) {
        let mask = slots.count - 1
        let tag = UInt32(truncatingIfNeeded: hash >> 32)
        return slots.withUnsafeBufferPointer { slots in
            bytes.withUnsafeBufferPointer { bytes in
                offsets.withUnsafeBufferPointer { offsets in
                    var slot = Int(truncatingIfNeeded: hash) & mask
                    while slots[slot].id >= 0 {
                        let id = Int(slots[slot].id)
                        if slots[slot].tag == tag, offsets[id + 1] - offsets[id] == string.count,
                            Self.equal(bytes, at: offsets[id], string)
                        {
                            return (slot, id)
                        }
                        slot = (slot + 1) & mask
                    }
                    return (slot, nil)
                }
            }
        }
    }

    @inline(__always)
    private static func equal(
        _ bytes: UnsafeBufferPointer<UInt8>, at offset: Int, _ string: UnsafeBufferPointer<UInt8>
    ) -> Bool {
        for index in 0..<string.count where bytes[offset + index] != string[index] { return false }
        return true
    }

    private mutating func grow() {
        var larger = Array(repeating: Slot(), count: slots.count * 2)
        let mask = larger.count - 1
        for slot in slots where slot.id >= 0 {
            let hash = withBytes(of: Int(slot.id)) { Self.hash($0, seed: seed) }
            var place = Int(truncatingIfNeeded: hash) & mask
            while larger[place].id >= 0 { place = (place + 1) & mask }
            larger[place] = slot
        }
        slots = larger
    }

    /// Multiply-and-fold over eight bytes at a time.
    @inline(__always)
    static func hash(_ string: UnsafeBufferPointer<UInt8>, seed: UInt64) -> UInt64 {
        var state = seed ^ UInt64(truncatingIfNeeded: string.count)
        var index = 0
        while index + 8 <= string.count {
            state = mix(
                state ^ UnsafeRawPointer(string.baseAddress!).loadUnaligned(fromByteOffset: index, as: UInt64.self))
            index += 8
        }
        var tail: UInt64 = 0
        while index < string.count {
            tail = tail << 8 | UInt64(string[index])
            index += 1
        }
        return mix(mix(state ^ tail))
    }

    @inline(__always)
    static func mix(_ value: UInt64) -> UInt64 {
        let product = value.multipliedFullWidth(by: 0x9E37_79B9_7F4A_7C15)
        return product.high ^ product.low
    }
}
