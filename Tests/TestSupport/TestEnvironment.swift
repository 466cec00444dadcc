#if canImport(Glibc)
    internal import Glibc
#elseif canImport(Musl)
    internal import Musl
#else
    internal import Darwin
#endif

/// The environment variables that tests read.
public enum TestEnvironment {
    /// `FLASHINFER_TEST_DRAWS`: draws of each case of a distribution test; `nil` for what fits into a few seconds.
    public static var draws: Int? { getenv("FLASHINFER_TEST_DRAWS").flatMap { Int(String(cString: $0)) } }

    /// `FLASHINFER_TEST_SEEDS`, as `1000-5000`: the seeds of tests of drawn cases; `usual` where it is not given.
    public static func seeds(_ usual: Range<UInt64>) -> Range<UInt64> {
        guard let text = getenv("FLASHINFER_TEST_SEEDS").map({ String(cString: $0) }) else { return usual }
        let ends = text.split(separator: "-").compactMap { UInt64($0) }
        guard ends.count == 2, ends[0] < ends[1] else { preconditionFailure("FLASHINFER_TEST_SEEDS is FIRST-END") }
        return ends[0]..<ends[1]
    }
}
