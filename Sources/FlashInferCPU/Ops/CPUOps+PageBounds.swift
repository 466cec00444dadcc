internal import CFlashInferCPU
public import FlashInferCore

extension CPUOps {
    /// The bounds of the pages that new keys have come to.
    public func execute(_ operation: UpdatePageBoundsOperation) {
        let (keys, bounds, table) = (operation.keys, operation.bounds, operation.table)
        guard let lengths = operation.lengths.elements(as: Int32.self),
            let appended = operation.appended.elements(as: Int32.self), let pages = table.elements(as: Int32.self),
            let from = keys.view.pointer, let to = bounds.pointer
        else { return }
        let (size, dim) = (keys.blockSize ?? 1, keys.headDim)
        let places = operation.maximumPages
        let (keyBytes, boundBytes) = (keys.dtype.byteCount, bounds.dtype.byteCount)
        spread(rows: table.shape[0] * places, units: table.shape[0] * places * size * keys.headCount * dim) {
            _, first, last in
            var row = [Float](repeating: 0, count: dim), least = row, greatest = row
            for item in Int(first)..<Int(last) {
                let (request, index) = item.quotientAndRemainder(dividingBy: places)
                let touched = operation.touched(length: Int(lengths[request]), appended: Int(appended[request]))
                let place = touched.lowerBound + index
                guard place < touched.upperBound else { continue }
                let page = Int(pages[request * table.strides[0] + place])
                let rows = min(Int(lengths[request]) - place * size, size)
                for head in 0..<keys.headCount {
                    for d in 0..<dim { (least[d], greatest[d]) = (.infinity, -.infinity) }
                    for token in 0..<rows {
                        let offset = page * keys.blockStride + token * keys.tokenStride + head * keys.headStride
                        row.withUnsafeMutableBufferPointer { widen(from + offset * keyBytes, keys.dtype, into: $0) }
                        for d in 0..<dim {
                            least[d] = row[d] < least[d] ? row[d] : least[d]
                            greatest[d] = row[d] > greatest[d] ? row[d] : greatest[d]
                        }
                    }
                    let offset = page * bounds.strides[0] + head * bounds.strides[2]
                    narrow(least, to + offset * boundBytes, bounds.dtype)
                    narrow(greatest, to + (offset + bounds.strides[1]) * boundBytes, bounds.dtype)
                }
            }
        }
    }

    /// Scores of pages by their bounds.
    public func execute(_ operation: ScorePagesOperation) {
        let (queries, bounds, table, scores) = (operation.queries, operation.bounds, operation.table, operation.scores)
        let (requests, width, heads, dim) = (table.shape[0], table.shape[1], bounds.shape[2], queries.shape[2])
        let (rows, group, isSum) = (operation.rowsPerRequest, operation.group, operation.reduction == .sum)
        guard let lengths = operation.lengths.elements(as: Int32.self), let pages = table.elements(as: Int32.self),
            let output = scores.elements(as: Float.self), let from = bounds.pointer, let asked = queries.pointer
        else { return }
        let size = bounds.dtype.byteCount
        // A request's pages in parts, so that one request alone is shared as well.
        let part = 64, parts = (width + part - 1) / part
        spread(rows: requests * parts, units: requests * width * heads * dim * (2 + rows * group)) { _, first, last in
            let padded = (dim + 7) / 8 * 8
            // Queries, then a page's bounds, each padded with zeros.
            var floats = [SIMD8<Float>](repeating: .zero, count: (rows * group * heads + 2) * padded / 8)
            var loaded = -1
            floats.withUnsafeMutableBytes { bytes in
                let own = bytes.bindMemory(to: Float.self)
                let vectors = bytes.bindMemory(to: SIMD8<Float>.self)
                func floats(_ index: Int) -> UnsafeMutableBufferPointer<Float> {
                    UnsafeMutableBufferPointer(rebasing: own[index * padded..<index * padded + dim])
                }
                let (least, greatest) = (rows * group * heads, rows * group * heads + 1)
                for item in Int(first)..<Int(last) {
                    let (request, start) = (item / parts, item % parts * part)
                    let end = min(start + part, Int(lengths[request]))
                    if start >= end { continue }
                    if loaded != request {
                        for query in 0..<rows * group * heads {
                            let (row, head) = query.quotientAndRemainder(dividingBy: group * heads)
                            let offset = (request * rows + row) * queries.strides[0] + head * queries.strides[1]
                            widen(asked + offset * queries.dtype.byteCount, queries.dtype, into: floats(query))
                        }
                        loaded = request
                    }
                    for place in start..<end {
                        let page = Int(pages[request * table.strides[0] + place])
                        var all = isSum ? 0 : -Float.infinity
                        for head in 0..<heads {
                            let offset = page * bounds.strides[0] + head * bounds.strides[2]
                            widen(from + offset * size, bounds.dtype, into: floats(least))
                            widen(from + (offset + bounds.strides[1]) * size, bounds.dtype, into: floats(greatest))
                            var value = isSum ? 0 : -Float.infinity
                            for member in 0..<rows * group {
                                let query = member / group * group * heads + head * group + member % group
                                var sum = SIMD8<Float>.zero
                                for step in 0..<padded / 8 {
                                    let q = vectors[query * padded / 8 + step]
                                    let low = q * vectors[least * padded / 8 + step]
                                    let high = q * vectors[greatest * padded / 8 + step]
                                    sum += low.replacing(with: high, where: high .> low)
                                }
                                value = isSum ? value + sum.sum() : max(value, sum.sum())
                            }
                            if operation.isPerHead {
                                output[request * scores.strides[0] + head * scores.strides[1] + place] = value
                            }
                            all = isSum ? all + value : max(all, value)
                        }
                        if !operation.isPerHead { output[request * scores.strides[0] + place] = all }
                    }
                }
            }
        }
    }

    private func widen(_ from: UnsafeRawPointer, _ dtype: DType, into to: UnsafeMutableBufferPointer<Float>) {
        guard let base = to.baseAddress else { return }
        let count = Int64(to.count)
        switch dtype {
        case .float32: base.update(from: from.assumingMemoryBound(to: Float.self), count: to.count)
        case .float16: conversions.f32_from_f16(from.assumingMemoryBound(to: UInt16.self), count, base)
        case .bfloat16: conversions.f32_from_bf16(from.assumingMemoryBound(to: UInt16.self), count, base)
        case .float8E4M3: conversions.f32_from_e4m3(from.assumingMemoryBound(to: UInt8.self), count, base)
        case .float8E5M2: conversions.f32_from_e5m2(from.assumingMemoryBound(to: UInt8.self), count, base)
        case .int8: conversions.f32_from_i8(from.assumingMemoryBound(to: Int8.self), count, 1, base)
        case .uint8, .int32: preconditionFailure("caches have no \(dtype)")
        }
    }

    private func narrow(_ values: [Float], _ to: UnsafeMutableRawPointer, _ dtype: DType) {
        let count = Int64(values.count)
        switch dtype {
        case .float16: conversions.f16_from_f32(values, count, to.assumingMemoryBound(to: UInt16.self))
        case .bfloat16: conversions.bf16_from_f32(values, count, to.assumingMemoryBound(to: UInt16.self))
        default: to.assumingMemoryBound(to: Float.self).update(from: values, count: values.count)
        }
    }
}
