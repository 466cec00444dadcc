import ArgumentParser
import CCeilings
import FlashInfer
import Foundation

struct CUDARowsBenchmark: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "cuda-rows",
        abstract: "The small operations on the GPU by graph replay, against the ceiling of a copy.",
        discussion: """
            Shapes of an 8B decoder: rows of 4,096, a gate of 14,336, 32 query and 8 key heads of 128, pages of 16; latent \
            attention with 128 heads of 512 + 64. Inputs rotate past the L2 cache where a set of them is large enough for that \
            (400 sets at most: one token's stay in it). Bytes count each input and each output once. "of copy" is against a copy \
            of gigabytes, "of same" against a plain copy of as many bytes in a graph of as many launches, measured next to the \
            case: what moves a few megabytes begins and ends, whatever it does. --list prints the cases without a GPU.
            """)

    @OptionGroup var common: CUDAOptions
    @OptionGroup var replays: ReplayOptions

    @Option(help: "Tokens of a batch.")
    var tokens = [1, 64, 4096]

    @Flag(help: "Print the names of the cases and stop.")
    var list = false

    struct Row: Codable {
        var name: String
        var tokens: Int
        var byteCount: Int
        var microseconds: Double
        var gigabytesPerSecond: Double
        var fractionOfCopy: Double
        /// Against a copy of as many bytes, timed alike; 0 where that failed.
        var fractionOfSameCopy: Double
        var launches: Int
        var spread: Double
    }

    func validate() throws {
        if let wrong = tokens.first(where: { $0 < 1 || $0 > 16_384 }) {
            throw ValidationError("--tokens must be in 1 ... 16384, not \(wrong)")
        }
    }

    func run() throws {
        let cases = replays.chosen(CUDARowCase.all, \.name)
        if list { return cases.forEach { print($0.name) } }
        let gpu = try Devices.make(named: common.device)
        let ceilings = CUDACeilings.measure()
        var report = CaseReport<Row>(gpu, ceilings: ceilings)
        print("\(gpu.name): \(ceilings.copy.fixed(0)) GB/s copy")
        let memory = try CUDARowMemory(on: gpu)
        for test in cases {
            for count in tokens {
                report.add("\(test.name), \(count) tokens") { try measure(test, count, memory, on: gpu, ceilings) }
            }
        }
        report.printTable(["operation", "tokens", "MB", "us", "GB/s", "of copy", "of same", "spread"]) { row in
            [
                row.name, "\(row.tokens)", (Double(row.byteCount) / 1e6).fixed(2), row.microseconds.fixed(2),
                row.gigabytesPerSecond.fixed(0), row.gigabytesPerSecond.percent(of: ceilings.copy),
                row.fractionOfSameCopy > 0 ? (100 * row.fractionOfSameCopy).fixed(0) + "%" : "-", row.spread.fixed(2),
            ]
        }
        try writeJSON(report, to: common.json)
    }

    private func measure(
        _ test: CUDARowCase, _ count: Int, _ memory: CUDARowMemory, on gpu: any Device, _ ceilings: CUDACeilings
    ) throws -> Row {
        memory.reset()
        let first = try test.make(count, memory)
        try first.validate()
        let byteCount = memory.takenByteCount
        // As many sets as outrun the cache, as far as memory and a graph's length go.
        let sets = max(
            1, min(CUDATiming.setCount(byteCount), CUDATiming.maximumLaunches, memory.byteCount / max(byteCount, 1)))
        var operations = [first]
        for _ in 1..<max(sets, 1) { operations.append(try test.make(count, memory)) }
        let result = try CUDATiming.measure(on: gpu, sets: sets, samples: replays.samples) {
            (set) throws(FlashInferError) in try gpu.execute(operations[set])
        }
        let same = ceiling_cuda_copy(
            Int64(byteCount), Int32(sets), Int32(result.launches), Int32(min(replays.samples, 64)))
        let rate = Double(byteCount) / result.seconds / 1e9
        return Row(
            name: test.name, tokens: count, byteCount: byteCount, microseconds: result.seconds * 1e6,
            gigabytesPerSecond: rate, fractionOfCopy: ceilings.copy > 0 ? rate / ceilings.copy : 0,
            fractionOfSameCopy: same / result.seconds, launches: result.launches, spread: result.spread)
    }
}

/// Device memory that cases cut their tensors from: random numbers in front, outputs behind.
final class CUDARowMemory {
    private var inputs: CUDAArena
    private let outputs: DeviceBuffer
    private let gpu: any Device
    private var inputByteCount = 0
    private var outputByteCount = 0
    private var lists: [[Int32]: KeptBuffer] = [:]
    private var tables: [Int: KeptBuffer] = [:]

    /// A buffer in a dictionary, which holds no buffers themselves.
    private final class KeptBuffer {
        private let buffer: DeviceBuffer
        var view: TensorView { buffer.view }

        init(on gpu: any Device, _ dtype: DType, _ bytes: UnsafeRawBufferPointer) throws {
            buffer = try DeviceBuffer(on: gpu, dtype: dtype, shape: [bytes.count / dtype.byteCount])
            try gpu.upload(bytes, to: buffer.region)
        }
    }

    /// Bytes of inputs, and of outputs.
    let byteCount = 768 << 20

    init(on gpu: any Device) throws {
        self.gpu = gpu
        inputs = try CUDAArena(on: gpu, dtype: .bfloat16, byteCount: byteCount)
        outputs = try DeviceBuffer(on: gpu, dtype: .uint8, shape: [byteCount])
    }

    /// Bytes taken since the last reset, each tensor's own.
    var takenByteCount: Int { inputByteCount + outputByteCount }

    func reset() {
        inputs.reset()
        (inputByteCount, outputByteCount) = (0, 0)
        outputUsed = 0
    }

    private var outputUsed = 0

    /// Random bfloat16 numbers.
    func input(_ shape: Shape) throws -> TensorView {
        let view = try inputs.take(shape)
        inputByteCount += 2 * view.elementCount
        return view
    }

    /// Somewhere to write.
    func output(_ dtype: DType, _ shape: Shape, counts: Bool = true) throws -> TensorView {
        let view = try TensorView(outputs.region, byteOffset: outputUsed, dtype: dtype, shape: shape)
        outputUsed += (view.elementCount * dtype.byteCount + 255) & ~255
        if counts { outputByteCount += view.elementCount * dtype.byteCount }
        return view
    }

    /// Weights: random float32 numbers are as good as the bits of bfloat16 ones.
    func weights(_ dtype: DType, _ count: Int) throws -> TensorView {
        if dtype == .bfloat16 { return try inputs.take([count]) }
        return try floats(count)
    }

    /// float32 numbers between 0 and 1, made once.
    func floats(_ count: Int) throws -> TensorView {
        if let table = tables[count] { return table.view }
        let values = (0..<count).map { Float($0 % 97) / 97 }
        let buffer = try values.withUnsafeBytes { try KeptBuffer(on: gpu, .float32, $0) }
        tables[count] = buffer
        return buffer.view
    }

    /// int32 numbers, made once.
    func integers(_ values: [Int32], _ shape: Shape) throws -> TensorView {
        if let list = lists[values] { return try list.view.reshaped(shape) }
        let buffer = try values.withUnsafeBytes { try KeptBuffer(on: gpu, .int32, $0) }
        lists[values] = buffer
        return try buffer.view.reshaped(shape)
    }
}
