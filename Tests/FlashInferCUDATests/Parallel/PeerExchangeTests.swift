import FlashInferCPU
import FlashInferCUDA
import FlashInferCore
import TestSupport
import Testing

/// What can be known of exchanges over peer memory without a GPU.
@Suite struct PeerExchangeTests {
    @Test func theWindowsPlaces() {
        let two = ExchangeWindow(ranks: 2)
        #expect(two.byteCount == 2 * 2 * 256 * 6_144)
        #expect(two.offset(exchange: 2, sender: 0, block: 0, thread: 0, unit: 0) == 0)
        #expect(two.offset(exchange: 1, sender: 0, block: 0, thread: 0, unit: 0) == 2 * 256 * 6_144)
        #expect(two.offset(exchange: 4, sender: 1, block: 3, thread: 5, unit: 2) == (256 + 3) * 6_144 + 4_096 + 80)
        let eight = ExchangeWindow(ranks: 8)
        #expect(eight.offset(exchange: 7, sender: 7, block: 255, thread: 127, unit: 2) == eight.byteCount - 16)
    }

    /// No two units share a place, and an exchange's are not those of the one before.
    @Test func placesAreApart() {
        let window = ExchangeWindow(ranks: 3)
        var seen: Set<Int> = []
        var count = 0
        for exchange in 1...2 {
            for sender in 0..<3 {
                for block in [0, 1, 255] {
                    for thread in [0, 1, 31, 127] {
                        for unit in 0..<3 {
                            seen.insert(
                                window.offset(
                                    exchange: exchange, sender: sender, block: block, thread: thread, unit: unit) / 16)
                            count += 1
                        }
                    }
                }
            }
        }
        #expect(seen.count == count)
    }

    /// A rank that starts an exchange knows that the others have ended the one before the last, so two windows are enough: any order of
    /// two ranks' steps, each of which sends and then receives.
    @Test func twoWindowsAreEnough() {
        for order in 0..<1 << 12 {
            // What each rank has sent and received; what its window holds of even and odd exchanges.
            var (sent, received) = ([0, 0], [0, 0])
            var window = [[0, 0], [0, 0]]
            for step in 0..<12 {
                let rank = order >> step & 1
                if sent[rank] == received[rank] {
                    sent[rank] += 1
                    let place = sent[rank] % 2
                    // What is overwritten was received.
                    #expect(window[1 - rank][place] <= received[1 - rank])
                    window[1 - rank][place] = sent[rank]
                } else if window[rank][sent[rank] % 2] == sent[rank] {
                    received[rank] += 1
                }
            }
        }
    }

    private func ticket(
        machine: String = "a", process: UInt64 = 1, address: UInt = 4_096, handle: Int = PeerTicket.handleByteCount
    ) -> PeerTicket {
        PeerTicket(
            machine: Array(machine.utf8), process: [process, 7], ordinal: 3, address: address,
            handle: (0..<handle).map { UInt8($0) })
    }

    @Test(arguments: [0, PeerTicket.handleByteCount]) func ticketsTravel(handle: Int) {
        let sent = ticket(machine: "f3b0-99\n", process: .max, address: .max - 5, handle: handle)
        #expect(PeerTicket(message: sent.message) == sent)
    }

    @Test func whatIsNoTicket() {
        #expect(PeerTicket(message: []) == nil)
        #expect(PeerTicket(message: Array(ticket().message.prefix(60))) == nil)
        var message = ticket().message
        message[32] = 65
        #expect(PeerTicket(message: message) == nil)
    }

    @Test func howRanksReachEachOther() {
        let own = ticket()
        #expect(ticket().way(from: own) == .sameProcess)
        #expect(ticket(process: 2).way(from: own) == .sameMachine)
        #expect(ticket(machine: "b", process: 2).way(from: own) == .none("it is on another machine"))
        #expect(ticket(machine: "", process: 2).way(from: ticket(machine: "")) == .none("it is on another machine"))
        #expect(ticket(address: 0).way(from: own) == .none("it has no window"))
        #expect(ticket(process: 2, handle: 0).way(from: own) == .none("its memory has no name for other processes"))
    }
}

/// Ranks as threads: on as many GPUs as there are, or all on one, each with a stream of its own.
@Suite(
    .enabled(if: GPU.isPresent, GPU.absence),
    .disabled(if: GPU.runsOneKernelAtATime, "its kernels wait for each other; a sanitizer runs one at a time"),
    .serialized, .timeLimit(.minutes(10)))
struct ReducedPeerExchangeGPUTests {
    private struct Form {
        var rows = 1
        var heads = 4
        var width = 64
        var state = DType.float32
        var output = DType.float32
        /// Elements that the output lies off its alignment by.
        var lead = 0
    }

    /// One rank's tensors of a shape, and what the other kernel makes of all ranks' states.
    private final class Case {
        let operation: MergeStatesOperation
        private let expectedOperation: MergeStatesOperation
        private let slots: DeviceBuffer
        private let sums: DeviceBuffer
        private let all: DeviceBuffer
        private let allSums: DeviceBuffer
        private let output: DeviceBuffer
        private let merged: DeviceBuffer
        private let expected: DeviceBuffer
        private let expectedSums: DeviceBuffer

        init(_ shape: Form, rank: Int, of world: Int, on device: CUDADevice, seed: UInt64) throws {
            let (rows, heads, width) = (shape.rows, shape.heads, shape.width)
            let count = rows * heads
            var random = OpsRandom(seed)
            // Some rows are empty on all ranks, some on one; empty states hold NaN.
            let lse = (0..<world * count).map { index in
                index % count == 0 || index == 1 ? -Double.infinity : random.normal() * 4
            }
            let values = (0..<world * count * width).map {
                lse[$0 / width] == -.infinity ? Double.nan : random.normal()
            }
            func own(_ numbers: [Double], _ size: Int, _ poison: Double) -> [Double] {
                numbers.enumerated().map { $0.offset / size == rank ? $0.element : poison }
            }
            func buffer(_ dtype: DType, _ numbers: [Double], _ shape: Shape) throws -> DeviceBuffer {
                switch dtype {
                case .float16: try DeviceBuffer(on: device, numbers.map { Float16($0) }, shape: shape)
                case .bfloat16: try DeviceBuffer(on: device, numbers.map { BFloat16(Float($0)) }, shape: shape)
                default: try DeviceBuffer(on: device, numbers.map { Float($0) }, shape: shape)
                }
            }
            let wide: Shape = [world, rows, heads, width]
            slots = try buffer(shape.state, own(values, count * width, .nan), wide)
            sums = try buffer(.float32, own(lse, count, 1e9), [world, rows, heads])
            all = try buffer(shape.state, values, wide)
            allSums = try buffer(.float32, lse, [world, rows, heads])
            output = try DeviceBuffer(on: device, dtype: shape.output, shape: [count * width + 8])
            merged = try DeviceBuffer(on: device, dtype: .float32, shape: [rows, heads])
            expected = try DeviceBuffer(on: device, dtype: shape.output, shape: [rows, heads, width])
            expectedSums = try DeviceBuffer(on: device, dtype: .float32, shape: [rows, heads])
            let view = try TensorView(
                output.region, byteOffset: shape.lead * shape.output.byteCount, dtype: shape.output,
                shape: [rows, heads, width])
            operation = MergeStatesOperation(
                values: slots.view, logSumExp: sums.view, output: view, mergedLogSumExp: merged.view)
            expectedOperation = MergeStatesOperation(
                values: all.view, logSumExp: allSums.view, output: expected.view, mergedLogSumExp: expectedSums.view)
            try operation.validate()
        }

        /// Whether every bit is what one GPU's merge of all states gives.
        func isExact(on device: CUDADevice) throws -> Bool {
            try device.execute(.mergeStates(expectedOperation))
            func bytes(_ view: TensorView) throws -> [UInt8] {
                var bytes = [UInt8](repeating: 0, count: view.elementCount * view.dtype.byteCount)
                let region = MemoryRegion(address: view.address, byteCount: bytes.count, device: device.id)
                try bytes.withUnsafeMutableBytes { try device.download(region, to: $0) }
                return bytes
            }
            return try bytes(operation.output) == bytes(expected.view) && bytes(merged.view) == bytes(expectedSums.view)
        }
    }

    private static func makeDevice(_ rank: Int) throws -> CUDADevice {
        try CUDADevice(ordinal: rank % CUDADriver.load().deviceCount())
    }

    private static func join(_ host: ThreadCommunicator, timeout: Duration = .seconds(60)) throws -> (
        CUDADevice, PeerExchange
    ) {
        let device = try makeDevice(host.rank)
        guard case .joined(let exchange) = try PeerExchange.join(on: device, ranks: host, timeout: timeout) else {
            throw FlashInferError.deviceFailure(call: "PeerExchange.join", message: "it is not possible")
        }
        return (device, exchange)
    }

    /// Loads all kernels, on all ranks: that may wait for a GPU that they share, where another rank's kernel may be waiting for this one's.
    private static func prepare(_ cases: [Case], _ host: ThreadCommunicator, _ device: CUDADevice) throws {
        for one in cases {
            _ = try one.isExact(on: device)
            _ = try ExchangeStatesKernel.lower(one.operation).map { try device.kernel($0.spec) }
        }
        _ = try host.gatherMessages([])
    }

    private static let forms = [
        Form(), Form(rows: 3, heads: 5, width: 128),
        Form(rows: 2, heads: 3, width: 72, state: .bfloat16, output: .bfloat16),
        Form(rows: 1, heads: 3, width: 512, output: .bfloat16),
        Form(rows: 2, heads: 2, width: 256, state: .float16, output: .float16),
        Form(rows: 2, heads: 3, width: 64, output: .bfloat16, lead: 1),
    ]

    @Test(arguments: [2, 3]) func ranksHaveTheBitsOfOneMerge(world: Int) throws {
        let wrong = try onThreads(ThreadCommunicator.ranks(world)) { host -> [String] in
            let (device, exchange) = try Self.join(host)
            // Shapes take turns, so that blocks have made different numbers of exchanges.
            let cases = try (0..<3 * Self.forms.count).map { index in
                try Case(
                    Self.forms[index % Self.forms.count], rank: host.rank, of: world, on: device,
                    seed: UInt64(index + 1))
            }
            try Self.prepare(cases, host, device)
            var wrong: [String] = []
            for (index, one) in cases.enumerated() {
                let isDone = try exchange.merge(one.operation)
                // Where ranks share a GPU, one's copy to the host must not wait in the copy engine for a merge: another's copy, behind
                // it there, may be what that rank waits for before its merge.
                try device.synchronize()
                if try !isDone || !one.isExact(on: device) {
                    wrong.append("\(Self.forms[index % Self.forms.count]), round \(index / Self.forms.count)")
                }
            }
            return wrong
        }
        #expect(wrong.flatMap { $0 } == [])
    }

    @Test func graphsAreReplayed() throws {
        let wrong = try onThreads(ThreadCommunicator.ranks(2)) { host -> [String] in
            let (device, exchange) = try Self.join(host)
            let cases = try Self.forms.prefix(3).enumerated().map {
                try Case($0.element, rank: host.rank, of: 2, on: device, seed: UInt64($0.offset + 1))
            }
            try Self.prepare(cases, host, device)
            try device.synchronize()
            let graph = try device.capture { () throws(FlashInferError) in
                for one in cases { _ = try exchange.merge(one.operation) }
            }
            var wrong: [String] = []
            for replay in 0..<5 {
                for one in cases { try device.fill(one.operation.output.wholeRegion, with: 0xff) }
                try graph!.replay()
                try device.synchronize()
                for (index, one) in cases.enumerated() where try !one.isExact(on: device) {
                    wrong.append("\(index), replay \(replay)")
                }
            }
            return wrong
        }
        #expect(wrong.flatMap { $0 } == [])
    }

    @Test func aRankThatDoesNotComeIsNamed() throws {
        let found = try onThreads(ThreadCommunicator.ranks(2)) { host -> String in
            let (device, exchange) = try Self.join(host, timeout: .milliseconds(200))
            let one = try Case(Form(), rank: host.rank, of: 2, on: device, seed: 1)
            try Self.prepare([one], host, device)
            var text = ""
            if host.rank == 0 {
                _ = try exchange.merge(one.operation)
                try device.synchronize()
                // What is not the whole is nobody's to use.
                var sums = [Float](repeating: 0, count: 4)
                try sums.withUnsafeMutableBytes {
                    try device.download(one.operation.mergedLogSumExp!.wholeRegion, to: $0)
                }
                #expect(sums.allSatisfy { $0.isNaN })
                do { try exchange.requireAll() } catch { text = "\(error)" }
                #expect(throws: FlashInferError.self) { _ = try exchange.merge(one.operation) }
            }
            _ = try host.gatherMessages([])
            return text
        }
        #expect(found[0].contains("rank 1") && found[0].contains("did not come"), "\(found)")
    }

    @Test func whatDoesNotFitTakesTheOtherWay() throws {
        let device = try GPU.device
        func canExchange(_ rows: Int, _ heads: Int, _ width: Int, _ dtype: DType) throws -> Bool {
            let region = MemoryRegion(address: 4_096, byteCount: 2 * rows * heads * width * 4, device: device.id)
            return ExchangeStatesKernel.canExchange(
                try TensorView(region, dtype: dtype, shape: [2, rows, heads, width]))
        }
        #expect(try canExchange(1, 32, 128, .float32) && canExchange(32, 32, 128, .float32))
        #expect(try !canExchange(33, 32, 128, .float32) && canExchange(64, 32, 128, .bfloat16))
        #expect(try canExchange(1, 1, 512, .float32) && !canExchange(1, 1, 576, .float32))
        #expect(try !canExchange(1, 4, 66, .float32) && !canExchange(1, 4, 68, .float16))
    }
}

extension TensorView {
    /// The memory of a tensor without gaps.
    fileprivate var wholeRegion: MemoryRegion {
        MemoryRegion(address: address, byteCount: elementCount * dtype.byteCount, device: device)
    }
}
