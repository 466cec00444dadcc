internal import CUDAKernels
internal import FlashInferCore

/// The committed table of what every shipped kernel takes: a change of registers, stack or spills is seen where it is made.
///
/// Its text has a line for each kernel and architecture; what follows a `#` is the reason for a row that spills.
/// ```
/// nvrtc 13.0
/// sm_90a 168 0 0 0 attention/paged-bf16-d128
/// sm_90a 255 0 48 96 attention/paged-fp8-d256  # 96 bytes once a tile, and a smaller tile is slower
/// ```
package struct ResourceTable: Sendable, Equatable {
    /// Which row.
    package struct Key: Hashable, Sendable {
        package let label: String
        package let architecture: Architecture

        package init(label: String, architecture: Architecture) {
            self.label = label
            self.architecture = architecture
        }
    }

    /// What a row says.
    package struct Row: Hashable, Sendable {
        package var resources: KernelResources
        package var reason: String?

        package init(resources: KernelResources, reason: String? = nil) {
            self.resources = resources
            self.reason = reason
        }
    }

    /// The compiler that the figures are from: another one gives others.
    package var version: CompilerVersion
    package var rows: [Key: Row] = [:]

    package init(version: CompilerVersion, rows: [Key: Row] = [:]) {
        self.version = version
        self.rows = rows
    }

    /// The text of the table that this was built with.
    package static var committedText: String { String(cString: fi_resource_table()) }

    /// Where the table lies in a checkout.
    package static let usualPath = "Sources/CUDAKernels/resources.txt"

    /// Reads a table's text.
    ///
    /// - Throws: ``FlashInferError/invalidArgument(_:found:expected:)`` naming the line.
    package init(text: String) throws(FlashInferError) {
        var version: CompilerVersion?
        for (number, line) in text.split(separator: "\n", omittingEmptySubsequences: false).enumerated() {
            let parts = line.split(separator: "#", maxSplits: 1, omittingEmptySubsequences: false)
            let fields = parts[0].split(separator: " ")
            if fields.isEmpty { continue }
            let reason = parts.count > 1 ? String(parts[1].drop { $0 == " " }) : nil
            if fields[0] == "nvrtc", fields.count == 2, let found = CompilerVersion(String(fields[1])) {
                version = found
                continue
            }
            let figures = fields.dropFirst().prefix(4).compactMap { Int($0) }
            guard fields.count >= 6, figures.count == 4, let architecture = Architecture(String(fields[0])) else {
                throw .invalidArgument(
                    "line \(number + 1) of the resource table", found: String(line),
                    expected: "architecture, registers, shared, stack, spills, label")
            }
            rows[Key(label: fields[5...].joined(separator: " "), architecture: architecture)] = Row(
                resources: KernelResources(
                    registers: figures[0], sharedByteCount: figures[1], stackByteCount: figures[2],
                    spillByteCount: figures[3]), reason: reason)
        }
        guard let version else {
            throw .invalidArgument("resource table", found: "no compiler", expected: "a line such as 'nvrtc 13.0'")
        }
        self.version = version
    }

    /// The table as text, in order of labels and architectures.
    package var text: String {
        var text = """
            # What every shipped kernel takes. Checked by 'flashinfer compile --check', rewritten by '--check --update'.
            # architecture, registers, static shared bytes, stack bytes, spilled bytes, label, and the reason where it spills.
            nvrtc \(version)\n
            """
        let sorted = rows.sorted {
            ($0.key.label, $0.key.architecture.number) < ($1.key.label, $1.key.architecture.number)
        }
        for (key, row) in sorted {
            let found = row.resources
            text += "\(key.architecture) \(found.registers) \(found.sharedByteCount) \(found.stackByteCount) "
            text += "\(found.spillByteCount) \(key.label)" + (row.reason.map { "  # \($0)" } ?? "") + "\n"
        }
        return text
    }

    /// What differs between the table and what was found, a line each; empty where all is as it should be.
    ///
    /// - Parameter isPartial: whether only some of the rows were to be found, so that others are not missing.
    package func differences(
        from found: [Key: KernelResources], by compiler: CompilerVersion, isPartial: Bool
    ) -> [String] {
        var lines: [String] = []
        for (key, resources) in found.sorted(by: {
            ($0.key.label, $0.key.architecture.number) < ($1.key.label, $1.key.architecture.number)
        }) {
            let name = "\(key.label) \(key.architecture)"
            guard let row = rows[key] else {
                lines.append("\(name): not in the table; found \(resources)")
                continue
            }
            if resources.spillByteCount > 0, row.reason == nil {
                lines.append("\(name): spills \(resources.spillByteCount) bytes, and its row gives no reason")
            }
            // Another compiler allocates otherwise; only spills are compared then.
            if resources != row.resources, compiler == version {
                lines.append("\(name): was \(row.resources), is \(resources)")
            }
        }
        guard !isPartial else { return lines }
        for key in rows.keys.filter({ found[$0] == nil }).sorted(by: { $0.label < $1.label }) {
            lines.append("\(key.label) \(key.architecture): in the table, but no longer shipped")
        }
        return lines
    }

    /// This table with what was found: reasons stay.
    package func updated(
        with found: [Key: KernelResources], by compiler: CompilerVersion, isPartial: Bool
    ) -> ResourceTable {
        var table = ResourceTable(version: compiler, rows: isPartial ? rows : [:])
        for (key, resources) in found {
            table.rows[key] = Row(resources: resources, reason: rows[key]?.reason)
        }
        return table
    }
}

extension Architecture {
    /// Its place in lists.
    fileprivate var number: Int { major * 100 + minor * 2 + (isSpecific ? 1 : 0) }
}
