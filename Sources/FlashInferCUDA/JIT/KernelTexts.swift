internal import CUDAKernels
internal import FlashInferCore

/// Texts of kernels by name, and what each one includes.
package final class KernelTexts: Sendable {
    /// Names and texts, in order of names.
    package let texts: [(name: String, text: String)]
    private let positions: [String: Int]
    private let digests = Locked<[String: String]>([:])

    /// Those that ship, but for those that the folder of `FLASHINFER_KERNEL_TEXTS` has: whoever works on a kernel then needs no build.
    package static let shipped = shipped(replacedFrom: CUDAEnvironment.current.kernelTexts)

    /// Those that ship, but for those that a folder has under the same name.
    package static func shipped(replacedFrom folder: String?) -> KernelTexts {
        var texts: [String: String] = [:]
        let list = fi_kernel_text_list()
        var index = 0
        while let name = list[index].name, let text = list[index].text {
            let name = String(cString: name)
            let place = name.contains("/") ? name : "include/" + name
            let replaced = folder.flatMap { FileSystem.read("\($0)/\(place)") }
            texts[name] = replaced.map { String(decoding: $0, as: UTF8.self) } ?? String(cString: text)
            index += 1
        }
        return KernelTexts(texts)
    }

    /// These texts, by their names as `#include` gives them.
    package init(_ texts: [String: String]) {
        let sorted = texts.sorted { $0.key < $1.key }.map { (name: $0.key, text: $0.value) }
        positions = Dictionary(uniqueKeysWithValues: sorted.indices.map { (sorted[$0].name, $0) })
        self.texts = sorted
    }

    /// The text with a name.
    package subscript(name: String) -> String? { positions[name].map { texts[$0].text } }

    /// Whether the kernel of a text waits itself for what was enqueued before it, so that it may start early; see `launch.cuh`.
    package func followsPredecessors(_ name: String) -> Bool {
        guard let text = self[name], text.contains("extern \"C\" __global__") else { return false }
        return text.contains(" fi_follow_predecessors(") || text.contains(" fi_await_predecessors();\n")
    }

    /// A SHA-256 of a text and of every text that it includes, directly or not; computed once.
    ///
    /// Conditions are not looked at: an include that is compiled out counts too.
    package func digest(of name: String) throws(FlashInferError) -> String {
        if let known = digests.withLock({ $0[name] }) { return known }
        var hash = SHA256()
        for file in try closure(of: name) {
            // Names and lengths, so that no two different sets of texts feed the same bytes.
            let text = texts[positions[file]!].text
            hash.update("\(file) \(text.utf8.count)\n")
            hash.update(text)
        }
        let digest = hash.finish()
        digests.withLock { $0[name] = digest }
        return digest
    }

    /// The names of a text and of all it includes, each once, in order of first mention.
    package func closure(of name: String) throws(FlashInferError) -> [String] {
        guard positions[name] != nil else {
            throw .invalidArgument("kernel file", found: name, expected: "one of CUDAKernels' texts")
        }
        var names = [name]
        var next = 0
        while next < names.count {
            for include in Self.includes(in: texts[positions[names[next]]!].text) where !names.contains(include) {
                guard positions[include] != nil else {
                    throw .invalidArgument(
                        "#include in \(names[next])", found: include,
                        expected: "one of CUDAKernels' texts, by its path below the module")
                }
                names.append(include)
            }
            next += 1
        }
        return names
    }

    /// The names that a text's `#include "…"` lines give.
    private static func includes(in text: String) -> [String] {
        text.utf8.split(separator: UInt8(ascii: "\n")).compactMap { line in
            var rest = line.drop { $0 == UInt8(ascii: " ") || $0 == UInt8(ascii: "\t") }
            guard rest.first == UInt8(ascii: "#") else { return nil }
            rest = rest.dropFirst().drop { $0 == UInt8(ascii: " ") || $0 == UInt8(ascii: "\t") }
            guard rest.starts(with: "include".utf8), let open = rest.firstIndex(of: UInt8(ascii: "\"")) else {
                return nil
            }
            let tail = rest[rest.index(after: open)...]
            guard let close = tail.firstIndex(of: UInt8(ascii: "\"")) else { return nil }
            return String(Substring(tail[..<close]))
        }
    }
}
