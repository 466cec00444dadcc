public import FlashInferCore

#if canImport(Glibc)
    internal import Glibc
#elseif canImport(Musl)
    internal import Musl
#elseif canImport(Darwin)
    internal import Darwin
#endif

extension RankEnvironment {
    /// What this process was started with.
    ///
    /// - Throws: ``FlashInferError/invalidArgument(_:found:expected:)`` naming the variable.
    public static var current: RankEnvironment {
        get throws(FlashInferError) {
            try RankEnvironment { name in getenv(name).map { String(cString: $0) } }
        }
    }

    /// Whether a launcher has set the variables at all.
    public static var isSet: Bool { getenv("WORLD_SIZE") != nil && getenv("RANK") != nil }
}
