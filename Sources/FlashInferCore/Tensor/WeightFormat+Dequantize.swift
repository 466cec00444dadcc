extension WeightFormat {
    /// Decodes the first `count` weights of a row to float32, each rounded once.
    ///
    /// - Precondition: `count` is a whole number of blocks, `row` holds them and `out` has room for them.
    @inline(never)
    package func dequantize(_ row: UnsafeRawPointer, count: Int, into out: UnsafeMutablePointer<Float>) {
        switch self {
        case .float32: UnsafeMutableRawPointer(out).copyMemory(from: row, byteCount: 4 * count)
        case .float16:
            for index in 0..<count { out[index] = HalfPrecision.float(halfBits: Self.bits16(row, 2 * index)) }
        case .bfloat16:
            for index in 0..<count { out[index] = Float(bitPattern: UInt32(Self.bits16(row, 2 * index)) << 16) }
        case .q40, .q41, .q50, .q51, .q80, .q4K, .q5K, .q6K:
            let size = blockSize
            for block in 0..<count / size {
                decode(row + block * bytesPerBlock, out + block * size)
            }
        }
    }

    @inline(__always)
    private func decode(_ block: UnsafeRawPointer, _ out: UnsafeMutablePointer<Float>) {
        switch self {
        case .q40: Self.nibbles(block + 2, scale: Self.half(block, 0), bias: -8, minimum: 0, out)
        case .q41: Self.nibbles(block + 4, scale: Self.half(block, 0), bias: 0, minimum: Self.half(block, 2), out)
        case .q50:
            Self.fiveBits(block + 6, tops: block + 2, scale: Self.half(block, 0), bias: -16, minimum: 0, out)
        case .q51:
            Self.fiveBits(
                block + 8, tops: block + 4, scale: Self.half(block, 0), bias: 0, minimum: Self.half(block, 2), out)
        case .q80:
            let scale = Self.half(block, 0)
            let values = (block + 2).assumingMemoryBound(to: Int8.self)
            for index in 0..<32 { out[index] = scale * Float(values[index]) }
        case .q4K: Self.fourBitSuperBlock(block, out)
        case .q5K: Self.fiveBitSuperBlock(block, out)
        case .q6K: Self.sixBitSuperBlock(block, out)
        case .float32, .float16, .bfloat16: break
        }
    }

    /// 16 bytes: weight `i` in the low half of byte `i`, weight `i + 16` in its high half.
    @inline(__always)
    private static func nibbles(
        _ bytes: UnsafeRawPointer, scale: Float, bias: Int32, minimum: Float, _ out: UnsafeMutablePointer<Float>
    ) {
        let bytes = bytes.assumingMemoryBound(to: UInt8.self)
        for index in 0..<16 {
            out[index] = scale * Float(Int32(bytes[index] & 15) + bias) + minimum
            out[index + 16] = scale * Float(Int32(bytes[index] >> 4) + bias) + minimum
        }
    }

    /// The same with a fifth bit for weight `i` in bit `i` of `tops`.
    @inline(__always)
    private static func fiveBits(
        _ bytes: UnsafeRawPointer, tops: UnsafeRawPointer, scale: Float, bias: Int32, minimum: Float,
        _ out: UnsafeMutablePointer<Float>
    ) {
        let bytes = bytes.assumingMemoryBound(to: UInt8.self)
        let tops = tops.loadUnaligned(as: UInt32.self)
        for index in 0..<16 {
            let (low, high) = (tops >> UInt32(index) & 1, tops >> UInt32(index + 16) & 1)
            out[index] = scale * Float(Int32(bytes[index] & 15) + Int32(low << 4) + bias) + minimum
            out[index + 16] = scale * Float(Int32(bytes[index] >> 4) + Int32(high << 4) + bias) + minimum
        }
    }

    /// Sub-blocks `2i` and `2i + 1` are the low and high nibbles of the same 32 bytes.
    @inline(__always)
    private static func fourBitSuperBlock(_ block: UnsafeRawPointer, _ out: UnsafeMutablePointer<Float>) {
        let (scale, minimum) = (half(block, 0), half(block, 2))
        for sub in 0..<8 {
            let bytes = (block + 16 + sub / 2 * 32).assumingMemoryBound(to: UInt8.self)
            let (shift, (factor, offset)) = (UInt8(sub % 2 * 4), scaleAndMinimum(block + 4, sub))
            let (step, low) = (scale * factor, -(minimum * offset))
            for index in 0..<32 { out[32 * sub + index] = step * Float(bytes[index] >> shift & 15) + low }
        }
    }

    /// The same, the fifth bit of a weight of sub-block `i` being bit `i` of its place in 32 bytes more.
    @inline(__always)
    private static func fiveBitSuperBlock(_ block: UnsafeRawPointer, _ out: UnsafeMutablePointer<Float>) {
        let (scale, minimum) = (half(block, 0), half(block, 2))
        let tops = (block + 16).assumingMemoryBound(to: UInt8.self)
        for sub in 0..<8 {
            let bytes = (block + 48 + sub / 2 * 32).assumingMemoryBound(to: UInt8.self)
            let (shift, (factor, offset)) = (UInt8(sub % 2 * 4), scaleAndMinimum(block + 4, sub))
            let (step, low) = (scale * factor, -(minimum * offset))
            for index in 0..<32 {
                let value = bytes[index] >> shift & 15 | (tops[index] >> UInt8(sub) & 1) << 4
                out[32 * sub + index] = step * Float(value) + low
            }
        }
    }

    /// Two halves of 128 weights: part `p` of a half has nibbles in its bytes `p % 2 · 32 …` and tops in bits `2p` and `2p + 1`.
    @inline(__always)
    private static func sixBitSuperBlock(_ block: UnsafeRawPointer, _ out: UnsafeMutablePointer<Float>) {
        let scale = half(block, 208)
        let factors = (block + 192).assumingMemoryBound(to: Int8.self)
        for part in 0..<8 {
            let (upper, field) = (part / 4, part % 4)
            let low = (block + upper * 64 + field % 2 * 32).assumingMemoryBound(to: UInt8.self)
            let top = (block + 128 + upper * 32).assumingMemoryBound(to: UInt8.self)
            let (lowShift, topShift) = (UInt8(field / 2 * 4), UInt8(2 * field))
            for run in 0..<2 {
                let step = scale * Float(factors[2 * part + run])
                for index in 16 * run..<16 * run + 16 {
                    let value = low[index] >> lowShift & 15 | (top[index] >> topShift & 3) << 4
                    out[32 * part + index] = step * Float(Int32(value) - 32)
                }
            }
        }
    }

    /// The 6-bit scale and minimum of sub-block `sub` in a super-block's 12 packed bytes: those of sub-blocks 0 to 3 are the low
    /// 6 bits of bytes 0 to 3 and 4 to 7; those of 4 to 7 have their low 4 bits in bytes 8 to 11 and their tops above the others.
    @inline(__always)
    private static func scaleAndMinimum(_ packed: UnsafeRawPointer, _ sub: Int) -> (scale: Float, minimum: Float) {
        let bytes = packed.assumingMemoryBound(to: UInt8.self)
        if sub < 4 { return (Float(bytes[sub] & 63), Float(bytes[sub + 4] & 63)) }
        return (
            Float(bytes[sub + 4] & 15 | (bytes[sub - 4] >> 6) << 4),
            Float(bytes[sub + 4] >> 4 | (bytes[sub] >> 6) << 4)
        )
    }

    @inline(__always)
    private static func bits16(_ bytes: UnsafeRawPointer, _ offset: Int) -> UInt16 {
        bytes.loadUnaligned(fromByteOffset: offset, as: UInt16.self)
    }

    @inline(__always)
    private static func half(_ bytes: UnsafeRawPointer, _ offset: Int) -> Float {
        HalfPrecision.float(halfBits: bits16(bytes, offset))
    }
}
