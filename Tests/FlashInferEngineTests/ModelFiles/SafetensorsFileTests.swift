import FlashInferCore
import FlashInferEngine
import TestSupport
import Testing

struct SafetensorsFileTests {
    private func open(_ bytes: [UInt8]) throws(ModelFileError) -> SafetensorsFile {
        try SafetensorsFile(MappedFile.guarded(bytes))
    }

    private func problem(_ header: String, data: Int = 0) -> ModelFileError.Problem? {
        do throws(ModelFileError) {
            let data = [UInt8](repeating: 0, count: data)
            _ = try open(SafetensorsWriter.bytes(header: header, data: data))
            return nil
        } catch {
            return error.problem
        }
    }

    @Test func readsAHandWrittenFile() throws {
        let header =
            #"{"__metadata__":{"format":"pt"},"b":{"dtype":"BF16","shape":[2],"data_offsets":[8,12]},"#
            + #""a":{"dtype":"F32","shape":[1,2],"data_offsets":[0,8]},"e":{"dtype":"F16","shape":[0,7],"data_offsets":[8,8]}}"#
        let data = (1...12).map { UInt8($0) }
        var bytes: [UInt8] = [UInt8(header.utf8.count), 0, 0, 0, 0, 0, 0, 0]
        bytes += Array(header.utf8) + data
        let file = try open(bytes)
        #expect(file.metadata == ["format": "pt"])
        #expect(file.tensors.map(\.name) == ["a", "e", "b"])
        let tensor = try #require(file.tensor(named: "b"))
        #expect(tensor.type.name == "BF16")
        #expect(tensor.type.weightFormat == .bfloat16)
        #expect(tensor.shape == [2])
        #expect(Array(try file.file.bytes(in: tensor.range)) == [9, 10, 11, 12])
        #expect(file.tensor(named: "e")?.range.isEmpty == true)
    }

    @Test func readsScalarsAndNothing() throws {
        #expect(problem("{}") == nil)
        #expect(problem(#"{"a":{"dtype":"F64","shape":[],"data_offsets":[0,8]}}"#, data: 8) == nil)
    }

    @Test func refusesBadHeaders() {
        func bytes(_ length: UInt64, _ text: String) -> [UInt8] {
            var out: [UInt8] = []
            out.append(little: length)
            return out + Array(text.utf8)
        }
        for (length, text) in [
            (0, ""), (UInt64.max, "{}"), (3, "{}"), (1 << 62, "{}"), (1, "{"), (3, " {}"), (2, "[]"),
        ] {
            #expect(throws: ModelFileError.self) { _ = try open(bytes(length, text)) }
        }
        #expect(throws: ModelFileError.self) { _ = try open([1, 2, 3]) }
        #expect(problem("{\"a\":1}") == .wrongType(key: "a.dtype", expected: "a string", found: "missing"))
        #expect(
            problem(#"{"__metadata__":3}"#)
                == .wrongType(key: "__metadata__", expected: "an object", found: "the number 3"))
        #expect(
            problem(#"{"__metadata__":{"a":3}}"#)
                == .wrongType(key: "__metadata__.a", expected: "a string", found: "the number 3"))
        let tensor = #"{"dtype":"F32","shape":[1],"data_offsets":[0,4]}"#
        #expect(problem("{\"a\":\(tensor),\"a\":\(tensor)}", data: 4) == .duplicateKey("a"))
    }

    @Test func refusesBadTensors() {
        func problem(_ type: String, _ shape: String, _ offsets: String, data: Int = 8) -> ModelFileError.Problem? {
            self.problem("{\"a\":{\"dtype\":\"\(type)\",\"shape\":\(shape),\"data_offsets\":\(offsets)}}", data: data)
        }
        #expect(problem("F32", "[2]", "[0,8]") == nil)
        #expect(problem("Q4", "[2]", "[0,8]") == .unknownTensorType(tensor: "a", type: "Q4"))
        #expect(
            problem("F32", "[-2]", "[0,8]")
                == .wrongType(key: "a.shape", expected: "an array of natural numbers", found: "an array"))
        #expect(
            problem("F32", "[2]", "[0,8,9]")
                == .wrongType(key: "a.data_offsets", expected: "two natural numbers", found: "an array"))
        #expect(problem("F32", "[1]", "[0,8]") == .wrongByteCount(tensor: "a", expected: 4, found: 8))
        #expect(problem("F32", "[4]", "[0,16]") == .tensorOutOfRange(tensor: "a", start: 0, byteCount: 16, limit: 8))
        #expect(problem("F32", "[2]", "[8,0]") == .tensorOutOfRange(tensor: "a", start: 8, byteCount: 0, limit: 8))
        #expect(
            problem("F32", "[2]", "[9223372036854775807,0]")
                == .tensorOutOfRange(tensor: "a", start: UInt64(Int.max), byteCount: 0, limit: 8))
        guard case .invalidShape = problem("F32", "[4611686018427387904,4]", "[0,8]") else {
            Issue.record("an overflowing shape was accepted")
            return
        }
    }

    @Test func refusesOverlapsAndHoles() {
        func header(_ ranges: [(Int, Int)]) -> String {
            let members = ranges.enumerated().map { index, range in
                "\"\(index)\":{\"dtype\":\"U8\",\"shape\":[\(range.1 - range.0)],\"data_offsets\":[\(range.0),\(range.1)]}"
            }
            return "{\(members.joined(separator: ","))}"
        }
        #expect(problem(header([(0, 4), (4, 8)]), data: 8) == nil)
        #expect(problem(header([(0, 5), (4, 8)]), data: 8) == .overlappingTensors("0", "1"))
        guard case .overlappingTensors = problem(header([(0, 8), (0, 8)]), data: 8) else {
            Issue.record("two tensors in one place were accepted")
            return
        }
        let gap = header([(0, 3), (4, 8)])
        let start = 8 + (gap.utf8.count + 7) / 8 * 8
        #expect(problem(gap, data: 8) == .unreferencedBytes(start: start + 3, end: start + 4))
        #expect(throws: ModelFileError.self) {
            _ = try open(SafetensorsWriter.bytes(header: header([(0, 4)]), data: [0, 0, 0, 0, 0]))
        }
        guard case .unreferencedBytes = problem(header([(1, 8)]), data: 8) else {
            Issue.record("a hole at the start was accepted")
            return
        }
    }

    @Test func survivesDamage() {
        let bytes = SafetensorsWriter([
            .init("a", shape: [2, 2], bytes: [UInt8](repeating: 1, count: 16)),
            .init("b", type: "BF16", shape: [3], bytes: [UInt8](repeating: 2, count: 6)),
        ]).bytes()
        for length in 0..<bytes.count {
            #expect(throws: ModelFileError.self) { _ = try open(Array(bytes.prefix(length))) }
        }
        var random = SeededGenerator(seed: 3)
        for _ in 0..<4_000 {
            var damaged = bytes
            for _ in 0..<Int.random(in: 1...4, using: &random) {
                let position = Int.random(in: 0..<bytes.count, using: &random)
                damaged[position] = Bool.random(using: &random) ? UInt8.random(in: 0x22...0x7d, using: &random) : 0xff
            }
            guard let file = try? open(damaged) else { continue }
            for tensor in file.tensors { _ = try? file.file.bytes(in: tensor.range).reduce(0, &+) }
        }
    }
}
