/// A variant's parts, as PTX, put where the PTX of a frame marks their places.
///
/// A mark is a statement `fi_NAME a, b, …;` in the kernel's entry, of which `portable/variant_parts.cuh` has an entry of this name. Its
/// instructions take the mark's place, in a scope of their own, with other names of registers and labels than the frame has. An input
/// `fi_in r, n;` moves the mark's operand n, an output `fi_out n, r;` sets it.
package struct PTXSplice {
    private typealias Text = ArraySlice<UInt8>

    /// A line of a part.
    private enum Line {
        /// Up to where the instance's number goes into names of labels.
        case plain([Text])
        case input(register: Text, operand: Int)
        case output(operand: Int, value: Text)
    }

    private static let names = ["fi_row", "fi_shows", "fi_bits", "fi_logit", "fi_weight", "fi_hides"]

    private let parts: [(name: [UInt8], lines: [Line])]
    /// The kernel's name and that of its parameter, which parts read.
    private let entry: [UInt8]

    /// Takes parts apart; nil where they have something that does not fit into a kernel.
    package init?(parts ptx: [UInt8], entry: String) {
        self.entry = Array(entry.utf8)
        let parameter = Array("\(entry)_param_0".utf8)
        var parts: [(name: [UInt8], lines: [Line])] = []
        var own: [UInt8]?
        var ownParameter: [UInt8] = []
        var lines: [Line] = []
        var hasReturned = false
        for line in ptx.split(separator: UInt8(ascii: "\n")) {
            let line = Self.trimmed(line)
            if line.isEmpty || Self.isDropped(line) { continue }
            if own == nil {
                if let name = Self.names.first(where: { line.starts(with: Array(".visible .entry \($0)(".utf8)) }) {
                    own = Array(name.utf8)
                    ownParameter = Array("\(name)_param_0".utf8)
                    lines = []
                    hasReturned = false
                }
                continue
            }
            if line.elementsEqual("{".utf8) || line.elementsEqual(")".utf8) || line.starts(with: ".param".utf8) {
                continue
            }
            if line.elementsEqual("}".utf8) {
                guard hasReturned else { return nil }
                parts.append((own!, lines))
                own = nil
                continue
            }
            // One end, and that the last instruction.
            guard !hasReturned else { return nil }
            if line.elementsEqual("ret;".utf8) {
                hasReturned = true
                continue
            }
            let renamed = Self.renamed(line, from: ownParameter, to: parameter)
            if let operands = Self.operands(of: renamed[...], "fi_in") {
                guard operands.count == 2, let number = Self.number(operands[1]) else { return nil }
                lines.append(.input(register: operands[0], operand: number))
            } else if let operands = Self.operands(of: renamed[...], "fi_out") {
                guard operands.count == 2, let number = Self.number(operands[0]) else { return nil }
                lines.append(.output(operand: number, value: operands[1]))
            } else {
                lines.append(.plain(Self.split(renamed, at: "$L__")))
            }
        }
        guard parts.count == Self.names.count else { return nil }
        self.parts = parts
    }

    /// The frame with the parts in their places, without what heads a PTX file; nil where a mark has fewer operands than its part uses,
    /// or where nothing is marked.
    package func text(frame: [UInt8]) -> [UInt8]? {
        var text: [UInt8] = []
        text.reserveCapacity(frame.count * 3 / 2)
        var instances = 0
        var isDebugging = false
        for line in frame.split(separator: UInt8(ascii: "\n")) {
            let whole = line
            let line = Self.trimmed(line)
            if line.starts(with: ".section".utf8) { isDebugging = true }
            if isDebugging {
                if line.last == UInt8(ascii: "}") { isDebugging = false }
                continue
            }
            if line.isEmpty || Self.isDropped(line) || Self.isHead(line) { continue }
            guard line.starts(with: "fi_".utf8),
                let part = parts.first(where: { Self.operands(of: line, $0.name) != nil })
            else {
                text += whole.prefix { $0 != 0 }
                text.append(UInt8(ascii: "\n"))
                continue
            }
            guard let operands = Self.operands(of: line, part.name), put(part.lines, operands, instances, into: &text)
            else { return nil }
            instances += 1
        }
        return instances > 0 ? text : nil
    }

    private func put(_ lines: [Line], _ operands: [Text], _ instance: Int, into text: inout [UInt8]) -> Bool {
        text += "{\n".utf8
        for line in lines {
            switch line {
            case .plain(let pieces):
                for (index, piece) in pieces.enumerated() {
                    if index > 0 { text += "$V\(instance)_".utf8 }
                    text += piece
                }
            case .input(let register, let operand):
                guard operand < operands.count else { return false }
                text += "mov.b32 ".utf8 + register + ", ".utf8 + operands[operand] + ";".utf8
            case .output(let operand, let value):
                guard operand < operands.count else { return false }
                text += "mov.b32 ".utf8 + operands[operand] + ", ".utf8 + value + ";".utf8
            }
            text.append(UInt8(ascii: "\n"))
        }
        text += "}\n".utf8
        return true
    }

    /// PTX as a text that NVRTC takes, which takes no PTX: as an `asm` statement, which goes to the assembler as it is. It ends the entry that
    /// it stands in, and begins a function for the rest of that.
    ///
    /// The driver's compiler takes PTX too, but keeps the machine code to itself; the linkers give it, of code that is made to be
    /// linked, in which the warps of a block cannot share registers out (`setmaxnreg`).
    package static func asProgram(_ ptx: [UInt8]) -> String {
        "extern \"C\" __global__ void fi_begin() {\nasm volatile(R\"PTX(ret;\n}\n\(String(decoding: ptx, as: UTF8.self))"
            + ".func fi_end() {\n)PTX\" ::);\n}\n"
    }

    // MARK: Lines

    private static func trimmed(_ line: Text) -> Text {
        var line = line
        while let first = line.first, first == 32 || first == 9 || first == 0 { line = line.dropFirst() }
        while let last = line.last, last == 32 || last == 9 || last == 0 || last == 13 { line = line.dropLast() }
        return line
    }

    /// Comments, and what debuggers read.
    private static func isDropped(_ line: Text) -> Bool {
        line.starts(with: "//".utf8) || line.starts(with: ".loc".utf8) || line.starts(with: ".file".utf8)
    }

    private static func isHead(_ line: Text) -> Bool {
        [".version", ".target", ".address_size"].contains { line.starts(with: $0.utf8) }
    }

    /// The operands of a statement; nil where it is another.
    private static func operands(of line: Text, _ name: String) -> [Text]? { operands(of: line, Array(name.utf8)) }

    private static func operands(of line: Text, _ name: [UInt8]) -> [Text]? {
        guard line.starts(with: name), line.last == UInt8(ascii: ";") else { return nil }
        let rest = line.dropFirst(name.count).dropLast()
        guard rest.first == 32 else { return nil }
        return rest.split(separator: UInt8(ascii: ",")).map(trimmed)
    }

    private static func number(_ text: Text) -> Int? { Int(String(decoding: text, as: UTF8.self)) }

    /// A line with registers' names changed, "%r1" to "%vr1", and the parameter's.
    private static func renamed(_ line: Text, from parameter: [UInt8], to other: [UInt8]) -> [UInt8] {
        var text: [UInt8] = []
        var rest = line
        while let first = rest.first {
            if first == parameter[0], rest.starts(with: parameter) {
                text += other
                rest = rest.dropFirst(parameter.count)
                continue
            }
            text.append(first)
            if first == UInt8(ascii: "%") { text.append(UInt8(ascii: "v")) }
            rest = rest.dropFirst()
        }
        return text
    }

    private static func split(_ line: [UInt8], at word: String) -> [Text] {
        let word = Array(word.utf8)
        var pieces: [Text] = []
        var start = 0
        var index = 0
        while index < line.count {
            if line[index] == word[0], line[index...].starts(with: word) {
                pieces.append(line[start..<index])
                index += word.count
                start = index
            } else {
                index += 1
            }
        }
        pieces.append(line[start...])
        return pieces
    }
}
