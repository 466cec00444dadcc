/// Up to five extents (or strides), stored inline: making and copying one allocates nothing.
@frozen
public struct Shape: Sendable {
    @usableFromInline
    internal var storage: InlineArray<5, Int>

    /// The number of dimensions, 0 ... 5.
    public let rank: Int

    /// The largest rank: a combined paged cache, `[pages, 2, pageSize, heads, headDim]`, has five dimensions.
    public static var maximumRank: Int { 5 }

    /// A shape of `rank` equal extents.
    @inlinable
    public init(repeating extent: Int, rank: Int) {
        precondition(rank <= Self.maximumRank, "a tensor has at most five dimensions")
        self.rank = rank
        storage = InlineArray(repeating: 0)
        for index in 0..<rank { storage[index] = extent }
    }

    /// A shape with these extents, outermost first.
    public init(_ extents: [Int]) {
        self.init(repeating: 0, rank: extents.count)
        for (index, extent) in extents.enumerated() { storage[index] = extent }
    }

    /// The extent of a dimension; negative positions count from the innermost.
    @inlinable
    public subscript(_ position: Int) -> Int {
        get { storage[resolved(position)] }
        set { storage[resolved(position)] = newValue }
    }

    @inlinable
    internal func resolved(_ position: Int) -> Int {
        let index = position < 0 ? position + rank : position
        precondition(index >= 0 && index < rank, "dimension out of range")
        return index
    }

    /// The product of the extents, or `nil` where it overflows or an extent is negative.
    public var elementCount: Int? {
        var product = 1
        for index in 0..<rank {
            guard storage[index] >= 0 else { return nil }
            let (next, overflow) = product.multipliedReportingOverflow(by: storage[index])
            if overflow { return nil }
            product = next
        }
        return product
    }

    /// Strides, in elements, of a row-major tensor of this shape, or `nil` where the element count overflows.
    public var contiguousStrides: Shape? {
        guard elementCount != nil else { return nil }
        var strides = Shape(repeating: 1, rank: rank)
        var next = 1
        for index in stride(from: rank - 1, through: 0, by: -1) {
            strides.storage[index] = next
            let (product, overflow) = next.multipliedReportingOverflow(by: Swift.max(storage[index], 1))
            if overflow { return nil }
            next = product
        }
        return strides
    }

    /// Elements from the first to the last that steps of `strides`, none of them negative, reach, both included; `nil` where that overflows.
    package func span(strides: Shape) -> Int? {
        var last = 0
        for dimension in 0..<rank {
            let (reach, overflow) = Swift.max(self[dimension] - 1, 0).multipliedReportingOverflow(
                by: strides[dimension])
            let (sum, carry) = last.addingReportingOverflow(reach)
            if overflow || carry { return nil }
            last = sum
        }
        return last == .max ? nil : last + 1
    }
}

extension Shape: Equatable {
    /// Whether rank and extents are equal.
    public static func == (left: Self, right: Self) -> Bool {
        guard left.rank == right.rank else { return false }
        for index in 0..<left.rank where left.storage[index] != right.storage[index] { return false }
        return true
    }
}

extension Shape: Hashable {
    /// Hashes rank and extents.
    public func hash(into hasher: inout Hasher) {
        hasher.combine(rank)
        for index in 0..<rank { hasher.combine(storage[index]) }
    }
}

extension Shape: ExpressibleByArrayLiteral {
    /// The shape with these extents, outermost first.
    public init(arrayLiteral extents: Int...) { self.init(extents) }
}

extension Shape: CustomStringConvertible {
    /// The text shown to people.
    public var description: String {
        "[" + (0..<rank).map { String(storage[$0]) }.joined(separator: ", ") + "]"
    }
}
