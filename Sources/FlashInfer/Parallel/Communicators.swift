internal import FlashInferCPU
internal import FlashInferCUDA
public import FlashInferCore

/// How ranks find each other and what they talk by.
public enum Communicators {
    /// What carries the ranks' data.
    public enum Transport: String, Sendable, CaseIterable {
        /// Between GPUs NCCL, and for states of attention peer memory where they have it; sockets between CPUs.
        case automatic
        /// NCCL alone between GPUs.
        case nccl
        /// Sockets between host processes, for GPUs by way of host memory: slow, and not in graphs, but without NCCL.
        case host
    }

    /// Joins this process to the others that a launcher such as torchrun has started.
    ///
    /// ```swift
    /// let environment = try RankEnvironment.current
    /// let device = try Devices.make(named: "cuda:\(environment.localRank)")
    /// let ranks = try Communicators.join(environment, on: device)
    /// ```
    /// - Parameters:
    ///   - device: what this rank computes on: for GPUs, another one for each rank of a machine.
    ///   - timeout: how long to wait for the other ranks, now and in collectives of the host.
    /// - Throws: ``FlashInferError`` naming the variable, the rank, or what is missing.
    public static func join(
        _ environment: RankEnvironment, on device: any Device, transport: Transport = .automatic,
        timeout: Duration = .seconds(60)
    ) throws(FlashInferError) -> any Communicator {
        if environment.worldSize == 1 { return SoleRank(on: device.id) }
        return try join(
            SocketCommunicator(environment, timeout: timeout), on: device, transport: transport, timeout: timeout)
    }

    /// The same for ranks whose host sides have met: sockets, or threads of one process.
    public static func join(
        _ host: any Communicator, on device: any Device, transport: Transport = .automatic,
        timeout: Duration = .seconds(60)
    ) throws(FlashInferError) -> any Communicator {
        if host.worldSize == 1 { return SoleRank(on: device.id) }
        if device.id == host.device { return host }
        if transport != .host, let gpu = device as? CUDADevice {
            return try NCCLCommunicator(
                on: gpu, ranks: host, usesPeerMemory: transport == .automatic, timeout: timeout)
        }
        return StagedCommunicator(host, on: device)
    }
}
