import FlashInferCUDA
import Foundation
import Synchronization
import Testing

/// What closes a library's things, and the end of the process.
@Suite struct ProcessEndTests {
    private static let isClosing = Atomic(false)

    @Test func theEndWaitsForWhatIsBeingClosedAndNothingIsClosedAfterwards() async {
        await #expect(processExitsWith: .success) {
            // As the library itself registers what takes it down, when it is loaded.
            atexit {
                if ProcessEndTests.isClosing.load(ordering: .sequentiallyConsistent) { _exit(3) }
                ProcessEnd.before { _exit(4) }
            }
            ProcessEnd.watch()
            Thread.detachNewThread {
                ProcessEnd.before {
                    ProcessEndTests.isClosing.store(true, ordering: .sequentiallyConsistent)
                    Thread.sleep(forTimeInterval: 0.3)
                    ProcessEndTests.isClosing.store(false, ordering: .sequentiallyConsistent)
                }
            }
            while !ProcessEndTests.isClosing.load(ordering: .sequentiallyConsistent) { usleep(100) }
            exit(0)
        }
    }
}
