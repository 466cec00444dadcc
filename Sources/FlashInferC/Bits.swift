// swift-format-ignore-file: AlwaysUseLowerCamelCase
// The functions of this file have the header's names.

public import CFlashInfer
internal import FlashInferCore

/// Packs flags, eight a byte.
@c @implementation
public func fi_packbits(
    _ x: UnsafePointer<fi_tensor>?, _ big_endian: Int32, _ out: UnsafePointer<fi_tensor>?
) -> fi_status {
    perform {
        let isBig = try flag("big_endian", big_endian)
        let flags = try hostBytes(x, "x")
        let output = try hostBytes(out, "out")
        guard output.count == (flags.count + 7) / 8 else {
            throw FlashInferError.lengthMismatch("out", found: output.count, expected: (flags.count + 7) / 8)
        }
        pack(flags, isBig, into: output)
    }
}

/// Packs flags, eight a byte, each segment from a byte of its own.
@c @implementation
public func fi_segment_packbits(
    _ x: UnsafePointer<fi_tensor>?, _ indptr: UnsafePointer<fi_tensor>?, _ big_endian: Int32,
    _ out: UnsafePointer<fi_tensor>?, _ out_indptr: UnsafePointer<fi_tensor>?
) -> fi_status {
    perform {
        let isBig = try flag("big_endian", big_endian)
        let flags = try hostBytes(x, "x")
        let starts = try hostIndices(indptr, "indptr")
        let byteStarts = try hostIndices(out_indptr, "out_indptr")
        guard byteStarts.count == starts.count, let first = starts.first else {
            throw FlashInferError.lengthMismatch(
                "out_indptr", found: byteStarts.count, expected: max(starts.count, 1))
        }
        guard first == 0, starts[starts.count - 1] <= flags.count else {
            throw FlashInferError.invalidArgument(
                "indptr", found: "\(first) ... \(starts[starts.count - 1])",
                expected: "from 0 to at most \(flags.count), the elements of x")
        }
        var ends: [Int] = [0]
        for segment in 0..<starts.count - 1 {
            let length = Int(starts[segment + 1]) - Int(starts[segment])
            guard length >= 0 else {
                throw FlashInferError.indptrNotMonotone(
                    "indptr", request: segment, value: Int(starts[segment]), next: Int(starts[segment + 1]))
            }
            ends.append(ends[segment] + (length + 7) / 8)
        }
        if out != nil {
            let output = try hostBytes(out, "out")
            guard output.count >= ends[ends.count - 1] else {
                throw FlashInferError.lengthMismatch("out", found: output.count, expected: ends[ends.count - 1])
            }
            for segment in 0..<starts.count - 1 {
                pack(
                    UnsafeMutableBufferPointer(rebasing: flags[Int(starts[segment])..<Int(starts[segment + 1])]), isBig,
                    into: UnsafeMutableBufferPointer(rebasing: output[ends[segment]..<ends[segment + 1]]))
            }
        }
        for (index, end) in ends.enumerated() { byteStarts[index] = Int32(end) }
    }
}

/// Packs flags where they are.
@c @implementation
public func fi_pack_bits(
    _ device: OpaquePointer?, _ stream: UnsafeMutableRawPointer?, _ x: UnsafePointer<fi_tensor>?,
    _ big_endian: Int32, _ out: UnsafePointer<fi_tensor>?
) -> fi_status {
    perform {
        let stream = try call(device, stream)
        let order: PackBitsOperation.Order = try flag("big_endian", big_endian) ? .highestFirst : .lowestFirst
        try stream.run(
            .packBits(
                PackBitsOperation(
                    flags: TensorView(x, "x", on: stream.id, .bits),
                    output: TensorView(out, "out", on: stream.id, .bits), order: order)))
    }
}

/// Packs flags where they are, each segment from a byte of its own.
@c @implementation
public func fi_segment_pack_bits(
    _ device: OpaquePointer?, _ stream: UnsafeMutableRawPointer?, _ x: UnsafePointer<fi_tensor>?,
    _ indptr: UnsafePointer<fi_tensor>?, _ out_indptr: UnsafePointer<fi_tensor>?, _ big_endian: Int32,
    _ out: UnsafePointer<fi_tensor>?
) -> fi_status {
    perform {
        let stream = try call(device, stream)
        let id = stream.id
        let order: PackBitsOperation.Order = try flag("big_endian", big_endian) ? .highestFirst : .lowestFirst
        try stream.run(
            .packBits(
                PackBitsOperation(
                    flags: TensorView(x, "x", on: id, .bits), output: TensorView(out, "out", on: id, .bits),
                    order: order,
                    segments: .init(
                        flags: TensorView(indptr, "indptr", on: id, .index),
                        bytes: TensorView(out_indptr, "out_indptr", on: id, .index)))))
    }
}

private func pack(
    _ flags: UnsafeMutableBufferPointer<UInt8>, _ isBig: Bool, into output: UnsafeMutableBufferPointer<UInt8>
) {
    for byte in output.indices {
        var bits: UInt8 = 0
        for bit in 0..<min(8, flags.count - 8 * byte) where flags[8 * byte + bit] != 0 {
            bits |= 1 << UInt8(isBig ? 7 - bit : bit)
        }
        output[byte] = bits
    }
}

private func hostBytes(
    _ tensor: UnsafePointer<fi_tensor>?, _ name: String
) throws(FlashInferError) -> UnsafeMutableBufferPointer<UInt8> {
    try hostElements(TensorView(tensor, name, on: .cpu, .bits), name)
}

private func hostIndices(
    _ tensor: UnsafePointer<fi_tensor>?, _ name: String
) throws(FlashInferError) -> UnsafeMutableBufferPointer<Int32> {
    try hostElements(TensorView(tensor, name, on: .cpu, .index), name)
}

private func hostElements<Element>(
    _ view: TensorView, _ name: String
) throws(FlashInferError) -> UnsafeMutableBufferPointer<Element> {
    guard view.isContiguous else {
        throw .invalidArgument("\(name) strides", found: "\(view.strides)", expected: "contiguous")
    }
    guard view.elementCount > 0 else { return UnsafeMutableBufferPointer(start: nil, count: 0) }
    return UnsafeMutableBufferPointer(
        start: view.pointer?.assumingMemoryBound(to: Element.self), count: view.elementCount)
}
