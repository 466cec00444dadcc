extension ModelConfig {
    /// Throws when the settings cannot belong to a model: a count of zero or beyond any real model's, an odd head, key
    /// heads that do not divide query heads, a number that is not finite, a token outside the vocabulary.
    public func validate() throws(ModelConfigError) {
        try check("layerCount", layerCount, 1...1024)
        try check("hiddenSize", hiddenSize, 1...(1 << 20))
        try check("intermediateSize", intermediateSize, 1...(1 << 22))
        try check("headCount", headCount, 1...4096)
        try check("kvHeadCount", kvHeadCount, 1...headCount)
        try require(headCount % kvHeadCount == 0, "kvHeadCount", kvHeadCount, "a divisor of headCount \(headCount)")
        try check("headDim", headDim, 2...4096)
        try require(headDim % 2 == 0, "headDim", headDim, "even")
        try check("vocabularySize", vocabularySize, 1...(1 << 24))
        try check("contextLength", contextLength, 1...(1 << 30))
        try checkPositive("rmsNormEpsilon", rmsNormEpsilon)
        try checkPositive("attentionScale", attentionScale)
        try checkPositive("embeddingScale", embeddingScale)
        try require(normWeightOffset.isFinite, "normWeightOffset", normWeightOffset, "finite")
        if let attentionSoftCap { try checkPositive("attentionSoftCap", attentionSoftCap) }
        if let finalSoftCap { try checkPositive("finalSoftCap", finalSoftCap) }
        try validateRope()
        try validateWindow()
        try validateTokens()
    }

    private func validateRope() throws(ModelConfigError) {
        try checkPositive("rope.theta", rope.theta)
        if let localTheta = rope.localTheta { try checkPositive("rope.localTheta", localTheta) }
        switch rope.scaling {
        case .none: break
        case .linear(let factor): try checkPositive("rope.scaling.factor", factor)
        case .llama3(let factor, let low, let high, let originalContext):
            try checkPositive("rope.scaling.factor", factor)
            try checkPositive("rope.scaling.lowFrequencyFactor", low)
            try checkPositive("rope.scaling.highFrequencyFactor", high)
            try require(low < high, "rope.scaling.highFrequencyFactor", high, "above lowFrequencyFactor \(low)")
            try check("rope.scaling.originalContext", originalContext, 1...(1 << 30))
        case .frequencyFactors(let factors):
            try require(
                factors.count == headDim / 2, "rope.scaling.frequencyFactors", "\(factors.count) factors",
                "headDim / 2 = \(headDim / 2) factors")
            for factor in factors { try checkPositive("rope.scaling.frequencyFactors", factor) }
        }
    }

    private func validateWindow() throws(ModelConfigError) {
        guard let slidingWindow else { return }
        try check("slidingWindow.size", slidingWindow.size, 1...(1 << 30))
        try require(
            slidingWindow.layers.count == layerCount, "slidingWindow.layers", "\(slidingWindow.layers.count) entries",
            "layerCount = \(layerCount) entries")
    }

    private func validateTokens() throws(ModelConfigError) {
        if let bosID { try check("bosID", bosID, 0...(vocabularySize - 1)) }
        for id in eosIDs { try check("eosIDs", id, 0...(vocabularySize - 1)) }
        if let padID { try check("padID", padID, 0...(vocabularySize - 1)) }
    }

    private func check(_ key: String, _ value: Int, _ range: ClosedRange<Int>) throws(ModelConfigError) {
        try require(range.contains(value), key, value, "\(range.lowerBound) to \(range.upperBound)")
    }

    private func checkPositive(_ key: String, _ value: Float) throws(ModelConfigError) {
        try require(value.isFinite && value > 0, key, value, "finite and above 0")
    }

    private func require(
        _ condition: Bool, _ key: String, _ value: some CustomStringConvertible, _ requirement: String
    ) throws(ModelConfigError) {
        guard condition else {
            throw .invalidValue(key: key, value: value.description, requirement: requirement)
        }
    }
}
