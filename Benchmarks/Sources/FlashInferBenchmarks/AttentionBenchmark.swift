import ArgumentParser
import FlashInfer
import Foundation

struct AttentionBenchmark: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "attention",
        abstract: "CPU attention: causal prefill and paged decode, against the ceilings and PyTorch's SDPA.",
        discussion: """
            32 query heads, 8 key/value heads, head dim 128. Prefill counts 4 · S² · D · Hq / 2 operations. Decode is \
            16 requests of 4,096 keys over pages of 16 and counts the cache's bytes once; its ceiling is a plain read of \
            the same bytes, measured in turn with it. Where Python has torch, \
            Peers/sdpa.py measures PyTorch in the same run (--peer none to leave it out).
            """)

    @OptionGroup var common: CommonOptions

    @Option(help: "Python with torch for the peer, or none.")
    var peer = "python3"

    @Option(help: "Prefill lengths.")
    var lengths: [Int] = [1024, 2048, 4096]

    struct Row: Codable {
        var work: String
        var dtype: String
        var milliseconds: Double
        /// GFLOP/s of prefill, GB/s of decode.
        var rate: Double
        var fractionOfCeiling: Double
        var peerRate: Double?
        var ratio: Double?
    }

    struct Report: Codable {
        var device: String
        var date: String
        var ceilings: Ceilings
        var rows: [Row]
    }

    func run() throws {
        let device = CPUDevice(threads: common.threads)
        print("device: \(device.name)")
        let ceilings = try Ceilings.measure(on: device)
        print(
            "ceilings: \(ceilings.fma32.fixed(0)) GFLOP/s fp32 FMA, \(ceilings.bf16.fixed(0)) GFLOP/s bf16 dot, "
                + "\(ceilings.read.fixed(1)) GB/s read")
        let peers = try PeerSDPA.measure(python: peer, threads: device.limits.processors)
        var rows: [Row] = []
        for dtype in [DType.bfloat16, .float32] {
            for length in lengths {
                rows.append(try prefill(length, dtype, on: device, ceilings, peers))
            }
        }
        for dtype in [DType.bfloat16, .float16, .float32, .float8E4M3, .int8] {
            rows.append(try decode(dtype, on: device, ceilings, peers))
        }
        var table = Table(headings: ["work", "dtype", "ms", "rate", "of ceiling", "PyTorch", "ratio"])
        for row in rows {
            let unit = row.work.hasPrefix("prefill") ? " GFLOP/s" : " GB/s"
            table.rows.append([
                row.work, row.dtype, row.milliseconds.fixed(2), row.rate.fixed(1) + unit,
                (100 * row.fractionOfCeiling).fixed(0) + "%", row.peerRate.map { $0.fixed(1) } ?? "-",
                row.ratio.map { $0.fixed(2) + "x" } ?? "-",
            ])
        }
        table.print()
        try writeJSON(
            Report(
                device: device.name, date: ISO8601DateFormatter().string(from: Date()), ceilings: ceilings, rows: rows),
            to: common.json)
    }

    private func prefill(
        _ length: Int, _ dtype: DType, on device: CPUDevice, _ ceilings: Ceilings, _ peers: [String: Double]
    ) throws -> Row {
        let shape = try AttentionShape(queryHeads: 32, kvHeads: 8, headDimQK: 128)
        let queries = try randomTensor([length, 32, 128], dtype, on: device)
        let keys = try randomTensor([length, 8, 128], dtype, on: device)
        let values = try randomTensor([length, 8, 128], dtype, on: device)
        let output = try DeviceBuffer(on: device, dtype: dtype, shape: [length, 32, 128])
        let attention = try PlannedAttention(
            AttentionProblem(
                geometry: .contiguous(queryLength: length, kvLength: length), shape: shape, variant: .causal,
                queryType: dtype, kvType: dtype), on: device)
        let cache = try KVCacheView.ragged(keys: keys.view, values: values.view)
        let seconds = try time(runs: common.runs) { try attention.run(queries.view, cache, into: output.view) }.median
        let rate = 4 * Double(length * length) * 128 * 32 / 2 / seconds / 1e9
        let ceiling = dtype == .bfloat16 && ceilings.bf16 > 0 ? ceilings.bf16 : ceilings.fma32
        let peerRate = peers["prefill/\(dtype)/\(length)"]
        return Row(
            work: "prefill S=\(length)", dtype: "\(dtype)", milliseconds: seconds * 1e3, rate: rate,
            fractionOfCeiling: rate / ceiling, peerRate: peerRate, ratio: peerRate.map { rate / $0 })
    }

    private func decode(
        _ dtype: DType, on device: CPUDevice, _ ceilings: Ceilings, _ peers: [String: Double]
    ) throws -> Row {
        let (requests, keys, pageSize) = (16, 4096, 16)
        let pages = requests * keys / pageSize
        let queryType: DType = dtype.byteCount == 1 ? .bfloat16 : dtype
        let cache = try randomTensor([pages, 2, pageSize, 8, 128], dtype, on: device)
        let queries = try randomTensor([requests, 32, 128], queryType, on: device)
        let output = try DeviceBuffer(on: device, dtype: queryType, shape: [requests, 32, 128])
        // Pages in random order, as a server's pool hands them out after a while.
        var random = SystemRandomNumberGenerator()
        let order = (0..<Int32(pages)).shuffled(using: &random)
        let geometry = try BatchGeometry.paged(
            pageIndptr: (0...requests).map { Int32($0 * keys / pageSize) }, pageIndices: order,
            lastPageLengths: .init(repeating: Int32(pageSize), count: requests), pageSize: pageSize, pageCount: pages)
        let attention = try PlannedAttention(
            AttentionProblem(
                geometry: geometry, shape: AttentionShape(queryHeads: 32, kvHeads: 8, headDimQK: 128),
                variant: .causal, queryType: queryType, kvType: dtype), on: device)
        let view = try KVCacheView.paged(combined: cache.view)
        let pool = ThreadPool(threads: device.limits.processors)
        let region = cache.region
        let pairs = try timePairs(
            runs: 2 * common.runs + 1, { try attention.run(queries.view, view, into: output.view) },
            reference: { readAll(region, pool) })
        let seconds = pairs.map(\.body).median
        let rate = Double(cache.region.byteCount) / seconds / 1e9
        let peerRate = peers["decode/\(dtype)"]
        return Row(
            work: "decode 16 x 4096", dtype: "\(dtype)", milliseconds: seconds * 1e3, rate: rate,
            fractionOfCeiling: pairs.map { $0.reference / $0.body }.median, peerRate: peerRate,
            ratio: peerRate.map { rate / $0 })
    }
}

/// A tensor of small random numbers in any cache type.
func randomTensor(_ shape: Shape, _ dtype: DType, on device: CPUDevice) throws -> DeviceBuffer {
    let buffer = try DeviceBuffer(on: device, dtype: dtype, shape: shape)
    var state: UInt64 = 0x9E37_79B9_7F4A_7C15
    func next() -> Float {
        state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
        return Float(Int64(bitPattern: state) >> 40) / Float(1 << 23)
    }
    let count = buffer.view.elementCount
    switch dtype {
    case .float32: try buffer.write((0..<count).map { _ in next() })
    case .float16: try buffer.write((0..<count).map { _ in Float16(next()) })
    case .bfloat16: try buffer.write((0..<count).map { _ in BFloat16(next()) })
    case .float8E4M3: try buffer.write((0..<count).map { _ in Float8E4M3(next()) })
    case .float8E5M2: try buffer.write((0..<count).map { _ in Float8E5M2(next()) })
    case .int8: try buffer.write((0..<count).map { _ in Int8(next() * 127) })
    case .uint8, .int32: throw FlashInferError.invalidArgument("dtype", found: "\(dtype)", expected: "a cache type")
    }
    return buffer
}
