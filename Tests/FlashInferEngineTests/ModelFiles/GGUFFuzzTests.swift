import FlashInferCore
import FlashInferEngine
import TestSupport
import Testing

/// Damaged files must end in a typed error or be read as what they now say; a trap or a read past the end, which the
/// guard page behind the bytes turns into a crash, ends the whole run.
struct GGUFFuzzTests {
    /// A small model: short enough to try every length, with everything a real one has.
    private static let model: [UInt8] = {
        var tiny = TinyModelWriter(precision: .q80)
        tiny.layerCount = 1
        tiny.intermediateSize = 32
        var writer = tiny.gguf()
        // The vocabulary is most of the header; a few entries of it are enough here.
        writer.values = writer.values.map { key, value in
            guard case .array(let type, let elements) = value else { return (key, value) }
            return (key, .array(type: type, Array(elements.prefix(3))))
        }
        writer.values.append(("nested", .array(type: 9, [.ints([1]), .strings(["a", "b"])])))
        return writer.bytes()
    }()

    private static let headerLength = 3_000

    /// Opens the bytes and touches everything that opening made reachable.
    private func exercise(_ bytes: [UInt8]) throws {
        let file: GGUFFile
        do throws(ModelFileError) {
            file = try GGUFFile(MappedFile.guarded(bytes))
        } catch {
            #expect(!error.description.isEmpty)
            return
        }
        for tensor in file.tensors { _ = try file.bytes(of: tensor).reduce(0, &+) }
        for key in file.keys {
            guard let array = file[key]?.array else { continue }
            _ = (array.strings, array.ints, array.floats, array.prefix(3))
        }
        #expect(!ModelSummary(.gguf(file)).text().isEmpty)
    }

    @Test func theModelIsSound() throws {
        let file = try GGUFFile(MappedFile.guarded(Self.model))
        let weights = try ModelWeights(gguf: file, config: ModelConfig(gguf: file))
        #expect(weights[.query(layer: 0)]?.format == .q80)
        #expect(file.dataOffset < Self.headerLength)
    }

    @Test func everyTruncationIsAnError() {
        for length in 0..<Self.model.count {
            // Past the header only the end of the data matters, and any length shows that.
            if length > Self.headerLength, length % 61 != 0 { continue }
            #expect(throws: ModelFileError.self) {
                _ = try GGUFFile(MappedFile.guarded(Array(Self.model.prefix(length))))
            }
        }
    }

    @Test func everyHeaderByteCanBeAnything() throws {
        for position in 0..<Self.headerLength {
            for byte: UInt8 in [0, 0xff, Self.model[position] ^ 0x01, Self.model[position] ^ 0x80] {
                var bytes = Self.model
                bytes[position] = byte
                try exercise(bytes)
            }
        }
    }

    @Test(arguments: 0..<4) func manyBytesCanBeAnything(seed: Int) throws {
        var random = SeededGenerator(seed: UInt64(seed))
        for _ in 0..<500 {
            var bytes = Array(Self.model.prefix(Int.random(in: 24...Self.model.count, using: &random)))
            for _ in 0..<Int.random(in: 1...8, using: &random) {
                let position = Int.random(in: 0..<min(bytes.count, Self.headerLength), using: &random)
                bytes[position] = UInt8.random(in: 0...255, using: &random)
            }
            try exercise(bytes)
        }
    }

    @Test func wholeNumbersCanBeHuge() throws {
        var random = SeededGenerator(seed: 9)
        for _ in 0..<1_000 {
            var bytes = Self.model
            let position = Int.random(in: 8..<Self.headerLength - 8, using: &random)
            let values: [UInt64] = [.max, 1 << 63, 1 << 62, 1 << 32, UInt64(bytes.count)]
            let value = values.randomElement(using: &random) ?? 0
            for index in 0..<8 { bytes[position + index] = UInt8(truncatingIfNeeded: value >> UInt64(8 * index)) }
            try exercise(bytes)
        }
    }

    @Test func noiseIsAnError() {
        var random = SeededGenerator(seed: 10)
        for _ in 0..<200 {
            var bytes = Array("GGUF".utf8) + [3, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]
            bytes += (0..<500).map { _ in UInt8.random(in: 0...255, using: &random) }
            #expect(throws: ModelFileError.self) { _ = try GGUFFile(MappedFile.guarded(bytes)) }
        }
    }
}
