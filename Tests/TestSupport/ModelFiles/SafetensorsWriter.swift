/// Writes safetensors files.
public struct SafetensorsWriter: Sendable {
    /// A tensor; `shape` row-major.
    public struct Tensor: Sendable {
        /// Its name.
        public var name: String
        /// Its dtype, as headers spell it.
        public var type: String
        /// Its extents, row-major.
        public var shape: [Int]
        /// Its data, which need not fit the shape.
        public var bytes: [UInt8]

        /// Describes a tensor; of float32 unless told.
        public init(_ name: String, type: String = "F32", shape: [Int], bytes: [UInt8]) {
            self.name = name
            self.type = type
            self.shape = shape
            self.bytes = bytes
        }
    }

    /// The tensors in order.
    public var tensors: [Tensor] = []

    /// A file of these tensors.
    public init(_ tensors: [Tensor] = []) { self.tensors = tensors }

    /// The bytes of the file.
    public func bytes() -> [UInt8] {
        var members = ["\"__metadata__\":{\"format\":\"pt\"}"]
        var data: [UInt8] = []
        for tensor in tensors {
            let end = data.count + tensor.bytes.count
            members.append(
                "\"\(tensor.name)\":{\"dtype\":\"\(tensor.type)\",\"shape\":[\(tensor.shape.map(String.init).joined(separator: ","))],"
                    + "\"data_offsets\":[\(data.count),\(end)]}")
            data += tensor.bytes
        }
        return Self.bytes(header: "{\(members.joined(separator: ","))}", data: data)
    }

    /// A file with any header at all; padded with spaces to a multiple of 8, as writers do.
    public static func bytes(header: String, data: [UInt8] = []) -> [UInt8] {
        var text = Array(header.utf8)
        while text.count % 8 != 0 { text.append(UInt8(ascii: " ")) }
        var out: [UInt8] = []
        out.append(little: UInt64(text.count))
        return out + text + data
    }
}
