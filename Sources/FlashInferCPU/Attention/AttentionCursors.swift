internal import Synchronization

/// Which item of each processor's list is next, and which merge. One cache line each.
final class AttentionCursors: @unchecked Sendable {
    // Unchecked because of the pointer; `reset` is called only between parallel regions.

    private static let stride = 8
    private var memory: UnsafeMutablePointer<Atomic<Int>>
    private var capacity: Int

    init() {
        capacity = 0
        memory = .allocate(capacity: Self.stride)
        memory.initialize(to: Atomic(0))
    }

    /// All to zero, for `lists` lists of items.
    func reset(lists: Int) {
        if lists > capacity {
            memory.deallocate()
            capacity = lists
            memory = .allocate(capacity: (lists + 1) * Self.stride)
            for index in 0...lists { (memory + index * Self.stride).initialize(to: Atomic(0)) }
        }
        for index in 0...capacity { memory[index * Self.stride].store(0, ordering: .relaxed) }
    }

    /// The next item of a list.
    var items: ItemCursor { ItemCursor(base: memory + Self.stride, stride: Self.stride) }

    /// The next merge.
    var merges: ItemCursor { ItemCursor(base: memory, stride: Self.stride) }

    deinit { memory.deallocate() }
}

/// Counters that threads advance side by side.
struct ItemCursor {
    fileprivate let base: UnsafeMutablePointer<Atomic<Int>>
    fileprivate let stride: Int

    /// Takes the next number of `list`, from 0 on.
    func take(_ list: Int) -> Int { base[list * stride].wrappingAdd(1, ordering: .relaxed).oldValue }
}
