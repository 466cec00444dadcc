import FlashInferCore
import FlashInferEngine
import TestSupport
import Testing

struct GGUFFileTests {
    private func open(_ bytes: [UInt8]) throws(ModelFileError) -> GGUFFile { try GGUFFile(MappedFile.guarded(bytes)) }

    private func problem(_ bytes: [UInt8]) -> ModelFileError.Problem? {
        do throws(ModelFileError) {
            _ = try open(bytes)
            return nil
        } catch {
            return error.problem
        }
    }

    /// Written byte by byte from the format's description, without the writer.
    @Test func readsAHandWrittenFile() throws {
        var bytes: [UInt8] = [0x47, 0x47, 0x55, 0x46, 3, 0, 0, 0]
        bytes += [1, 0, 0, 0, 0, 0, 0, 0]  // One tensor.
        bytes += [1, 0, 0, 0, 0, 0, 0, 0]  // One value.
        bytes += [1, 0, 0, 0, 0, 0, 0, 0, 0x6b, 4, 0, 0, 0, 0x2a, 0, 0, 0]  // "k": uint32 42.
        bytes += [1, 0, 0, 0, 0, 0, 0, 0, 0x74, 2, 0, 0, 0]  // "t", two dimensions.
        bytes += [2, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0]  // 2 columns, 3 rows.
        bytes += [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]  // F32 at offset 0.
        #expect(bytes.count == 82)
        bytes += [UInt8](repeating: 0, count: 96 - 82)
        bytes += (1...24).map { UInt8($0) }
        let file = try open(bytes)
        #expect(file.version == 3)
        #expect(file.alignment == 32)
        #expect(file.dataOffset == 96)
        #expect(file.keys == ["k"])
        #expect(try file.int("k") == 42)
        let tensor = try #require(file.tensor(named: "t"))
        #expect(tensor.shape == [2, 3])
        #expect(tensor.type.name == "F32")
        #expect(tensor.elementCount == 6)
        #expect(tensor.range == 96..<120)
        #expect(Array(try file.bytes(of: tensor)) == (1...24).map { UInt8($0) })
        #expect(file.tensor(named: "u") == nil)
    }

    @Test(arguments: [2, 3] as [UInt32]) func readsEveryValueType(version: UInt32) throws {
        var writer = GGUFWriter()
        writer.version = version
        writer.values = [
            ("u8", .uint8(250)), ("i8", .int8(-5)), ("u16", .uint16(65_000)), ("i16", .int16(-30_000)),
            ("u32", .uint32(.max)), ("i32", .int32(.min)), ("f32", .float32(1.5)), ("yes", .bool(1)), ("no", .bool(0)),
            ("text", .string("Gr\u{fc}\u{df}e \u{1f600}")), ("empty", .string("")), ("u64", .uint64(.max)),
            ("i64", .int64(.min)), ("f64", .float64(.pi)),
            ("texts", .strings(["a", "", "\u{e9}"])), ("ints", .ints([-1, 2, 3])),
            ("bools", .array(type: 7, [.bool(1), .bool(0)])), ("floats", .array(type: 6, [.float32(0.25)])),
            ("nested", .array(type: 9, [.array(type: 0, [.uint8(1), .uint8(2)]), .strings(["x"])])),
            ("none", .array(type: 8, [])), ("big", .array(type: 10, [.uint64(1), .uint64(.max)])),
        ]
        let file = try open(writer.bytes())
        #expect(file.version == Int(version))
        #expect(file.keys == writer.values.map(\.key))
        #expect(try file.int("u8") == 250)
        #expect(try file.int("i8") == -5)
        #expect(try file.int("u16") == 65_000)
        #expect(try file.int("i16") == -30_000)
        #expect(try file.int("u32") == 4_294_967_295)
        #expect(try file.int("i32") == -2_147_483_648)
        #expect(try file.double("f32") == 1.5)
        #expect(try file.bool("yes") == true)
        #expect(try file.bool("no") == false)
        #expect(try file.string("text") == "Gr\u{fc}\u{df}e \u{1f600}")
        #expect(try file.string("empty") == "")
        #expect(try file.int("i64") == .min)
        #expect(try file.double("f64") == .pi)
        #expect(try file.double("i8") == -5)
        #expect(try file.strings("texts") == ["a", "", "\u{e9}"])
        #expect(try file.ints("ints") == [-1, 2, 3])
        #expect(try file.floats("ints") == [-1, 2, 3])
        #expect(try file.floats("floats") == [0.25])
        #expect(try file.strings("none") == [])
        let nested = try #require(try file.array("nested")).prefix(5)
        #expect(nested.map { $0.array?.ints } == [[1, 2], nil])
        #expect(nested.map { $0.array?.strings } == [nil, ["x"]])
        #expect(file["bools"]?.array?.prefix(9).map(\.bool) == [true, false])
    }

    @Test func namesTheValueOfTheWrongType() throws {
        var writer = GGUFWriter()
        writer.values = [
            ("u64", .uint64(.max)), ("text", .string("a")), ("texts", .strings(["a"])),
            ("big", .array(type: 10, [.uint64(.max)])),
        ]
        let file = try open(writer.bytes())
        func wrong(_ key: String, _ expected: String, _ found: String) -> ModelFileError {
            ModelFileError(file: "memory", problem: .wrongType(key: key, expected: expected, found: found))
        }
        let tooBig = wrong("u64", "an integer", "uint64 18446744073709551615")
        #expect(throws: tooBig) { _ = try file.int("u64") }
        #expect(throws: wrong("text", "an integer", "string a")) { _ = try file.int("text") }
        #expect(throws: wrong("texts", "a string", "an array of string")) { _ = try file.string("texts") }
        #expect(throws: wrong("texts", "an array of integers", "an array of string")) { _ = try file.ints("texts") }
        #expect(throws: wrong("big", "an array of integers", "an array of uint64")) { _ = try file.ints("big") }
        #expect(try file.int("absent") == nil)
        #expect(try file.strings("absent") == nil)
    }

    @Test func readsTensorsAtAnyAlignment() throws {
        for alignment in [1, 8, 64, 4096] {
            var writer = GGUFWriter()
            writer.alignment = alignment
            writer.values = [("general.alignment", .uint32(UInt32(alignment)))]
            writer.tensors = [
                .init("a", shape: [3], bytes: Array(repeating: 1, count: 12)),
                .init("b", type: 8, shape: [32, 2], bytes: Array(repeating: 2, count: 68)),
                .init("c", type: 1, shape: [], bytes: [3, 3]),
            ]
            let file = try open(writer.bytes())
            #expect(file.alignment == alignment)
            for (tensor, byte) in zip(file.tensors, [1, 2, 3] as [UInt8]) {
                #expect(try file.bytes(of: tensor).allSatisfy { $0 == byte })
            }
        }
    }

    @Test func knowsTypesItCannotComputeWith() throws {
        var writer = GGUFWriter()
        writer.tensors = [.init("a", type: 10, shape: [256], bytes: Array(repeating: 0, count: 84))]
        let file = try open(writer.bytes())
        #expect(file.tensors[0].type.name == "Q2_K")
        #expect(file.tensors[0].type.weightFormat == nil)
    }

    @Test func agreesWithTheSharedWeightFormats() {
        for type in GGMLType.all {
            guard let format = type.weightFormat else { continue }
            #expect(format.blockSize == type.blockSize)
            #expect(format.bytesPerBlock == type.bytesPerBlock)
            #expect(GGMLType(id: type.id) == type)
        }
    }
}

// What is refused, and what the error says.
extension GGUFFileTests {
    @Test func refusesOtherFiles() {
        #expect(problem([]) == .truncated(what: "the magic number", offset: 0, needed: 4, available: 0))
        #expect(problem(Array("GGML____________".utf8)) == .notGGUF(magic: 0x4c4d_4747))
        var writer = GGUFWriter()
        for version: UInt32 in [0, 1, 4, 65_535] {
            writer.version = version
            #expect(problem(writer.bytes()) == .unsupportedVersion(version))
        }
        writer.version = UInt32(3).byteSwapped
        #expect(problem(writer.bytes()) == .bigEndian)
    }

    @Test func refusesWildCounts() {
        var writer = GGUFWriter()
        writer.tensorCount = .max
        #expect(problem(writer.bytes()) == .countTooLarge(what: "tensors", value: .max, limit: 0))
        writer.tensorCount = nil
        writer.valueCount = 1 << 60
        #expect(problem(writer.bytes()) == .countTooLarge(what: "metadata values", value: 1 << 60, limit: 0))
        writer.valueCount = nil
        for type: UInt32 in [0, 7, 8, 9, 12] {
            var array: [UInt8] = []
            array.append(little: type)
            array.append(little: UInt64.max)
            writer.values = [("a", .raw(type: 9, array))]
            #expect(problem(writer.bytes()) == .countTooLarge(what: "elements in \"a\"", value: .max, limit: 0))
        }
        var length: [UInt8] = []
        length.append(little: UInt64.max)
        writer.values = [("a", .raw(type: 8, length))]
        let wild = problem(writer.bytes())
        #expect(wild == .truncated(what: "the value of \"a\"", offset: 45, needed: .max, available: 0))
    }

    @Test func refusesDamagedMetadata() {
        func problem(_ values: [(key: String, value: GGUFWriter.Value)]) -> ModelFileError.Problem? {
            var writer = GGUFWriter()
            writer.values = values
            return self.problem(writer.bytes())
        }
        #expect(problem([("a", .uint8(1)), ("a", .uint8(1))]) == .duplicateKey("a"))
        #expect(problem([("", .uint64(1))]) == .emptyName(what: "a metadata key", offset: 24))
        #expect(problem([("a", .raw(type: 13, [0]))]) == .unknownValueType(key: "a", type: 13))
        #expect(problem([("a", .bool(2))]) == .invalidBoolean(key: "a", value: 2))
        #expect(problem([("a", .array(type: 7, [.bool(9)]))]) == .invalidBoolean(key: "a", value: 9))
        let badText: [UInt8] = [2, 0, 0, 0, 0, 0, 0, 0, 0xc3, 0x28]
        #expect(problem([("a", .raw(type: 8, badText))]) == .invalidUTF8(what: "the value of \"a\"", offset: 45))
        let badTexts: [UInt8] = [8, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0] + badText
        #expect(problem([("a", .raw(type: 9, badTexts))]) == .invalidUTF8(what: "an element of \"a\"", offset: 57))
        for alignment: GGUFWriter.Value in [.uint32(0), .uint32(24), .uint64(1 << 40), .string("32"), .int32(-8)] {
            guard case .invalidAlignment = problem([("general.alignment", alignment)]) else {
                Issue.record("alignment \(alignment) was accepted")
                continue
            }
        }
    }

    @Test func refusesDeepNesting() throws {
        func nested(_ depth: Int) -> GGUFWriter.Value {
            depth == 0 ? .array(type: 0, [.uint8(1)]) : .array(type: 9, [nested(depth - 1)])
        }
        var writer = GGUFWriter()
        writer.values = [("a", nested(7))]
        #expect(problem(writer.bytes()) == nil)
        for depth in [8, 9, 20_000] {
            writer.values = [("a", nested(min(depth, 200)))]
            var bytes = writer.bytes()
            if depth > 200 {
                // An array that opens an array that opens an array, to the end of the file.
                let level: [UInt8] = [9, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]
                writer.values = [("a", .raw(type: 9, (0..<depth).flatMap { _ in level }))]
                bytes = writer.bytes()
            }
            #expect(problem(bytes) == .nestedTooDeep(what: "\"a\"", limit: 8))
        }
    }

    @Test func refusesDamagedTensors() {
        func problem(_ tensors: GGUFWriter.Tensor...) -> ModelFileError.Problem? {
            var writer = GGUFWriter()
            writer.tensors = tensors
            return self.problem(writer.bytes())
        }
        let four: [UInt8] = [0, 0, 0, 0]
        #expect(
            problem(.init("a", shape: [1], bytes: four), .init("a", shape: [1], bytes: four)) == .duplicateTensor("a"))
        #expect(problem(.init("a", type: 4, shape: [1], bytes: four)) == .unknownTensorType(tensor: "a", type: "4"))
        #expect(
            problem(.init("a", shape: [1, 1, 1, 1, 1], bytes: four))
                == .tooManyDimensions(tensor: "a", count: 5, limit: 4))
        func shapeIsRefused(_ type: UInt32, _ shape: [UInt64]) -> Bool {
            if case .invalidShape("a", shape, _) = problem(.init("a", type: type, shape: shape, bytes: four)) {
                true
            } else {
                false
            }
        }
        #expect(shapeIsRefused(0, [0]))
        #expect(shapeIsRefused(0, [4, 0]))
        #expect(shapeIsRefused(0, [1 << 63]))
        #expect(shapeIsRefused(0, [1 << 32, 1 << 32]))
        #expect(shapeIsRefused(0, [1 << 62]))
        #expect(shapeIsRefused(8, [33]))
        #expect(shapeIsRefused(12, [128, 2]))
        #expect(shapeIsRefused(2, []))
        #expect(
            problem(.init("a", shape: [1], bytes: four, offset: 8))
                == .misalignedTensor(tensor: "a", offset: 8, alignment: 32))
        #expect(
            problem(.init("a", shape: [9], bytes: four))
                == .tensorOutOfRange(tensor: "a", start: 0, byteCount: 36, limit: 32))
        for offset: UInt64 in [32, 1 << 40, UInt64.max - 31] {
            #expect(
                problem(.init("a", shape: [1], bytes: four, offset: offset))
                    == .tensorOutOfRange(tensor: "a", start: offset, byteCount: 4, limit: 32))
        }
        #expect(
            problem(.init("a", shape: [16], bytes: four), .init("b", shape: [1], bytes: four))
                == .overlappingTensors("a", "b"))
        #expect(
            problem(.init("a", shape: [1], bytes: four), .init("b", shape: [1], bytes: four, offset: 0)) != nil)
    }

    @Test func saysWhatIsWrongInWords() {
        let error = ModelFileError(file: "m.gguf", problem: .overlappingTensors("a", "b"))
        #expect(error.description == "m.gguf: tensors \"a\" and \"b\" overlap")
        // What a file says of itself may not steer a terminal, and stays on one line.
        let steering = ModelFileError(file: "m.gguf", problem: .duplicateKey("a\u{1b}[2J\nb"))
        #expect(steering.description == "m.gguf: the key \"a\\u{1b}[2J\\nb\" appears twice")
        #expect(
            "\(ChatTemplateError.raised(message: "no\r\u{9b}1A"))"
                == "the chat template refuses this conversation: no\\u{d}\\u{9b}1A")
    }
}
