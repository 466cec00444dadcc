/// A tensor that a variant reads, by its name: declared where the variant is written, given where it is run.
///
/// ```swift
/// let slopes = Parameter<Float>("slopes", .perHead)
/// let variant = AttentionVariant("alibi", mask: .causal) { score, at in
///     score + slopes[at.head] * (at.keyPosition - at.queryPosition).float
/// }
/// ```
/// An index outside the tensor reads its nearest element, so no expression reads out of bounds.
public struct Parameter<Value: ParameterElement>: Sendable, Hashable {
    /// Name, extent and type.
    package let declaration: ParameterDeclaration

    /// A parameter.
    ///
    /// - Parameters:
    ///   - name: what a run gives the tensor by.
    ///   - extent: its shape.
    public init(_ name: String, _ extent: ParameterExtent) {
        declaration = ParameterDeclaration(name: name, extent: extent, type: Value.parameterType)
    }

    /// The only element.
    ///
    /// - Precondition: the extent is `.scalar`.
    public var value: Expr<Value> {
        precondition(declaration.extent == .scalar, "\(declaration.name) is not a scalar: give it an index")
        return load([ExprGraph.constant(Int32(0))])
    }

    /// The element of a head, a request, a position or a table, as the extent says.
    ///
    /// - Precondition: the extent has one index.
    public subscript(_ index: Expr<Int32>) -> Expr<Value> {
        precondition(
            declaration.extent.indexCount == 1, "\(declaration.name) has \(declaration.extent.indexCount) indices")
        return load([index.graph])
    }

    /// The element of a table with a row for each head.
    ///
    /// - Precondition: the extent is `.perHeadTable`.
    public subscript(_ head: Expr<Int32>, _ index: Expr<Int32>) -> Expr<Value> {
        precondition(
            declaration.extent.indexCount == 2, "\(declaration.name) has \(declaration.extent.indexCount) indices")
        return load([index.graph, head.graph])
    }

    private func load(_ indices: [ExprGraph]) -> Expr<Value> {
        var builder = ExprBuilder()
        let places = indices.map { builder.append($0) }
        let root = builder.load(declaration, places)
        return Expr(graph: builder.graph(of: root))
    }
}

/// The shape of a parameter's tensor.
public enum ParameterExtent: Sendable, Hashable {
    /// `[1]`
    case scalar
    /// `[queryHeads]`
    case perHead
    /// `[requests]`
    case perRequest
    /// `[requests, positions]`, with as many positions as the longest request has keys, or more; the index is a position in the site's
    /// request.
    case perPosition
    /// `[count]`
    case table(count: Int)
    /// `[queryHeads, count]`
    case perHeadTable(count: Int)
    /// A byte for each query and key: the run's mask, as ``Mask/custom`` has it. The site says which element.
    case maskBytes
    /// A bit for each query and key: the run's mask, as ``Mask/customPacked`` has it.
    case maskBits

    /// How many indices a load has.
    package var indexCount: Int {
        switch self {
        case .scalar, .perHead, .perRequest, .perPosition, .table: 1
        case .perHeadTable: 2
        case .maskBytes, .maskBits: 0
        }
    }
}

extension ParameterExtent: CustomStringConvertible {
    /// As it is written in texts.
    public var description: String {
        switch self {
        case .scalar: "scalar"
        case .perHead: "perHead"
        case .perRequest: "perRequest"
        case .perPosition: "perPosition"
        case .table(let count): "table(\(count))"
        case .perHeadTable(let count): "perHeadTable(\(count))"
        case .maskBytes: "maskBytes"
        case .maskBits: "maskBits"
        }
    }
}

/// An element of a parameter: `Float` or `Int32`.
public protocol ParameterElement: ExprValue {
    /// The tensor's type.
    static var parameterDType: DType { get }
}

extension ParameterElement {
    package static var parameterType: ParameterDeclaration.Element { parameterDType == .float32 ? .float : .int }
}

extension Float: ParameterElement {
    /// float32
    public static var parameterDType: DType { .float32 }
}

extension Int32: ParameterElement {
    /// int32
    public static var parameterDType: DType { .int32 }
}

/// What is known of a parameter before there is a tensor.
package struct ParameterDeclaration: Sendable, Hashable {
    /// What an element is.
    package enum Element: String, Sendable, Hashable {
        case float, int, bool

        package var expression: ExprType {
            switch self {
            case .float: .float
            case .int: .int
            case .bool: .bool
            }
        }
    }

    package let name: String
    package let extent: ParameterExtent
    package let type: Element

    package init(name: String, extent: ParameterExtent, type: Element) {
        self.name = name
        self.extent = extent
        self.type = type
    }

    /// The tensor's type.
    package var dtype: DType {
        switch type {
        case .float: .float32
        case .int: .int32
        case .bool: .uint8
        }
    }

    /// The run's own mask.
    package static let maskBytes = ParameterDeclaration(name: "mask", extent: .maskBytes, type: .bool)
    package static let maskBits = ParameterDeclaration(name: "mask", extent: .maskBits, type: .bool)
    /// ALiBi's slopes, which a run may leave out.
    package static let alibiSlopes = ParameterDeclaration(name: "alibiSlopes", extent: .perHead, type: .float)
    /// The sinks' logits.
    package static let sinks = ParameterDeclaration(name: "sinks", extent: .perHead, type: .float)

    /// Those that have arguments of their own in a run.
    package var isBuiltIn: Bool {
        self == .maskBytes || self == .maskBits || self == .alibiSlopes || self == .sinks
    }
}
