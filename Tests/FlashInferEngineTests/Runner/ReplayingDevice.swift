import FlashInferEngine
import Synchronization

/// The CPU behaving as a GPU does: operations are captured and replayed, weights are tables, plans are read from the workspace
/// they were prepared in, and what a GPU refuses within a capture is an error.
///
/// A replay runs the recorded operations again on what memory holds then, so whatever a captured step had taken from the host
/// would come out wrong.
final class ReplayingDevice: Device {
    /// What a capture holds.
    enum Captured: Sendable {
        case operation(Operation)
        /// What others enqueue on the device: a collective of its ranks.
        case action(@Sendable () throws(FlashInferError) -> Void)
    }

    private struct State {
        var captured: [Captured]?
        /// By the workspace's address: the plan that was prepared there last.
        var plans: [UInt: Plan] = [:]
        var captures = 0
        var replays = 0
        var executions = 0
    }

    private let cpu: CPUDevice
    private let state = Mutex(State())

    let name = "replaying"
    let readsHostMemory = false
    let recordsGraphs = true
    var id: DeviceID { cpu.id }
    var limits: DeviceLimits { cpu.limits }

    init(threads: Int = 2) { cpu = CPUDevice(threads: threads) }

    var captureCount: Int { state.withLock { $0.captures } }
    var replayCount: Int { state.withLock { $0.replays } }
    /// Operations run outside of replays.
    var executionCount: Int { state.withLock { $0.executions } }

    func kernelTraits(for problem: AttentionProblem) throws(FlashInferError) -> KernelTraits {
        try cpu.kernelTraits(for: problem)
    }

    func allocate(byteCount: Int) throws(FlashInferError) -> MemoryRegion {
        try refuseWhileCapturing("allocate")
        return try cpu.allocate(byteCount: byteCount)
    }

    func deallocate(_ region: MemoryRegion) {
        state.withLock { $0.plans[region.address] = nil }
        cpu.deallocate(region)
    }

    func upload(_ source: UnsafeRawBufferPointer, to destination: MemoryRegion) throws(FlashInferError) {
        try refuseWhileCapturing("upload")
        try cpu.upload(source, to: destination)
    }

    func download(
        _ source: MemoryRegion, to destination: UnsafeMutableRawBufferPointer
    ) throws(FlashInferError) {
        try refuseWhileCapturing("download")
        try cpu.download(source, to: destination)
    }

    func fill(_ region: MemoryRegion, with byte: UInt8) throws(FlashInferError) { try cpu.fill(region, with: byte) }

    func synchronize() throws(FlashInferError) { try refuseWhileCapturing("synchronize") }

    func makeWeights(_ parts: [WeightRows]) throws(FlashInferError) -> any DeviceWeights {
        try ReplayingWeights(parts, packed: cpu.makeWeights(parts), on: cpu)
    }

    func prepare(_ plan: Plan, capacity: PlanSize, in workspace: MemoryRegion) throws(FlashInferError) {
        try refuseWhileCapturing("prepare")
        guard capacity.covers(plan.size) else {
            throw .capacityExceeded("the plan", required: plan.items.count, capacity: capacity.itemCount)
        }
        state.withLock { $0.plans[workspace.address] = plan }
    }

    func capture(_ body: () throws(FlashInferError) -> Void) throws(FlashInferError) -> (any DeviceGraph)? {
        try refuseWhileCapturing("capture")
        state.withLock { $0.captured = [] }
        defer { state.withLock { $0.captured = nil } }
        try body()
        return state.withLock { state in
            state.captures += 1
            return ReplayedGraph(state.captured ?? [], on: self)
        }
    }

    func execute(_ operation: Operation) throws(FlashInferError) { try enqueue(.operation(operation)) }

    /// Runs what is no operation of the device in order with those that are.
    func perform(_ action: @escaping @Sendable () throws(FlashInferError) -> Void) throws(FlashInferError) {
        try enqueue(.action(action))
    }

    private func enqueue(_ work: Captured) throws(FlashInferError) {
        let isCaptured = state.withLock { state in
            if state.captured != nil {
                state.captured?.append(work)
                return true
            }
            state.executions += 1
            return false
        }
        if !isCaptured { try run(work) }
    }

    fileprivate func replay(_ captured: [Captured]) throws(FlashInferError) {
        try refuseWhileCapturing("replay")
        state.withLock { $0.replays += 1 }
        for work in captured { try run(work) }
    }

    private func run(_ work: Captured) throws(FlashInferError) {
        switch work {
        case .operation(let operation): try run(operation)
        case .action(let action): try action()
        }
    }

    private func run(_ operation: Operation) throws(FlashInferError) {
        switch operation {
        case .attention(var attention):
            guard let plan = state.withLock({ $0.plans[attention.workspace.address] }) else {
                throw .deviceFailure(call: "attention", message: "no plan was prepared in its workspace")
            }
            attention.plan = plan
            try cpu.execute(.attention(attention))
        case .linear(var linear):
            guard let weights = linear.weights as? ReplayingWeights else {
                throw .invalidArgument("weights", found: "foreign", expected: "made by this device")
            }
            linear.weights = weights.packed
            try cpu.execute(.linear(linear))
        default: try cpu.execute(operation)
        }
    }

    private func refuseWhileCapturing(_ call: String) throws(FlashInferError) {
        if state.withLock({ $0.captured != nil }) {
            throw .deviceFailure(call: call, message: "not within a capture")
        }
    }
}

private final class ReplayedGraph: DeviceGraph {
    private let captured: [ReplayingDevice.Captured]
    private let device: ReplayingDevice

    init(_ captured: [ReplayingDevice.Captured], on device: ReplayingDevice) {
        self.captured = captured
        self.device = device
    }

    func replay() throws(FlashInferError) { try device.replay(captured) }
}

/// Packed weights, and the same as float32 rows.
private final class ReplayingWeights: DeviceWeights {
    let packed: any DeviceWeights
    private let buffer: DeviceBuffer

    var rows: Int { packed.rows }
    var columns: Int { packed.columns }
    var byteCount: Int { packed.byteCount }
    var device: DeviceID { packed.device }
    var table: TensorView? { buffer.view }

    init(_ parts: [WeightRows], packed: any DeviceWeights, on device: CPUDevice) throws(FlashInferError) {
        self.packed = packed
        var elements: [Float] = []
        for part in parts { for row in 0..<part.rows { elements += try part.row(row) } }
        buffer = try DeviceBuffer(on: device, elements, shape: [packed.rows, packed.columns])
    }
}
