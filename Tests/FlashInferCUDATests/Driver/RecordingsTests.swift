import FlashInferCUDA
import Foundation
import Synchronization
import Testing

struct RecordingsTests {
    private struct Stop: Error {}

    @Test func whatWaitsForRecordingsRunsWhenTheLastEnds() {
        let recordings = Recordings()
        let calls = Mutex<[String]>([])
        let note: @Sendable (String) -> Void = { call in calls.withLock { $0.append(call) } }
        recordings.afterAll { note("at once") }
        recordings.during {
            recordings.afterAll { note("late") }
            recordings.during { note("inner") }
            note("outer")
        }
        recordings.afterAll { note("at once again") }
        #expect(calls.withLock { $0 } == ["at once", "inner", "outer", "late", "at once again"])
    }

    @Test func aRecordingThatFailsIsOver() {
        let recordings = Recordings()
        #expect(throws: Stop.self) { try recordings.during { throw Stop() } }
        var ran = false
        recordings.whenOthersHaveEnded { ran = true }
        #expect(ran)
    }

    @Test func aThreadDoesNotWaitForItself() {
        let recordings = Recordings()
        var ran = false
        recordings.during { recordings.whenOthersHaveEnded { ran = true } }
        #expect(ran)
    }

    @Test func othersAreWaitedFor() {
        let recordings = Recordings()
        let isRecording = DispatchSemaphore(value: 0)
        let mayEnd = DispatchSemaphore(value: 0)
        let hasEnded = Atomic(false)
        Thread.detachNewThread {
            recordings.during {
                isRecording.signal()
                mayEnd.wait()
                hasEnded.store(true, ordering: .releasing)
            }
        }
        isRecording.wait()
        mayEnd.signal()
        var others: Bool?
        recordings.whenOthersHaveEnded { others = hasEnded.load(ordering: .acquiring) }
        #expect(others == true)
    }
}
