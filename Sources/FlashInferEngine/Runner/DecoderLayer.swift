internal import FlashInfer

/// A device tensor that several places share.
final class SharedTensor: Sendable {
    private let buffer: DeviceBuffer

    init(_ buffer: consuming DeviceBuffer) { self.buffer = buffer }

    var view: TensorView { buffer.view }

    /// Overwrites the first elements.
    func write<Element: TensorElement>(_ elements: [Element]) throws(FlashInferError) { try buffer.write(elements) }
}

/// Projections of one input that write side by side into one output: q, k and v, or gate and up.
///
/// Neighbours in one format are stacked into a single product; files that mix formats (Q4_K_M) give several products.
struct FusedProjection: Sendable {
    private let parts: [(weights: any DeviceWeights, columns: Range<Int>)]

    /// Output features of all parts together.
    let width: Int

    init(_ tensors: [WeightTensor], on device: any Device) throws(FlashInferError) {
        var parts: [(any DeviceWeights, Range<Int>)] = []
        var width = 0
        var start = 0
        while start < tensors.count {
            var end = start + 1
            while end < tensors.count, tensors[end].format == tensors[start].format { end += 1 }
            var rows: [WeightRows] = []
            for tensor in tensors[start..<end] { rows.append(try tensor.weightRows) }
            let weights = try device.makeWeights(rows)
            parts.append((weights, width..<width + weights.rows))
            width += weights.rows
            start = end
        }
        self.parts = parts
        self.width = width
    }

    /// `output[:, part] (+)= input · partᵀ (+ bias)` for every part.
    func run(
        _ input: TensorView, into output: TensorView, bias: TensorView? = nil, accumulates: Bool = false,
        on device: any Device
    ) throws(FlashInferError) {
        for part in parts {
            try device.run(
                .linear(
                    LinearOperation(
                        input: input, weights: part.weights, output: output.slice(part.columns, along: 1),
                        bias: bias?.slice(part.columns), accumulates: accumulates)))
        }
    }

    /// The products' weights.
    var weights: [any DeviceWeights] { parts.map(\.weights) }
}

/// The weights of one decoder layer, on a device.
struct DecoderLayer: Sendable {
    let attentionNorm: SharedTensor
    let qkv: FusedProjection
    /// `[qkv.width]`, of Qwen 2.
    let qkvBias: SharedTensor?
    /// `[headDim]`, of Qwen 3 and Gemma 3.
    let queryNorm: SharedTensor?
    let keyNorm: SharedTensor?
    let attentionOutput: FusedProjection
    /// Of Gemma 3.
    let postAttentionNorm: SharedTensor?
    let feedForwardNorm: SharedTensor
    let gateUp: FusedProjection
    let down: FusedProjection
    /// Of Gemma 3.
    let postFeedForwardNorm: SharedTensor?

    init(_ layer: Int, of weights: ModelWeights, on device: any Device) throws {
        func vector(_ role: WeightRole) throws -> SharedTensor {
            try SharedTensor(.init(vector: weights.tensor(role), on: device))
        }
        func optional(_ role: WeightRole) throws -> SharedTensor? { weights[role] == nil ? nil : try vector(role) }
        func fused(_ roles: WeightRole...) throws -> FusedProjection {
            try FusedProjection(roles.map { try weights.tensor($0) }, on: device)
        }
        attentionNorm = try vector(.attentionNorm(layer: layer))
        qkv = try fused(.query(layer: layer), .key(layer: layer), .value(layer: layer))
        qkvBias =
            weights.config.attentionBias
            ? try SharedTensor(
                .init(
                    vectors: [.queryBias(layer: layer), .keyBias(layer: layer), .valueBias(layer: layer)].map {
                        try weights.tensor($0)
                    }, on: device)) : nil
        queryNorm = try optional(.queryNorm(layer: layer))
        keyNorm = try optional(.keyNorm(layer: layer))
        attentionOutput = try fused(.attentionOutput(layer: layer))
        postAttentionNorm = try optional(.postAttentionNorm(layer: layer))
        feedForwardNorm = try vector(.feedForwardNorm(layer: layer))
        gateUp = try fused(.gate(layer: layer), .up(layer: layer))
        down = try fused(.down(layer: layer))
        postFeedForwardNorm = try optional(.postFeedForwardNorm(layer: layer))
    }

    /// The weights of all products.
    var weights: [any DeviceWeights] { qkv.weights + attentionOutput.weights + gateUp.weights + down.weights }
}

extension DeviceBuffer {
    /// A norm's weights or a bias as float32.
    init(vector tensor: WeightTensor, on device: any Device) throws { try self.init(vectors: [tensor], on: device) }

    /// Vectors, one after another, as float32.
    init(vectors tensors: [WeightTensor], on device: any Device) throws {
        var elements: [Float] = []
        for tensor in tensors {
            elements += try tensor.weightRows.row(0)
        }
        try self.init(on: device, elements, shape: [elements.count])
    }
}

extension WeightTensor {
    /// The tensor as the kernels' packing takes it; valid while the mapped file lives.
    var weightRows: WeightRows {
        get throws(FlashInferError) {
            try WeightRows(bytes, format: format, rows: rows, columns: columns, name: name)
        }
    }
}
