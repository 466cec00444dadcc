package import CUDAKernels
package import FlashInferCore

extension RoPEPartsKernel {
    /// The launch of an operation.
    ///
    /// - Parameter slots: the address of the slots, `[2, tokens]`.
    package static func lower(
        _ operation: RoPEAppendKVOperation, angles: fi_rope_angles, slots: UInt
    ) throws(FlashInferError) -> KernelLaunch<fi_rope_parts_params>? {
        let (cache, scales) = (operation.cache, operation.cache.scales)
        return try launch(
            [
                Part(
                    input: operation.queries, name: "queries", output: operation.queryOutput, turns: true,
                    factor: 1 / operation.queryScale, weight: operation.normalization?.queryWeight),
                Part(
                    input: operation.keys, name: "keys", output: cache.keys.view, cache: cache.keys, turns: true,
                    factor: 1 / scales.key, scale: scales.key, scales: scales.keyPerHead,
                    weight: operation.normalization?.keyWeight),
                Part(
                    input: operation.values, name: "values", output: cache.values.view, cache: cache.values,
                    turns: false, factor: 1 / scales.value, scale: scales.value, scales: scales.valuePerHead),
            ],
            Shared(
                angles: angles, positions: operation.positions,
                rotaryDim: operation.parameters.rotaryDim ?? operation.queries.shape[2],
                pairing: operation.parameters.pairing, normalization: operation.normalization, slots: slots,
                cache: cache.keys))
    }

    /// The launches of an operation with heads that are normalised: one, or two where queries and keys differ in type.
    package static func lower(
        _ operation: RoPEOperation, angles: fi_rope_angles
    ) throws(FlashInferError) -> [KernelLaunch<fi_rope_parts_params>] {
        let shared = Shared(
            angles: angles, positions: operation.positions,
            rotaryDim: operation.parameters.rotaryDim ?? operation.queries.shape[2],
            pairing: operation.parameters.pairing, normalization: operation.normalization)
        var parts = [
            Part(
                input: operation.queries, name: "queries", output: operation.queryOutput, turns: true,
                weight: operation.normalization?.queryWeight)
        ]
        if let keys = operation.keys, let output = operation.keyOutput {
            parts.append(
                Part(
                    input: keys, name: "keys", output: output, turns: true,
                    weight: operation.normalization?.keyWeight))
        }
        var launches: [KernelLaunch<fi_rope_parts_params>] = []
        let isOneType = parts.allSatisfy { $0.input.dtype == parts[0].input.dtype }
        for parts in isOneType ? [parts] : parts.map({ [$0] }) {
            if let launch = try launch(parts, shared) { launches.append(launch) }
        }
        return launches
    }

    /// The launch of an operation.
    ///
    /// - Parameter slots: the address of the slots, `[2, tokens]`, where keys go to a cache.
    package static func lower(
        _ operation: SplitRoPEOperation, angles: fi_rope_angles, slots: UInt
    ) throws(FlashInferError) -> KernelLaunch<fi_rope_parts_params>? {
        let (queries, keys, output) = (operation.queries, operation.keys, operation.queryOutput)
        let (rotaryDim, keyFactor) = (operation.rotaryDim, operation.keyFactor)
        var turning = [
            Part(
                input: queries.turning, name: "queries", output: output.turning, turns: true,
                factor: operation.queryFactor)
        ]
        var moved: [Part] = []
        if let input = queries.rest, let rest = output.rest {
            moved.append(
                Part(
                    input: input, name: "rest of queries", output: rest, turns: false, factor: operation.queryFactor))
        }
        /// Keys (or values) to a tensor, or to the elements of a cache's heads from `start` on.
        func part(
            _ input: TensorView, _ name: StaticString, _ output: TensorView, _ cache: KVTensor? = nil,
            at start: Int = 0,
            turns: Bool = false
        ) -> Part {
            let last = output.rank - 1
            return Part(
                input: input, name: name, output: output.slice(start..<start + input.width, along: last), cache: cache,
                turns: turns, factor: keyFactor)
        }
        var slotted: KVTensor?
        switch operation.keyOutput {
        case .tensors(let output):
            turning.append(part(keys.turning, "keys", output.turning, turns: true))
            if let input = keys.rest, let rest = output.rest { moved.append(part(input, "rest of keys", rest)) }
        case .cache(let cache, _):
            slotted = cache.keys
            turning.append(part(keys.turning, "keys", cache.keys.view, cache.keys, turns: true))
            if let rest = keys.rest {
                moved.append(part(rest, "rest of keys", cache.keys.view, cache.keys, at: rotaryDim))
            }
            if let values = operation.values {
                moved.append(part(values, "values", cache.values.view, cache.values))
            }
        case .latentCache(let cache, _):
            slotted = cache.keys
            turning.append(part(keys.turning, "keys", cache.values.view, cache.values, turns: true))
            if let rest = keys.rest { moved.append(part(rest, "rest of keys", cache.keys.view, cache.keys)) }
        }
        return try launch(
            turning + moved,
            Shared(
                angles: angles, positions: operation.positions, rotaryDim: rotaryDim,
                pairing: operation.parameters.pairing, slots: slots, cache: slotted))
    }
}
