package import CFlashInferCPU
public import FlashInferCore

/// Conversion of arrays between float32 and the other element types, vectorised.
///
/// To narrow rounds to nearest, ties to even, exactly as the storage types' initialisers (`BFloat16(_:)`, `Float8E4M3(_:)`,
/// `Float8E5M2(_:)`, `Float16(_:)`) do; to widen is exact. The bits are the same on every instruction set.
public struct CPUConversion: Sendable {
    private let kernels: fi_convert_kernels

    /// The conversions on this machine's best instruction set.
    public static let best =
        CPUConversion(isa: fi_detect_isa()) ?? CPUConversion(fi_convert_table(FI_ISA_SCALAR).pointee)

    /// The conversions on one instruction set, or `nil` where this build or machine does not have it.
    package init?(isa: fi_isa) {
        guard fi_isa_available(isa), let table = fi_convert_table(isa) else { return nil }
        self.init(table.pointee)
    }

    private init(_ kernels: fi_convert_kernels) { self.kernels = kernels }

    /// Narrows all of `source` to `dtype`.
    ///
    /// - Parameters:
    ///   - out: room for `source.count` elements, aligned to their size; must not overlap `source`.
    ///   - isSaturating: float8 only: whether what is past the largest number (infinities too) becomes it, rather than an
    ///     infinity (e5m2) or NaN (e4m3).
    ///   - scale: int8 only: the value of one unit; `out = clamp(round(x / scale), -128, 127)`, and 0 for NaN.
    /// - Throws: ``FlashInferError`` where `out` is too short or misaligned, or `dtype` is not a narrow type.
    public func narrow(
        _ source: UnsafeBufferPointer<Float>, to dtype: DType, into out: UnsafeMutableRawBufferPointer,
        isSaturating: Bool = false, scale: Float = 1
    ) throws(FlashInferError) {
        try Self.check("out", UnsafeRawBufferPointer(out), holds: source.count, of: dtype)
        guard let from = source.baseAddress, let to = out.baseAddress, source.count > 0 else { return }
        let n = Int64(source.count)
        switch dtype {
        case .float16: kernels.f16_from_f32(from, n, to.assumingMemoryBound(to: UInt16.self))
        case .bfloat16: kernels.bf16_from_f32(from, n, to.assumingMemoryBound(to: UInt16.self))
        case .float8E4M3: kernels.e4m3_from_f32(from, n, isSaturating, to.assumingMemoryBound(to: UInt8.self))
        case .float8E5M2: kernels.e5m2_from_f32(from, n, isSaturating, to.assumingMemoryBound(to: UInt8.self))
        case .int8: kernels.i8_from_f32(from, n, 1 / scale, to.assumingMemoryBound(to: Int8.self))
        case .float32: to.copyMemory(from: from, byteCount: source.count * 4)
        case .uint8, .int32:
            throw .unsupported("narrowing to \(dtype)", device: "the CPU", nearest: "\(DType.int8)")
        }
    }

    /// Widens the first `out.count` elements of `source` to float32.
    ///
    /// - Parameters:
    ///   - source: `out.count` elements of `dtype`, aligned to their size.
    ///   - scale: int8 only: the value of one unit.
    /// - Throws: ``FlashInferError`` where `source` is too short or misaligned, or `dtype` is not a float or int8.
    public func widen(
        _ source: UnsafeRawBufferPointer, from dtype: DType, into out: UnsafeMutableBufferPointer<Float>,
        scale: Float = 1
    ) throws(FlashInferError) {
        try Self.check("source", source, holds: out.count, of: dtype)
        guard let from = source.baseAddress, let to = out.baseAddress, out.count > 0 else { return }
        let n = Int64(out.count)
        switch dtype {
        case .float16: kernels.f32_from_f16(from.assumingMemoryBound(to: UInt16.self), n, to)
        case .bfloat16: kernels.f32_from_bf16(from.assumingMemoryBound(to: UInt16.self), n, to)
        case .float8E4M3: kernels.f32_from_e4m3(from.assumingMemoryBound(to: UInt8.self), n, to)
        case .float8E5M2: kernels.f32_from_e5m2(from.assumingMemoryBound(to: UInt8.self), n, to)
        case .int8: kernels.f32_from_i8(from.assumingMemoryBound(to: Int8.self), n, scale, to)
        case .float32: UnsafeMutableRawPointer(to).copyMemory(from: from, byteCount: out.count * 4)
        case .uint8, .int32:
            throw .unsupported("widening of \(dtype)", device: "the CPU", nearest: "\(DType.int8)")
        }
    }

    private static func check(
        _ name: String, _ bytes: UnsafeRawBufferPointer, holds count: Int, of dtype: DType
    ) throws(FlashInferError) {
        let (needed, overflow) = count.multipliedReportingOverflow(by: dtype.byteCount)
        guard !overflow else { throw .overflow(name) }
        guard bytes.count >= needed else {
            throw .lengthMismatch("\(name) bytes", found: bytes.count, expected: needed)
        }
        guard UInt(bitPattern: bytes.baseAddress) % UInt(dtype.byteCount) == 0 else {
            throw .invalidArgument(
                "\(name) address", found: "\(UInt(bitPattern: bytes.baseAddress))",
                expected: "a multiple of \(dtype.byteCount)")
        }
    }
}
