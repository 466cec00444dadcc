package import FlashInferCore

/// What a device opens at its first weights, as a process may never need it.
package final class LinearState: Sendable {
    private let linear = Locked<CUDALinear?>(nil)

    package init() {}

    /// The device's products, opened with `open` the first time.
    package func get(_ open: () throws(FlashInferError) -> CUDALinear) throws(FlashInferError) -> CUDALinear {
        try linear.withLock { (linear) throws(FlashInferError) in
            if let linear { return linear }
            let opened = try open()
            linear = opened
            return opened
        }
    }
}

extension CUDADevice {
    /// Graphs are recorded; see ``capture(_:)``.
    public var recordsGraphs: Bool { true }

    /// Products, by cuBLASLt.
    ///
    /// - Throws: ``FlashInferError/deviceFailure(call:message:)`` that says what to install where the library is absent.
    package func products() throws(FlashInferError) -> CUDALinear {
        try linear.get { () throws(FlashInferError) in
            let library = try CUBLASLt.load(driverVersion: queue.context.driver.version)
            return try CUDALinear(library, on: queue, name: name)
        }
    }

    /// Finds out now whether matrix products can be had, which the first weights find out else.
    ///
    /// - Throws: ``FlashInferError/deviceFailure(call:message:)`` that says what to install where cuBLASLt is absent.
    public func requireProducts() throws(FlashInferError) {
        // The first time allocates.
        _ = try queue.gate.inside { () throws(FlashInferError) in try products() }
    }

    /// Dequantises weights to float16 (bfloat16 where the file has that, or a weight is past 65,504) and puts them on the GPU.
    ///
    /// - Throws: ``FlashInferError`` where parts disagree, cuBLASLt is absent, or memory is short.
    public func makeWeights(_ parts: [WeightRows]) throws(FlashInferError) -> any DeviceWeights {
        // Absent, it is missed here and not in the middle of a step.
        try requireProducts()
        return try CUDAWeights(parts, on: self)
    }

    /// Enqueues a product: the input is converted to the weights' type where it is of another, sums are float32.
    func execute(_ operation: LinearOperation) throws(FlashInferError) {
        guard let weights = operation.weights as? CUDAWeights, weights.queue === queue else {
            throw .invalidArgument(
                "weights", found: "of \(operation.weights.device)", expected: "made by this device's makeWeights")
        }
        let products = try products()
        let input = operation.input
        let rows = input.shape[0]
        if rows == 0 { return }
        let isAligned =
            input.address % 16 == 0
            && (rows == 1 || (input.strides[0] % 8 == 0 && input.strides[0] >= input.shape[1]))
        if input.dtype == weights.inputType && isAligned {
            return try multiply(input, weights, operation, products)
        }
        try products.withScratch(weights.inputType, rows, weights.columns) { (converted) throws(FlashInferError) in
            try enqueue(.convert(ConvertOperation(input: input, output: converted)))
            try multiply(converted, weights, operation, products)
        }
    }

    private func multiply(
        _ input: TensorView, _ weights: CUDAWeights, _ operation: LinearOperation, _ products: CUDALinear
    ) throws(FlashInferError) {
        let (output, bias) = (operation.output, operation.bias)
        if try products.multiply(input, weights, into: output, bias: bias, accumulates: operation.accumulates) {
            return
        }
        _ = try products.multiply(input, weights, into: output, bias: nil, accumulates: operation.accumulates)
        guard let bias else { return }
        let everyRow = try TensorView(
            bias.region, byteOffset: bias.byteOffset, dtype: .float32, shape: output.shape, strides: [0, 1],
            name: "linear bias")
        try enqueue(.add(AddOperation(first: output, second: everyRow, output: output)))
    }
}
