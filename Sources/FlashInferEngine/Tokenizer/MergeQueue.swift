/// A binary heap of proposed merges, smallest `(priority, position)` first.
///
/// Entries are never removed when they become stale; whoever pops one checks it against the symbols as they now are.
struct MergeQueue {
    struct Entry {
        /// What goes first; equal ones go from the left.
        var priority: Float64
        var position: Int
        /// What the merge would make: a token id, or the length in bytes, by which staleness shows.
        var witness: Int

        @inline(__always)
        static func < (left: Entry, right: Entry) -> Bool {
            left.priority != right.priority ? left.priority < right.priority : left.position < right.position
        }
    }

    private var entries: [Entry] = []

    mutating func removeAll() {
        entries.removeAll(keepingCapacity: true)
    }

    mutating func push(_ entry: Entry) {
        entries.append(entry)
        entries.withUnsafeMutableBufferPointer { heap in
            var child = heap.count - 1
            while child > 0 {
                let parent = (child - 1) / 2
                guard entry < heap[parent] else { break }
                heap[child] = heap[parent]
                child = parent
            }
            heap[child] = entry
        }
    }

    mutating func pop() -> Entry? {
        guard let first = entries.first, let last = entries.popLast() else { return nil }
        entries.withUnsafeMutableBufferPointer { heap in
            guard heap.count > 0 else { return }
            var parent = 0
            while true {
                var child = 2 * parent + 1
                guard child < heap.count else { break }
                if child + 1 < heap.count, heap[child + 1] < heap[child] { child += 1 }
                guard heap[child] < last else { break }
                heap[parent] = heap[child]
                parent = child
            }
            heap[parent] = last
        }
        return first
    }
}
