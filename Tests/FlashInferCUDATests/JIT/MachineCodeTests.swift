import FlashInferCUDA
import TestSupport
import Testing

/// Instructions that no GPU executes, found in files made here; no compiler is needed for that.
@Suite struct MachineCodeTests {
    /// `LDGSTS.E.BYPASS.128 [R101+0x800], desc[UR4][R16.64], P0`, of a kernel for 9.0.
    private let copy: [UInt64] = [0x0080_0000_1065_7fae, 0x0007_e400_0810_1c44]
    /// `LDGSTS.E.BYPASS.128 [R76+UR0+0x1800], desc[UR1][R90.64], P1`, of one that an H200 refused.
    private let illegal: [UInt64] = [0x0180_0000_5a4c_7dae, 0x0003_e200_0890_1c40]
    /// `LDGSTS.E.BYPASS.128 [R172+UR0], desc[UR1][R66.64], P2`, of one for 12.0.
    private let illegalOf12: [UInt64] = [0x0000_0000_42ac_7dae, 0x0003_e200_0918_1800]
    /// Its second half looks like the start of such a copy.
    private let other: [UInt64] = [0x0000_0000_0000_7918, 0x0000_0000_0000_7dae]

    /// An ELF file with these sections, and the names of sections in one more.
    private func cubin(_ sections: [(name: String, words: [UInt64])]) -> [UInt8] {
        var names: [UInt8] = [0]
        var bytes: [UInt8] = []
        var headers: [UInt8] = []
        func add(_ name: String, _ content: [UInt8]) {
            headers.append(little: UInt32(names.count))
            headers.append(little: UInt32(1))
            for word in [0, 0, 64 + bytes.count, content.count, 0, 0, 0] { headers.append(little: UInt64(word)) }
            names += Array(name.utf8) + [0]
            bytes += content
        }
        for section in sections {
            var content: [UInt8] = []
            for word in section.words { content.append(little: word) }
            add(section.name, content)
        }
        let all = names + Array(".shstrtab".utf8) + [0]
        add(".shstrtab", all)
        var file: [UInt8] = [0x7f, UInt8(ascii: "E"), UInt8(ascii: "L"), UInt8(ascii: "F"), 2, 1, 1, 0x41]
        file += [UInt8](repeating: 0, count: 0x28 - file.count)
        file.append(little: UInt64(64 + bytes.count))
        file += [UInt8](repeating: 0, count: 0x3a - file.count)
        for word in [64, sections.count + 1, sections.count] { file.append(little: UInt16(word)) }
        return file + bytes + headers
    }

    private func copies(_ cubin: [UInt8]) throws -> [String] {
        try MachineCode.illegalCopies(in: cubin).map(\.description)
    }

    @Test func findsCopiesByFunctionAndOffset() throws {
        let file = cubin([
            (".nv.info", illegal), (".text.first", copy + illegal + other + illegalOf12),
            (".text.second", copy + other), (".nv.constant0.first", illegal), (".text.third", illegal),
        ])
        #expect(try copies(file) == ["0x10 of first", "0x30 of first", "0x0 of third"])
    }

    @Test func findsNothingWhereNothingIs() throws {
        #expect(try copies(cubin([(".text.first", copy + other + copy)])).isEmpty)
        #expect(throws: Never.self) {
            try MachineCode.requireLegalCopies(in: cubin([(".text.first", copy)]), of: "test")
        }
    }

    @Test func theErrorNamesTheKernelAndThePlaces() throws {
        let file = cubin([(".text.fi_attention", copy + illegal + illegalOf12)])
        let error = try #require(throws: FlashInferError.self) {
            try MachineCode.requireLegalCopies(in: file, of: "attention 16x64")
        }
        let text = "\(error)"
        #expect(text.contains("attention 16x64") && text.contains("at 0x10 of fi_attention (and 1 more)"))
        #expect(text.contains("LDGSTS") && text.contains("cache policy"))
    }

    @Test func whatIsNoCubinIsAnError() {
        let file = cubin([(".text.first", copy)])
        #expect(throws: FlashInferError.self) { try MachineCode.illegalCopies(in: []) }
        #expect(throws: FlashInferError.self) { try MachineCode.illegalCopies(in: Array("//\n.version 9.0\n".utf8)) }
        // Cut off anywhere: the table of sections comes last.
        for count in stride(from: 0, to: file.count, by: 7) {
            #expect(throws: FlashInferError.self) { try MachineCode.illegalCopies(in: Array(file.prefix(count))) }
        }
        // Functions there must be, of whole instructions.
        #expect(throws: FlashInferError.self) { try MachineCode.illegalCopies(in: cubin([(".nv.info", copy)])) }
        #expect(throws: FlashInferError.self) { try MachineCode.illegalCopies(in: cubin([(".text.f", [0])])) }
        // A table, and a section, that lie elsewhere.
        var far = file
        far.replaceSubrange(0x28..<0x30, with: [UInt8](repeating: 0xff, count: 8))
        #expect(throws: FlashInferError.self) { try MachineCode.illegalCopies(in: far) }
    }
}
