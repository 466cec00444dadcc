/// Which partial states each row of a composed batch is merged from: what merge items are where tiles of several levels overlap.
///
/// Rows are packed rows of the batch: query row × group + head of the group. They fall into segments, whose rows are in the same
/// tile at every level. A list has the states of a segment's rows for one key/value head, in the order of the plan's items; it is empty
/// where an item has all of the rows' keys and writes the output itself.
public struct StateLists: Sendable, Equatable {
    /// `[segments + 1]`: segment `s` has packed rows `segmentIndptr[s] ..< segmentIndptr[s + 1]`.
    public let segmentIndptr: [Int32]

    /// `[segments × kvHeads + 1]`: the list of segment `s` and head `h` is `states[listIndptr[i] ..< listIndptr[i + 1]]` with
    /// `i = s · kvHeads + h`.
    public let listIndptr: [Int32]

    /// Workspace rows of the first of a segment's rows; the others' follow.
    public let states: [Int32]

    /// The number of lists, empty ones too.
    public var listCount: Int { listIndptr.count - 1 }

    /// Lists the states of a composed problem's items, and gives those items their rows of the workspace: each that shares its rows with
    /// another as many as it has, and its first segment in ``WorkItem/merge``.
    ///
    /// - Complexity: O(rows + Σ over items of their segments).
    init(_ items: inout [WorkItem], _ problem: AttentionProblem, partialRowCount: inout Int) {
        let (geometry, group, kvHeads) = (problem.geometry, problem.shape.group, problem.shape.kvHeads)
        let firstRows = (0..<geometry.requestCount).map { Int32(geometry.firstQuery($0) * group) }
        func firstRow(_ item: WorkItem) -> Int { Int(firstRows[Int(item.request)] + item.rowStart) }

        // Segments start where tiles do: the tiles of a level lie one after another.
        let rows = geometry.queryCount * group
        var segmentOfRow = [Int32](repeating: 0, count: rows + 1)
        for item in items { segmentOfRow[firstRow(item)] = 1 }
        var starts: [Int32] = []
        for row in 0..<rows {
            if segmentOfRow[row] != 0 { starts.append(Int32(row)) }
            segmentOfRow[row] = Int32(starts.count - 1)
        }
        starts.append(Int32(rows))
        segmentOfRow[rows] = Int32(starts.count - 1)
        func segments(_ item: WorkItem) -> Range<Int> {
            let first = firstRow(item)
            return Int(segmentOfRow[first])..<Int(segmentOfRow[first + Int(item.rowCount)])
        }

        var counts = [Int32](repeating: 0, count: (starts.count - 1) * kvHeads)
        for item in items {
            for segment in segments(item) {
                for head in item.headStart..<item.headStart + item.headCount {
                    counts[segment * kvHeads + Int(head)] += 1
                }
            }
        }
        // Items that have their rows to themselves need no state.
        var next = 0
        for index in items.indices {
            let item = items[index]
            let first = segments(item)
            let isAlone = first.allSatisfy { segment in
                (item.headStart..<item.headStart + item.headCount).allSatisfy { head in
                    counts[segment * kvHeads + Int(head)] == 1
                }
            }
            items[index].partialRow = isAlone ? -1 : Int32(truncatingIfNeeded: next)
            items[index].merge = isAlone ? -1 : Int32(first.lowerBound)
            if isAlone {
                for segment in first {
                    for head in item.headStart..<item.headStart + item.headCount {
                        counts[segment * kvHeads + Int(head)] = 0
                    }
                }
            } else {
                next += Int(item.rowCount) * Int(item.headCount)
            }
        }
        partialRowCount = next

        var indptr: [Int32] = [0]
        indptr.reserveCapacity(counts.count + 1)
        var sum: Int32 = 0
        for index in counts.indices {
            sum += counts[index]
            indptr.append(sum)
            counts[index] = indptr[index]
        }
        var states = [Int32](repeating: 0, count: Int(sum))
        for item in items where item.partialRow >= 0 {
            let first = firstRow(item)
            for segment in segments(item) {
                for head in 0..<item.headCount {
                    let list = segment * kvHeads + Int(item.headStart + head)
                    states[Int(counts[list])] =
                        item.partialRow + head * item.rowCount + starts[segment] - Int32(first)
                    counts[list] += 1
                }
            }
        }
        (segmentIndptr, listIndptr, self.states) = (starts, indptr, states)
    }
}
