internal import FlashInferCore

/// What a cubin's instructions say and neither its text nor its PTX does: what the assembler alone has decided.
package enum MachineCode {
    /// A copy to shared memory that no GPU executes.
    package struct IllegalCopy: Hashable, Sendable, CustomStringConvertible {
        /// The function that it is in.
        package let function: String
        /// Bytes from the function's start, as disassemblers count them.
        package let offset: Int

        /// "0x2340 of fi_attention"
        package var description: String { "0x\(String(offset, radix: 16)) of \(function)" }
    }

    /// `LDGSTS`, what `cp.async` becomes, where a uniform register is added to the address in shared memory. With registers of threads
    /// alone it is `0xfae`.
    ///
    /// ptxas 13.0 makes it of copies with a cache policy where a part of the address is the same for all lanes. It leaves the field of
    /// uniform registers 0, no instruction writes that register, and the GPU stops with `CUDA_ERROR_ILLEGAL_INSTRUCTION`. In none of 3,900
    /// other cubins, of 8.0 to 12.0, did a copy have this form.
    private static let copyToUniformAddress = 0xdae

    /// Bytes of an instruction, of compute capability 7.0 and up.
    private static let instructionByteCount = 16

    /// Where a cubin has illegal copies; empty where all is well.
    ///
    /// - Throws: ``FlashInferError/deviceFailure(call:message:)`` where the bytes are not those of a whole cubin.
    package static func illegalCopies(in cubin: [UInt8]) throws(FlashInferError) -> [IllegalCopy] {
        guard let functions = functions(of: cubin) else {
            throw .deviceFailure(
                call: "reading machine code", message: "\(cubin.count) bytes that are no ELF file of a GPU's functions")
        }
        return functions.flatMap { name, code in
            stride(from: code.startIndex, to: code.endIndex, by: instructionByteCount).compactMap { start in
                // The operation is the first 12 bits.
                guard let bits = cubin.number(UInt16.self, at: start), bits & 0xfff == copyToUniformAddress else {
                    return nil
                }
                return IllegalCopy(function: name, offset: start - code.startIndex)
            }
        }
    }

    /// Whether a GPU executes all of a cubin's copies; also of what is no cubin, which the driver refuses.
    package static func isLegal(_ cubin: [UInt8]) -> Bool { (try? illegalCopies(in: cubin))?.isEmpty ?? true }

    /// Finds out whether a cubin's copies to shared memory are ones that a GPU executes.
    ///
    /// - Throws: ``FlashInferError/deviceFailure(call:message:)`` that says where one is not, and what to change.
    package static func requireLegalCopies(in cubin: [UInt8], of label: String) throws(FlashInferError) {
        let copies = try illegalCopies(in: cubin)
        guard let first = copies.first else { return }
        let others = copies.count > 1 ? " (and \(copies.count - 1) more)" : ""
        throw .deviceFailure(
            call: "checking the machine code of \(label)",
            message:
                "no GPU executes the copy to shared memory (LDGSTS) at \(first)\(others): its address has a uniform register that "
                + "nothing writes. The assembler makes it of a cp.async with a cache policy where a part of the address is the same "
                + "for all lanes: leave the policy out, or keep the assembler from knowing that it is the same")
    }

    /// The functions of a cubin, in its order, and the bytes that their instructions are; nil where it is none, or is cut off.
    ///
    /// A cubin is a little-endian ELF file of 64 bits, and a function is its section `.text.NAME`.
    private static func functions(of cubin: [UInt8]) -> [(name: String, code: Range<Int>)]? {
        guard cubin.starts(with: [0x7f, UInt8(ascii: "E"), UInt8(ascii: "L"), UInt8(ascii: "F"), 2, 1]),
            let table = cubin.number(UInt64.self, at: 0x28), let size = cubin.number(UInt16.self, at: 0x3a),
            let count = cubin.number(UInt16.self, at: 0x3c), let namesIndex = cubin.number(UInt16.self, at: 0x3e),
            table <= cubin.count, size * count <= cubin.count - table
        else { return nil }
        func section(_ index: Int) -> (name: Int, bytes: Range<Int>)? {
            let start = table + index * size
            guard let name = cubin.number(UInt32.self, at: start),
                let offset = cubin.number(UInt64.self, at: start + 0x18),
                let byteCount = cubin.number(UInt64.self, at: start + 0x20)
            else { return nil }
            // What takes no place in the file may say any length.
            let first = min(offset, cubin.count)
            return (name, first..<first + min(byteCount, cubin.count - first))
        }
        guard let names = section(namesIndex)?.bytes else { return nil }
        var functions: [(name: String, code: Range<Int>)] = []
        for index in 0..<count {
            guard let section = section(index) else { return nil }
            let name = String(
                decoding: cubin[names].dropFirst(section.name).prefix { $0 != 0 }, as: UTF8.self)
            guard name.hasPrefix(".text.") else { continue }
            guard section.bytes.count % instructionByteCount == 0 else { return nil }
            functions.append((String(name.dropFirst(6)), section.bytes))
        }
        return functions.isEmpty ? nil : functions
    }
}

extension [UInt8] {
    /// The little-endian number at an offset; nil where the bytes end before it does, or where no `Int` holds it.
    fileprivate func number<Word: FixedWidthInteger & BitwiseCopyable>(_: Word.Type, at offset: Int) -> Int? {
        guard offset >= 0, offset <= count - MemoryLayout<Word>.size else { return nil }
        let word = withUnsafeBytes { $0.loadUnaligned(fromByteOffset: offset, as: Word.self) }
        return Int(exactly: Word(littleEndian: word))
    }
}
