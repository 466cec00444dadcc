internal import CFlashInfer
internal import FlashInferCore

/// A struct that begins with `struct_size`, as the caller knows it: `empty`, with the bytes that the caller has laid over it.
///
/// - Throws: ``ABIMismatch`` where the caller knows more of the struct than this library, or less than its size.
@inline(__always)
func options<Struct: BitwiseCopyable>(
    _ pointer: UnsafePointer<Struct>?, _ name: String, empty: Struct
) throws -> Struct {
    let raw = UnsafeRawPointer(try required(pointer, name))
    let size = try checkedSize(raw, name, ofLibrary: MemoryLayout<Struct>.size)
    var value = empty
    withUnsafeMutableBytes(of: &value) { $0.copyMemory(from: UnsafeRawBufferPointer(start: raw, count: size)) }
    return value
}

/// Writes as much of `value` as the caller's struct has, all but its `struct_size`.
func store<Struct: BitwiseCopyable>(
    _ value: Struct, to pointer: UnsafeMutablePointer<Struct>?, _ name: String
) throws {
    guard let pointer else { throw FlashInferError.invalidArgument(name, found: "NULL", expected: "a pointer") }
    let raw = UnsafeMutableRawPointer(pointer)
    let size = try checkedSize(UnsafeRawPointer(raw), name, ofLibrary: MemoryLayout<Struct>.size)
    let head = MemoryLayout<UInt64>.size
    withUnsafeBytes(of: value) { bytes in
        UnsafeMutableRawBufferPointer(start: raw + head, count: size - head)
            .copyMemory(from: UnsafeRawBufferPointer(rebasing: bytes[head..<size]))
    }
}

private func checkedSize(_ pointer: UnsafeRawPointer, _ name: String, ofLibrary known: Int) throws -> Int {
    let size = pointer.load(as: UInt64.self)
    guard size >= UInt64(MemoryLayout<UInt64>.size), size <= UInt64(known) else {
        throw ABIMismatch(
            message:
                "\(name)->struct_size is \(size), but must be sizeof of the struct, which is at most \(known) in this "
                + "library; a program built for a newer library needs that library")
    }
    return Int(size)
}

/// A pointer that must not be NULL.
@inline(__always)
func required<Pointee>(
    _ pointer: UnsafePointer<Pointee>?, _ name: String
) throws(FlashInferError) -> UnsafePointer<Pointee> {
    guard let pointer else { throw .invalidArgument(name, found: "NULL", expected: "a pointer") }
    return pointer
}

/// One of the values of an enumeration of the header.
func choice<Value>(_ name: String, _ number: Int32, _ values: [(Int, Value)]) throws(FlashInferError) -> Value {
    for (constant, value) in values where constant == Int(number) { return value }
    throw .invalidArgument(
        name, found: "\(number)", expected: "one of " + values.map { "\($0.0)" }.joined(separator: ", "))
}

/// A flag: 0 or 1.
func flag(_ name: String, _ number: Int32) throws(FlashInferError) -> Bool {
    guard number == 0 || number == 1 else {
        throw .invalidArgument(name, found: "\(number)", expected: "0 or 1")
    }
    return number == 1
}
