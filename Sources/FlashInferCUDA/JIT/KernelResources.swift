/// What one kernel's machine code takes, as the assembler reports it.
package struct KernelResources: Hashable, Sendable {
    /// Registers a thread.
    package var registers = 0
    /// Bytes of static shared memory a block.
    package var sharedByteCount = 0
    /// Bytes of stack a thread.
    package var stackByteCount = 0
    /// Bytes that a thread stores and loads because registers ran out.
    package var spillByteCount = 0

    package init(registers: Int = 0, sharedByteCount: Int = 0, stackByteCount: Int = 0, spillByteCount: Int = 0) {
        self.registers = registers
        self.sharedByteCount = sharedByteCount
        self.stackByteCount = stackByteCount
        self.spillByteCount = spillByteCount
    }

    /// Reads the log of a verbose compilation; nil where it has nothing about `entry`.
    ///
    /// Functions that were not inlined have properties of their own, with their own stack and spills; the worst of them counts.
    package init?(log: String, entry: String) {
        var isOurs = false
        var isFound = false
        for line in log.split(separator: "\n") {
            if line.contains("Compiling entry function '") {
                isOurs = line.contains("'\(entry)'")
                isFound = isFound || isOurs
            }
            guard isOurs else { continue }
            if let bytes = Self.number(before: "bytes stack frame", in: line) {
                stackByteCount = max(stackByteCount, bytes)
                let stores = Self.number(before: "bytes spill stores", in: line) ?? 0
                let loads = Self.number(before: "bytes spill loads", in: line) ?? 0
                spillByteCount = max(spillByteCount, stores + loads)
            }
            if let count = Self.number(before: "registers", in: line) {
                registers = count
                sharedByteCount = Self.number(before: "bytes smem", in: line) ?? 0
            }
        }
        guard isFound, registers > 0 else { return nil }
    }

    /// The number that stands before some words of a line.
    private static func number(before words: String, in line: Substring) -> Int? {
        let tokens = line.split(whereSeparator: { $0 == " " || $0 == "," })
        let wanted = words.split(separator: " ")
        for start in tokens.indices.dropFirst() where tokens[start...].starts(with: wanted) {
            return Int(tokens[start - 1])
        }
        return nil
    }
}

extension KernelResources: CustomStringConvertible {
    /// "72 registers, 1024 bytes shared, 0 stack, 0 spilled"
    package var description: String {
        "\(registers) registers, \(sharedByteCount) bytes shared, \(stackByteCount) stack, \(spillByteCount) spilled"
    }
}
