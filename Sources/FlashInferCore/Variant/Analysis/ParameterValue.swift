internal import Synchronization

/// A parameter's elements as they are known when planning, so that the planner can skip what they hide: the numbers of documents,
/// the lengths of prefixes. They must be those of the tensor that the run is given.
///
/// What the planner wants to know of the elements is found out once for a value, at its first use: plans that are made from the same
/// one again do not pay for it.
public struct ParameterValue: Sendable {
    private enum Elements: Sendable, Hashable {
        case floats([Float])
        case ints([Int32])
    }

    /// What copies of a value share.
    private final class Storage: Sendable {
        let elements: Elements
        let ranges = AtomicLazyReference<RangeTable>()

        init(_ elements: Elements) { self.elements = elements }
    }

    private let storage: Storage

    private var elements: Elements { storage.elements }

    /// Elements of a float32 parameter, row-major.
    public init(_ elements: [Float]) { storage = Storage(.floats(elements)) }

    /// Elements of an int32 parameter, row-major.
    public init(_ elements: [Int32]) { storage = Storage(.ints(elements)) }

    /// Elements of an int32 parameter of extent ``ParameterExtent/perPosition``, request by request; shorter rows are padded with their
    /// last element.
    public init(positions rows: [[Int32]]) { self.init(Self.padded(rows, with: 0)) }

    /// The same of a float32 parameter.
    public init(floatPositions rows: [[Float]]) { self.init(Self.padded(rows, with: 0)) }

    private static func padded<Element>(_ rows: [[Element]], with none: Element) -> [Element] {
        let width = rows.reduce(1) { Swift.max($0, $1.count) }
        return rows.flatMap { row in
            row + [Element](repeating: row.last ?? none, count: width - row.count)
        }
    }

    /// The number of elements.
    public var count: Int {
        switch elements {
        case .floats(let elements): elements.count
        case .ints(let elements): elements.count
        }
    }

    /// The tensor's type.
    package var dtype: DType { isFloat ? .float32 : .int32 }

    package var isFloat: Bool {
        if case .floats = elements { true } else { false }
    }

    /// The least and largest elements of any range of rows' elements.
    func ranges(rows: Int) -> RangeTable {
        guard let known = storage.ranges.load() else { return storage.ranges.storeIfNil(RangeTable(self, rows: rows)) }
        // A value that is used with another number of rows than at first is an exception.
        return known.rows == max(rows, 1) ? known : RangeTable(self, rows: rows)
    }

    var doubles: [Double] {
        switch elements {
        case .floats(let elements): elements.map { Double($0) }
        case .ints(let elements): elements.map { Double($0) }
        }
    }

    /// Calls `body` with the elements as they lie in memory.
    package func withBytes<R, E: Error>(_ body: (UnsafeRawBufferPointer) throws(E) -> R) throws(E) -> R {
        switch elements {
        case .floats(let elements):
            let result = elements.withUnsafeBytes { bytes in Result { () throws(E) in try body(bytes) } }
            return try result.get()
        case .ints(let elements):
            let result = elements.withUnsafeBytes { bytes in Result { () throws(E) in try body(bytes) } }
            return try result.get()
        }
    }
}

extension ParameterValue: Hashable {
    /// By the elements.
    public static func == (left: ParameterValue, right: ParameterValue) -> Bool {
        left.storage === right.storage || left.elements == right.elements
    }

    /// Feeds the elements.
    public func hash(into hasher: inout Hasher) { hasher.combine(elements) }
}

extension ParameterValue: ExpressibleByArrayLiteral {
    /// Elements of an int32 parameter.
    public init(arrayLiteral elements: Int32...) { self.init(elements) }
}

extension ParameterExtent {
    /// The rows of the tensor, each of which is indexed by itself.
    package func rows(_ geometry: BatchGeometry, _ shape: AttentionShape) -> Int {
        switch self {
        case .perPosition: geometry.requestCount
        case .perHeadTable: shape.queryHeads
        default: 1
        }
    }

    /// The tensor's shape; `nil` for a mask, whose bytes ``AttentionOperation/maskIndptr(_:packed:)`` gives.
    package func shape(_ geometry: BatchGeometry, _ shape: AttentionShape, positions: Int) -> Shape? {
        switch self {
        case .scalar: [1]
        case .perHead: [shape.queryHeads]
        case .perRequest: [geometry.requestCount]
        case .perPosition: [geometry.requestCount, positions]
        case .table(let count): [count]
        case .perHeadTable(let count): [shape.queryHeads, count]
        case .maskBytes, .maskBits: nil
        }
    }
}
