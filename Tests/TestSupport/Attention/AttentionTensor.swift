package import FlashInferCore

/// Host memory of exactly the size of its elements, so that a read past the end is a read outside the allocation.
package final class AttentionTensor {
    /// The tensor.
    package let view: TensorView
    private let memory: UnsafeMutableRawPointer

    /// Undefined content. With `strides`, room for just the last element that they reach.
    package init(_ dtype: DType, _ shape: Shape, strides: Shape? = nil) throws {
        let strides = strides ?? shape.contiguousStrides ?? shape
        var last = 0
        for dimension in 0..<shape.rank { last += max(shape[dimension] - 1, 0) * strides[dimension] }
        let count = shape.elementCount == 0 ? 0 : last + 1
        memory = .allocate(byteCount: max(count * dtype.byteCount, 1), alignment: 16)
        view = try TensorView(
            MemoryRegion(
                UnsafeRawBufferPointer(start: memory, count: count * dtype.byteCount)), dtype: dtype, shape: shape,
            strides: strides)
        poison()
    }

    deinit { memory.deallocate() }

    /// All of the memory, as bytes.
    package var bytes: UnsafeMutableRawBufferPointer {
        UnsafeMutableRawBufferPointer(start: memory, count: view.region.byteCount)
    }

    /// NaN in every element (127 in those of integers).
    package func poison() {
        switch view.dtype {
        case .float8E4M3, .float8E5M2, .int8, .uint8: for index in bytes.indices { bytes[index] = 0x7F }
        default: for index in bytes.indices { bytes[index] = 0xFF }
        }
    }

    /// The nearest value that the type holds goes to element `offset`.
    package func set(_ offset: Int, _ value: Double) {
        let place = memory + offset * view.dtype.byteCount
        let single = Float(value)
        switch view.dtype {
        case .float32: place.storeBytes(of: single, as: Float.self)
        case .float16: place.storeBytes(of: Float16(single), as: Float16.self)
        case .bfloat16: place.storeBytes(of: BFloat16(single), as: BFloat16.self)
        case .float8E4M3: place.storeBytes(of: Float8E4M3(single), as: Float8E4M3.self)
        case .float8E5M2: place.storeBytes(of: Float8E5M2(single), as: Float8E5M2.self)
        case .int8: place.storeBytes(of: Int8(single.rounded()), as: Int8.self)
        case .uint8: place.storeBytes(of: UInt8(single), as: UInt8.self)
        case .int32: place.storeBytes(of: Int32(single), as: Int32.self)
        }
    }

    /// Element `offset`, exactly.
    package func get(_ offset: Int) -> Double {
        let place = memory + offset * view.dtype.byteCount
        switch view.dtype {
        case .float32: return Double(place.load(as: Float.self))
        case .float16: return Double(place.load(as: Float16.self))
        case .bfloat16: return Double(Float(place.load(as: BFloat16.self)))
        case .float8E4M3: return Double(Float(place.load(as: Float8E4M3.self)))
        case .float8E5M2: return Double(Float(place.load(as: Float8E5M2.self)))
        case .int8: return Double(place.load(as: Int8.self))
        case .uint8: return Double(place.load(as: UInt8.self))
        case .int32: return Double(place.load(as: Int32.self))
        }
    }

    /// All elements of a contiguous tensor.
    package var elements: [Double] { (0..<view.elementCount).map { get($0) } }
}
