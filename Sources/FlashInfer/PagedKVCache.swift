public import FlashInferCore

/// The keys and values of every layer of a model, in pages.
///
/// One allocation; each layer is a combined cache `[pages, 2, pageSize, heads, headDim]` (``KVLayout/nhd``) or
/// `[pages, 2, heads, pageSize, headDim]` (``KVLayout/hnd``).
///
/// ```swift
/// let cache = try PagedKVCache(
///     on: device, layers: 30, pages: 512, pageSize: 16, heads: 3, headDim: 64, dtype: .float16)
/// try device.run(.attention(AttentionOperation(…, cache: cache.view(ofLayer: 0), …)))
/// ```
public struct PagedKVCache: ~Copyable, Sendable {
    /// The number of layers.
    public let layerCount: Int
    /// Pages of each layer.
    public let pageCount: Int
    /// Tokens of a page.
    public let pageSize: Int
    /// Whether tokens or heads come first within a page.
    public let layout: KVLayout

    private let buffer: DeviceBuffer
    private let views: [KVCacheView]

    /// Allocates a cache, all zeros.
    ///
    /// - Parameters:
    ///   - layers: layers of the model.
    ///   - pages: pages of each layer.
    ///   - pageSize: tokens of a page, 1 or more.
    ///   - heads: key/value heads.
    ///   - headDim: elements of a head.
    ///   - dtype: the stored type; quantised types read back as `stored × scale`.
    ///   - layout: the order of tokens and heads.
    ///   - scales: the scales of a quantised cache, for all layers.
    /// - Throws: ``FlashInferError`` for sizes below 1, sizes that overflow, types no cache has, and lack of memory.
    public init(
        on device: any Device, layers: Int, pages: Int, pageSize: Int, heads: Int, headDim: Int, dtype: DType,
        layout: KVLayout = .nhd, scales: KVScales = KVScales()
    ) throws(FlashInferError) {
        for (name, value) in [
            ("layers", layers), ("pages", pages), ("pageSize", pageSize), ("heads", heads), ("headDim", headDim),
        ] where value < 1 || value > Int(Int32.max) {
            throw .invalidArgument(name, found: "\(value)", expected: "in 1 ... \(Int32.max)")
        }
        let inner: (Int, Int) = layout == .nhd ? (pageSize, heads) : (heads, pageSize)
        let layer: Shape = [pages, 2, inner.0, inner.1, headDim]
        guard let layerElements = layer.elementCount,
            case (let elements, false) = layerElements.multipliedReportingOverflow(by: layers),
            case (let bytes, false) = elements.multipliedReportingOverflow(by: dtype.byteCount)
        else { throw .overflow("cache size") }
        if let memory = device.limits.memoryByteCount, bytes > memory {
            throw .outOfMemory(byteCount: bytes, device: device.name)
        }
        let buffer = try DeviceBuffer(on: device, dtype: dtype, shape: [elements])
        try device.fill(buffer.region, with: 0)
        var views: [KVCacheView] = []
        for index in 0..<layers {
            let view = try TensorView(
                buffer.region, byteOffset: index * layerElements * dtype.byteCount, dtype: dtype, shape: layer,
                name: "cache")
            views.append(try .paged(combined: view, layout: layout, scales: scales))
        }
        layerCount = layers
        pageCount = pages
        self.pageSize = pageSize
        self.layout = layout
        self.buffer = buffer
        self.views = views
    }

    /// The keys and values of one layer; valid while the cache lives.
    ///
    /// - Precondition: `layer` is in `0 ..< layerCount`.
    public func view(ofLayer layer: Int) -> KVCacheView { views[layer] }

    /// Bytes of the whole cache.
    public var byteCount: Int { buffer.region.byteCount }

    /// Bytes that one token takes in all layers.
    public var byteCountPerToken: Int { byteCount / (pageCount * pageSize) }
}
