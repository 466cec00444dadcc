/// Which rank a process is, and where the ranks meet, as launchers tell it: torchrun's environment variables.
///
/// | variable | meaning |
/// | --- | --- |
/// | `RANK` | this process, in `0 ..< WORLD_SIZE` |
/// | `WORLD_SIZE` | the number of processes |
/// | `LOCAL_RANK` | which of this machine's processes it is, and so which GPU it takes; `RANK` where not set |
/// | `LOCAL_WORLD_SIZE` | how many of the processes this machine has, and so share its processors; not needed |
/// | `MASTER_ADDR`, `MASTER_PORT` | where rank 0 listens; needed for two ranks or more |
/// | `TORCHELASTIC_USE_AGENT_STORE` | `True` where torchrun itself listens at the port: ranks then meet at the next port |
public struct RankEnvironment: Sendable, Hashable {
    /// This process, in `0 ..< worldSize`.
    public var rank: Int
    /// The number of processes.
    public var worldSize: Int
    /// Which of this machine's processes it is: the number of its GPU.
    public var localRank: Int
    /// How many of the processes run on this machine; `nil` where the launcher does not say.
    public var localWorldSize: Int?
    /// The host name or address that rank 0 listens on.
    public var masterAddress: String
    /// The port that rank 0 listens on.
    public var masterPort: Int

    /// A rank by its parts.
    ///
    /// - Throws: ``FlashInferError/invalidArgument(_:found:expected:)`` naming the part.
    public init(
        rank: Int, worldSize: Int, localRank: Int? = nil, masterAddress: String = "127.0.0.1", masterPort: Int
    ) throws(FlashInferError) {
        try self.init { name in
            switch name {
            case "RANK": "\(rank)"
            case "WORLD_SIZE": "\(worldSize)"
            case "LOCAL_RANK": localRank.map { "\($0)" }
            case "MASTER_ADDR": masterAddress
            case "MASTER_PORT": "\(masterPort)"
            default: nil
            }
        }
    }

    /// A rank by its variables.
    ///
    /// - Parameter value: the value of a variable, `nil` where it is not set.
    /// - Throws: ``FlashInferError/invalidArgument(_:found:expected:)`` naming the variable, its value and what it must be.
    public init(_ value: (String) -> String?) throws(FlashInferError) {
        func number(_ name: String, in range: ClosedRange<Int>, _ meaning: String) throws(FlashInferError) -> Int {
            guard let text = value(name), !text.isEmpty else {
                throw .invalidArgument(name, found: "not set", expected: "\(meaning); torchrun and others set it")
            }
            guard let number = Int(text), range.contains(number) else {
                throw .invalidArgument(
                    name, found: "'\(text)'", expected: "\(meaning), in \(range.lowerBound) ... \(range.upperBound)")
            }
            return number
        }
        worldSize = try number("WORLD_SIZE", in: 1...65_536, "the number of ranks")
        rank = try number("RANK", in: 0...worldSize - 1, "this process's rank")
        if value("LOCAL_RANK").map(\.isEmpty) ?? true {
            localRank = rank
        } else {
            localRank = try number("LOCAL_RANK", in: 0...worldSize - 1, "this process's rank on its machine")
        }
        if !(value("LOCAL_WORLD_SIZE").map(\.isEmpty) ?? true) {
            localWorldSize = try number("LOCAL_WORLD_SIZE", in: 1...worldSize, "the number of ranks on this machine")
        }
        guard worldSize > 1 else {
            (masterAddress, masterPort) = (value("MASTER_ADDR") ?? "127.0.0.1", 0)
            return
        }
        guard let address = value("MASTER_ADDR"), !address.isEmpty else {
            throw .invalidArgument(
                "MASTER_ADDR", found: "not set", expected: "the host that rank 0 runs on; torchrun and others set it")
        }
        masterAddress = address
        let port = try number("MASTER_PORT", in: 1...65_534, "the port that rank 0 listens on")
        masterPort = value("TORCHELASTIC_USE_AGENT_STORE") == "True" ? port + 1 : port
    }
}
