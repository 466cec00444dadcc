import FlashInferCore
import Testing

/// What fits into what, and what is said of what does not.
@Suite struct PlanSizeTests {
    private let room = PlanSize(
        itemCount: 8, mergeCount: 4, partialRowCount: 64, headDimVO: 128, requestCount: 5, blockCount: 40,
        tileMask: 0b101, stateListCount: 3, stateCount: 6, rowTileCount: 2)

    @Test(
        arguments: [
            (\PlanSize.itemCount, "work items"), (\.mergeCount, "merge items"), (\.partialRowCount, "partial rows"),
            (\.requestCount, "requests"), (\.blockCount, "block ids"),
            (\.stateListCount, "lists of states of several levels"), (\.stateCount, "states of several levels"),
        ] as [(any WritableKeyPath<PlanSize, Int> & Sendable, String)])
    func thePartThatIsTooLargeIsNamed(_ part: any WritableKeyPath<PlanSize, Int> & Sendable, _ name: String) throws {
        #expect(room.covers(room))
        var size = room
        size[keyPath: part] -= 1
        #expect(room.covers(size))
        size[keyPath: part] += 2
        #expect(!room.covers(size))
        let capacity = room[keyPath: part]
        #expect(throws: FlashInferError.capacityExceeded(name, required: capacity + 1, capacity: capacity)) {
            try room.requireRoom(for: size)
        }
    }

    @Test func tilesAndWidthsAreThoseOfTheCapacity() {
        var size = room
        size.tileMask = 0b100
        #expect(room.covers(size))
        size.tileMask = 0b110
        #expect(!room.covers(size))
        size = room
        size.headDimVO = 64
        #expect(throws: FlashInferError.planMismatch("head dim (vo)", planned: "128", found: "64")) {
            try room.requireRoom(for: size)
        }
    }

    /// The host writes the items then.
    @Test func rowTilesNeedNoRoom() {
        var size = room
        size.rowTileCount = 100
        #expect(room.covers(size))
    }
}
