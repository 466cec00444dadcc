/// The k greatest entries of each row, with their places.
///
/// Of equal entries the lowest places are taken, zeros of both signs being equal; a NaN comes before every number, as in torch. So
/// the result is one and the same on every device. Without `isSorted` entries come in the order of their places.
///
/// With `temperature`, values are the natural logarithms of `softmax(input / temperature)` instead: log-probabilities of the
/// likeliest tokens. A row without a distribution then gives NaN and places of −1, and says so in `status`.
public struct TopKOperation: Sendable, Equatable {
    /// `[rows, width]`, stride 1 within a row, float32, float16 or bfloat16.
    public var input: TensorView
    /// `[rows, k]`, stride 1 within a row, 1 ≤ k ≤ width: of the input's type, or float32 for log-probabilities.
    public var values: TensorView
    /// `[rows, k]`, int32, stride 1 within a row.
    public var places: TensorView
    /// Whether the greatest comes first.
    public var isSorted: Bool
    /// Makes values log-probabilities at this temperature, above 0.
    public var temperature: Float?
    /// `[rows]`, uint8, contiguous: a ``RowStatus`` for each row; with a temperature, and only then.
    public var status: TensorView?

    /// An operation; call ``validate()`` before it is executed.
    public init(input: TensorView, values: TensorView, places: TensorView, isSorted: Bool = true) {
        self.input = input
        self.values = values
        self.places = places
        self.isSorted = isSorted
    }

    /// Log-probabilities of the likeliest tokens; call ``validate()`` before it is executed.
    public init(
        logits: TensorView, logProbabilities: TensorView, tokens: TensorView, status: TensorView,
        temperature: Float = 1, isSorted: Bool = true
    ) {
        self.init(input: logits, values: logProbabilities, places: tokens, isSorted: isSorted)
        self.temperature = temperature
        self.status = status
    }

    /// Entries taken of each row.
    public var count: Int { values.shape[-1] }

    /// Checks every tensor.
    ///
    /// - Throws: ``FlashInferError`` that names the tensor, what it is, and what it must be.
    public func validate() throws(FlashInferError) {
        let checks = TensorChecks(device: input.device)
        guard input.rank == 2 else {
            throw .invalidArgument("input", found: "of shape \(input.shape)", expected: "[rows, width]")
        }
        try checks.rows(input, "input")
        try checks.width(input, "input")
        guard values.rank == 2, values.shape[0] == input.shape[0], values.shape[1] >= 1,
            values.shape[1] <= input.shape[1]
        else {
            throw .invalidArgument(
                "values", found: "of shape \(values.shape)",
                expected: "[\(input.shape[0]), k] with k in 1 ... \(input.shape[1])")
        }
        let type = temperature == nil ? input.dtype : .float32
        guard values.dtype == type else {
            throw .invalidArgument("values", found: "\(values.dtype)", expected: "\(type)")
        }
        guard places.dtype == .int32 else {
            throw .invalidArgument("places", found: "\(places.dtype)", expected: "int32")
        }
        try checks.shape(places, "places", values.shape)
        for (view, name) in [(values, "values"), (places, "places")] {
            try checks.anyRows(view, name)
            try checks.writable(view, name)
            try checks.apart(view, name, from: input, "input")
        }
        if let temperature, !(temperature > 0 && temperature.isFinite) {
            throw .invalidArgument("temperature", found: "\(temperature)", expected: "finite and above 0")
        }
        switch (temperature, status) {
        case (nil, nil): break
        case (_?, let status?): try checks.vector(status, "status", .uint8, input.shape[0])
        case (nil, _?): throw .invalidArgument("status", found: "a tensor", expected: "none without a temperature")
        case (_?, nil): throw .invalidArgument("status", found: "none", expected: "uint8 [\(input.shape[0])]")
        }
    }
}
