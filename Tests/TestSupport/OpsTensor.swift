public import FlashInferCore

/// A tensor in host memory whose every unused byte is poison: NaN before, between and after the rows.
public final class OpsTensor: @unchecked Sendable {
    // Unchecked: a test hands it to one operation at a time.

    /// The tensor.
    public let view: TensorView
    private let memory: UnsafeMutableRawBufferPointer
    /// Byte offset of each element, in row-major order.
    private let offsets: [Int]

    /// Poison bytes before and after.
    private static let guardBytes = 256

    /// A tensor with `padding` unused elements after each row and `lead` before the first, filled with poison.
    public init(_ dtype: DType, _ shape: [Int], padding: Int = 0, lead: Int = 0) throws {
        var strides = [Int](repeating: 1, count: shape.count)
        var next = (shape.last ?? 1) + padding
        for dimension in stride(from: shape.count - 2, through: 0, by: -1) {
            strides[dimension] = next
            next *= shape[dimension]
        }
        let size = dtype.byteCount
        let first = Self.guardBytes + lead * size
        memory = .allocate(byteCount: first + max(next, 1) * size + Self.guardBytes, alignment: 64)
        memory.initializeMemory(as: UInt8.self, repeating: 0xFF)
        view = try TensorView(
            MemoryRegion(UnsafeRawBufferPointer(memory)), byteOffset: first, dtype: dtype,
            shape: Shape(shape), strides: Shape(strides))
        var offsets = [0]
        for (extent, stride) in zip(shape, strides) {
            offsets = offsets.flatMap { offset in (0..<extent).map { offset + $0 * stride } }
        }
        self.offsets = offsets.map { first + $0 * size }
    }

    /// A tensor of `values` rounded to its type, in row-major order.
    public convenience init(
        _ dtype: DType, _ shape: [Int], padding: Int = 0, lead: Int = 0, values: [Double]
    ) throws {
        try self.init(dtype, shape, padding: padding, lead: lead)
        for (index, value) in values.enumerated() { self[index] = value }
    }

    deinit { memory.deallocate() }

    /// The number of elements.
    public var count: Int { offsets.count }

    /// All of the memory, poison included: for a copy to a device and back.
    public var bytes: UnsafeMutableRawBufferPointer { memory }

    /// Whether all of the memory, poison included, is that of another tensor.
    public func isIdentical(to other: OpsTensor) -> Bool {
        // A pointer alone keeps no tensor alive.
        withExtendedLifetime((self, other)) { memory.elementsEqual(other.memory) }
    }

    /// The elements in row-major order.
    public var values: [Double] { (0..<count).map { self[$0] } }

    /// The bytes of element `index`.
    public func bits(_ index: Int) -> UInt32 {
        let base = memory.baseAddress! + offsets[index]
        switch view.dtype.byteCount {
        case 1: return UInt32(base.load(as: UInt8.self))
        case 2: return UInt32(base.load(as: UInt16.self))
        default: return base.load(as: UInt32.self)
        }
    }

    /// Element `index` of the row-major order.
    public subscript(index: Int) -> Double {
        get {
            let bits = bits(index)
            switch view.dtype {
            case .float32: return Double(Float(bitPattern: bits))
            case .float16: return Double(Float16(bitPattern: UInt16(bits)))
            case .bfloat16: return Double(Float(BFloat16(bitPattern: UInt16(bits))))
            case .float8E4M3: return Double(Float(Float8E4M3(bitPattern: UInt8(bits))))
            case .float8E5M2: return Double(Float(Float8E5M2(bitPattern: UInt8(bits))))
            case .int8: return Double(Int8(bitPattern: UInt8(bits)))
            case .uint8: return Double(bits)
            case .int32: return Double(Int32(bitPattern: bits))
            }
        }
        set {
            let base = memory.baseAddress! + offsets[index]
            let value = Float(newValue)
            switch view.dtype {
            case .float32: base.storeBytes(of: value, as: Float.self)
            case .float16: base.storeBytes(of: Float16(value), as: Float16.self)
            case .bfloat16: base.storeBytes(of: BFloat16(value).bitPattern, as: UInt16.self)
            case .float8E4M3: base.storeBytes(of: Float8E4M3(saturating: value).bitPattern, as: UInt8.self)
            case .float8E5M2: base.storeBytes(of: Float8E5M2(saturating: value).bitPattern, as: UInt8.self)
            case .int8:
                let clamped = value.isNaN ? 0 : min(max(value, -128), 127).rounded(.toNearestOrEven)
                base.storeBytes(of: Int8(clamped), as: Int8.self)
            case .uint8: base.storeBytes(of: UInt8(newValue), as: UInt8.self)
            case .int32: base.storeBytes(of: Int32(newValue), as: Int32.self)
            }
        }
    }

    /// Whether every byte that is no element's is still poison.
    public var paddingIsIntact: Bool {
        var used = [Bool](repeating: false, count: memory.count)
        for offset in offsets {
            for byte in offset..<offset + view.dtype.byteCount { used[byte] = true }
        }
        for (byte, isUsed) in zip(memory, used) where !isUsed && byte != 0xFF { return false }
        return true
    }
}

/// `value` rounded to `dtype`, once from float32.
public func rounded(_ value: Float, to dtype: DType) -> Double {
    switch dtype {
    case .float32: Double(value)
    case .float16: Double(Float16(value))
    case .bfloat16: Double(Float(BFloat16(value)))
    case .float8E4M3: Double(Float(Float8E4M3(saturating: value)))
    case .float8E5M2: Double(Float(Float8E5M2(saturating: value)))
    case .int8: Double(min(max(value, -128), 127).rounded(.toNearestOrEven))
    case .uint8, .int32: Double(value.rounded(.toNearestOrEven))
    }
}

/// A small deterministic generator of test values.
public struct OpsRandom {
    private var state: UInt64

    /// The sequence of `seed`.
    public init(_ seed: UInt64) { state = seed &* 0x9E37_79B9_7F4A_7C15 | 1 }

    /// Uniform in 0 ..< 1.
    public mutating func uniform() -> Double {
        state ^= state << 13
        state ^= state >> 7
        state ^= state << 17
        return Double(state >> 11) * 0x1p-53
    }

    /// About normal: the sum of twelve uniforms, less six.
    public mutating func normal() -> Double { (0..<12).reduce(-6) { sum, _ in sum + uniform() } }

    /// `count` of them, times `scale`.
    public mutating func normals(_ count: Int, scale: Double = 1) -> [Double] {
        (0..<count).map { _ in normal() * scale }
    }
}

/// The first element of `found` that is further from `exact` than twice what a plain float32 loop with one final rounding
/// (`reference`) ever is in its row, plus `units` of the output's precision; or `nil`. NaNs must agree.
public func firstOutlier(
    _ found: [Double], exact: [Double], reference: [Double], width: Int, dtype: DType, units: Double = 1
) -> String? {
    let unit =
        switch dtype {
        case .float32: 0x1p-23
        case .float16: 0x1p-10
        case .bfloat16: 0x1p-7
        default: 0x1p-3
        }
    for start in stride(from: 0, to: found.count, by: max(width, 1)) {
        let row = start..<min(start + width, found.count)
        var worst = 0.0
        for index in row where exact[index].isFinite { worst = max(worst, abs(reference[index] - exact[index])) }
        for index in row {
            if exact[index].isNaN && found[index].isNaN || exact[index] == found[index] { continue }
            let error = abs(found[index] - exact[index])
            if !(error <= 2 * worst + units * unit * abs(exact[index])) {
                return "element \(index): \(found[index]), exactly \(exact[index]); error \(error), reference \(worst)"
            }
        }
    }
    return nil
}
