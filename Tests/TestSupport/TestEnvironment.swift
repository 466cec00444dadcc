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
}
