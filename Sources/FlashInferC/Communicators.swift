// swift-format-ignore-file: AlwaysUseLowerCamelCase
// The functions of this file have the header's names.

public import CFlashInfer
internal import FlashInfer
internal import FlashInferCPU
internal import FlashInferCore
internal import Synchronization

/// What an `fi_communicator` points to: the ranks on one stream, and room for states that are exchanged.
private final class CommunicatorHandle: Sendable {
    /// The device, which the memory needs as long as it lives.
    let device: DeviceHandle
    let stream: StreamState
    let ranks: any Communicator
    private let room = Mutex(Room())

    private struct Room: ~Copyable {
        var exchange: StateExchange?
        /// Heads, head dim and type that the room was made for.
        var kind: Kind?
    }

    private struct Kind: Equatable {
        var heads: Int
        var headDim: Int
        var dtype: DType
    }

    init(_ ranks: any Communicator, _ device: DeviceHandle, _ stream: StreamState) {
        (self.ranks, self.device, self.stream) = (ranks, device, stream)
    }

    deinit { if stream.id != .cpu { try? stream.device.synchronize() } }

    /// Exchanges and merges states.
    func merge(
        _ values: TensorView, _ lse: TensorView, into output: TensorView, _ mergedLSE: TensorView?
    ) throws(FlashInferError) {
        guard values.rank == 3, values.dtype.isComputeType, values.strides[2] == 1 || values.shape[2] <= 1 else {
            throw .invalidArgument(
                "v", found: "\(values.dtype) \(values.shape) with strides \(values.strides)",
                expected: "float32, float16 or bfloat16 [rows, heads, dim] with stride 1 in the last dimension")
        }
        let (rows, heads, headDim) = (values.shape[0], values.shape[1], values.shape[2])
        guard lse.dtype == .float32, lse.shape == [rows, heads] else {
            throw .invalidArgument("lse", found: "\(lse.dtype) \(lse.shape)", expected: "float32 [\(rows), \(heads)]")
        }
        guard rows > 0, heads > 0, headDim > 0 else { return }
        let kind = Kind(heads: heads, headDim: headDim, dtype: values.dtype)
        try room.withLock { (room) throws(FlashInferError) in
            if room.kind != kind || (room.exchange?.rowCapacity ?? 0) < rows {
                // What is there may be in use.
                if room.exchange != nil, stream.id != .cpu { try stream.device.synchronize() }
                let exchange = try StateExchange(
                    ranks, on: stream.device, rows: rows, heads: heads, headDim: headDim, stateType: values.dtype)
                room.exchange = consume exchange
                room.kind = kind
            }
            try stream.run(.add(AddOperation(first: values, output: room.exchange!.values(rows))))
            try stream.run(
                .add(
                    AddOperation(
                        first: lse.withLastDimension, output: room.exchange!.logSumExp(rows).withLastDimension)))
            try room.exchange!.merge(rows: rows, into: output, logSumExp: mergedLSE)
        }
    }
}

/// Meets the other ranks.
@c @implementation
public func fi_communicator_create(
    _ device: OpaquePointer?, _ stream: UnsafeMutableRawPointer?, _ given: UnsafePointer<fi_communicator_options>?,
    _ communicator: UnsafeMutablePointer<OpaquePointer?>?
) -> fi_status {
    perform {
        guard let communicator else {
            throw FlashInferError.invalidArgument("communicator", found: "NULL", expected: "a pointer")
        }
        let device = try object(device, "device", as: DeviceHandle.self)
        let stream = try device.on(stream)
        let wanted =
            given == nil ? fi_communicator_options() : try options(given, "options", empty: fi_communicator_options())
        let transport = try choice(
            "transport", wanted.transport,
            [(FI_TRANSPORT_AUTOMATIC, Communicators.Transport.automatic), (FI_TRANSPORT_HOST, .host)])
        guard wanted.timeout_ms >= 0 else {
            throw FlashInferError.invalidArgument("timeout_ms", found: "\(wanted.timeout_ms)", expected: "0 or more")
        }
        let environment =
            wanted.world_size == 0
            ? try RankEnvironment.current
            : try RankEnvironment(
                rank: Int(wanted.rank), worldSize: Int(wanted.world_size),
                masterAddress: wanted.address.map { String(cString: $0) } ?? "127.0.0.1", masterPort: Int(wanted.port))
        let ranks = try Communicators.join(
            environment, on: stream.device, transport: transport,
            timeout: .milliseconds(wanted.timeout_ms == 0 ? 60_000 : wanted.timeout_ms))
        communicator.pointee = handle(CommunicatorHandle(ranks, device, stream))
    }
}

/// Frees a communicator.
@c @implementation
public func fi_communicator_destroy(_ communicator: OpaquePointer?) {
    release(communicator, as: CommunicatorHandle.self)
}

/// Which rank this is.
@c @implementation
public func fi_communicator_get_rank(
    _ communicator: OpaquePointer?, _ rank: UnsafeMutablePointer<Int32>?, _ world_size: UnsafeMutablePointer<Int32>?
) -> fi_status {
    perform {
        let ranks = try object(communicator, "communicator", as: CommunicatorHandle.self).ranks
        rank?.pointee = Int32(ranks.rank)
        world_size?.pointee = Int32(ranks.worldSize)
    }
}

/// Waits for every rank.
@c @implementation
public func fi_communicator_barrier(_ communicator: OpaquePointer?) -> fi_status {
    perform { try object(communicator, "communicator", as: CommunicatorHandle.self).ranks.barrier() }
}

/// Gathers every rank's tensor.
@c @implementation
public func fi_communicator_all_gather(
    _ communicator: OpaquePointer?, _ x: UnsafePointer<fi_tensor>?, _ out: UnsafePointer<fi_tensor>?
) -> fi_status {
    perform {
        let communicator = try object(communicator, "communicator", as: CommunicatorHandle.self)
        let ranks = communicator.ranks
        let (source, target) = try (
            TensorView(x, "x", on: communicator.stream.id), TensorView(out, "out", on: communicator.stream.id)
        )
        func region(_ view: TensorView, _ name: String) throws(FlashInferError) -> MemoryRegion {
            guard view.isContiguous else {
                throw .invalidArgument("\(name) strides", found: "\(view.strides)", expected: "contiguous")
            }
            return MemoryRegion(
                address: view.address, byteCount: view.elementCount * view.dtype.byteCount, device: view.device)
        }
        guard target.dtype == source.dtype, target.elementCount == ranks.worldSize * source.elementCount else {
            throw FlashInferError.invalidArgument(
                "out", found: "\(target.dtype) \(target.shape)",
                expected: "\(source.dtype) with \(ranks.worldSize) times the elements of x \(source.shape)")
        }
        if ranks.worldSize == 1 {
            return try communicator.stream.run(
                .add(AddOperation(first: source.flat("x"), output: target.flat("out"))))
        }
        try ranks.allGather(region(source, "x"), into: region(target, "out"))
    }
}

extension TensorView {
    /// `[rows, heads, 1]`, whose last dimension has stride 1 wherever the elements lie, as row operations need.
    fileprivate var withLastDimension: TensorView {
        get throws(FlashInferError) {
            try TensorView(
                region, byteOffset: byteOffset, dtype: dtype, shape: [shape[0], shape[1], 1],
                strides: [strides[0], strides[1], 1], name: "lse")
        }
    }

    /// All elements of a contiguous tensor as one row.
    fileprivate func flat(_ name: String) throws(FlashInferError) -> TensorView {
        guard isContiguous else {
            throw .invalidArgument("\(name) strides", found: "\(strides)", expected: "contiguous")
        }
        return try TensorView(region, byteOffset: byteOffset, dtype: dtype, shape: [elementCount], name: name)
    }
}

/// Exchanges and merges the states of all ranks.
@c @implementation
public func fi_merge_states_across_ranks(
    _ communicator: OpaquePointer?, _ v: UnsafePointer<fi_tensor>?, _ lse: UnsafePointer<fi_tensor>?,
    _ out: UnsafePointer<fi_tensor>?, _ lse_out: UnsafePointer<fi_tensor>?
) -> fi_status {
    perform {
        let communicator = try object(communicator, "communicator", as: CommunicatorHandle.self)
        let id = communicator.stream.id
        try communicator.merge(
            TensorView(v, "v", on: id), TensorView(lse, "lse", on: id), into: TensorView(out, "out", on: id),
            TensorView(optional: lse_out, "lse_out", on: id))
    }
}
