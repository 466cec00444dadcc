/// What machine code is made for: "sm_90a" is compute capability 9.0, with the instructions that only 9.0 has.
package struct Architecture: Hashable, Sendable {
    /// 9 of 9.0
    package let major: Int
    /// 0 of 9.0
    package let minor: Int
    /// Whether code may use what later processors do not keep.
    package let isSpecific: Bool

    package init(major: Int, minor: Int, isSpecific: Bool = false) {
        self.major = major
        self.minor = minor
        self.isSpecific = isSpecific
    }

    /// Reads "sm_90a", or gives nil.
    package init?(_ name: String) {
        var digits = Substring(name)
        guard digits.hasPrefix("sm_") else { return nil }
        digits = digits.dropFirst(3)
        isSpecific = digits.hasSuffix("a")
        if isSpecific { digits = digits.dropLast() }
        guard let number = Int(digits), number >= 10, number < 1000, digits.allSatisfy(\.isNumber) else { return nil }
        (major, minor) = number.quotientAndRemainder(dividingBy: 10)
    }

    /// The best code for a GPU: that of exactly its compute capability. Hopper's kernels need what only 9.0 has.
    package init(of properties: CUDAProperties) {
        let (major, minor) = properties.computeCapability
        self.init(major: major, minor: minor, isSpecific: (major, minor) == (9, 0))
    }

    /// Itself, then what else runs on the same GPU, the best first: code for a lower minor version of the same major one.
    package var fallbacks: [Architecture] {
        var all = [self]
        if isSpecific { all.append(Architecture(major: major, minor: minor)) }
        for lower in stride(from: minor - 1, through: 0, by: -1) {
            all.append(Architecture(major: major, minor: lower))
        }
        return all
    }
}

extension Architecture: CustomStringConvertible {
    /// "sm_90a"
    package var description: String { "sm_\(major)\(minor)\(isSpecific ? "a" : "")" }
}
