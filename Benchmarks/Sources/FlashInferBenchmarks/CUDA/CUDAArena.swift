import FlashInfer

/// Device memory full of random numbers of one type, from which a benchmark's inputs are cut one after another.
///
/// Filled once, from a pattern made on the host, so that gigabytes of inputs cost less than a second.
struct CUDAArena: ~Copyable {
    private let buffer: DeviceBuffer
    private var used = 0
    private let dtype: DType

    private static let patternByteCount = 16 << 20

    init(on device: any Device, dtype: DType, byteCount: Int) throws {
        let buffer = try DeviceBuffer(on: device, dtype: .uint8, shape: [byteCount])
        let pattern = Self.pattern(dtype)
        for start in stride(from: 0, to: byteCount, by: pattern.count) {
            let count = min(pattern.count, byteCount - start)
            let target = MemoryRegion(
                address: buffer.region.address + UInt(start), byteCount: count, device: buffer.region.device)
            try pattern.withUnsafeBytes {
                try device.upload(UnsafeRawBufferPointer(rebasing: $0[..<count]), to: target)
            }
        }
        self.buffer = buffer
        self.dtype = dtype
    }

    /// The next piece of the arena as a row-major tensor.
    mutating func take(_ shape: Shape) throws -> TensorView {
        let view = try TensorView(buffer.region, byteOffset: used, dtype: dtype, shape: shape)
        // 256 bytes: what the device's own allocations are aligned to.
        used += (view.elementCount * dtype.byteCount + 255) & ~255
        return view
    }

    /// Begins again at the start.
    mutating func reset() { used = 0 }

    private static func pattern(_ dtype: DType) -> [UInt8] {
        var random = Random(state: 3)
        func bytes<T>(_ make: (Float) -> T) -> [UInt8] {
            let values = (0..<patternByteCount / MemoryLayout<T>.size).map { _ in make(random.normal()) }
            return values.withUnsafeBytes { Array($0) }
        }
        switch dtype {
        case .float32: return bytes { $0 }
        case .float16: return bytes { Float16($0) }
        case .bfloat16: return bytes { BFloat16($0) }
        case .float8E4M3: return bytes { Float8E4M3($0) }
        case .float8E5M2: return bytes { Float8E5M2($0) }
        case .int8, .uint8, .int32: return bytes { Int8(max(-127, min(127, $0 * 40))) }
        }
    }
}
