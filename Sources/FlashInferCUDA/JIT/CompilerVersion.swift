/// The version of NVRTC that made, or would make, a cubin.
package struct CompilerVersion: Hashable, Sendable, Comparable, CustomStringConvertible {
    package let major: Int
    package let minor: Int

    package init(major: Int, minor: Int) {
        self.major = major
        self.minor = minor
    }

    /// Reads "13.0", or gives nil.
    package init?(_ text: String) {
        let parts = text.split(separator: ".", omittingEmptySubsequences: false).map { Int($0) }
        guard parts.count == 2, let major = parts[0], let minor = parts[1], major >= 0, minor >= 0 else { return nil }
        self.init(major: major, minor: minor)
    }

    /// "13.0"
    package var description: String { "\(major).\(minor)" }

    package static func < (a: CompilerVersion, b: CompilerVersion) -> Bool { (a.major, a.minor) < (b.major, b.minor) }

    /// Whether a driver of this CUDA version (13000 is 13.0) loads what this compiler makes: of the same major version or an older
    /// one. Later minor versions are loaded, by CUDA's minor version compatibility.
    package func isLoadable(byDriver version: Int) -> Bool { major <= version / 1000 }
}
