internal import FlashInferCore

/// What the assembler says where a kernel's tensor-core products (`wgmma`) wait for each other, one by one.
///
/// Results stay right, and registers and spills may stay what they were, while the kernel takes half as long again: so nothing else in a check
/// shows it. It comes of what the assembler cannot follow while products are under way: branches by what may differ between lanes, calls of
/// functions, outputs that change hands.
package enum SerializedProducts {
    /// The assembler's reason, without what it says before; nil where products overlap, or there are none.
    package static func reason(in log: String) -> Substring? {
        for line in log.split(separator: "\n") where line.contains("wgmma") {
            guard let words = line.firstRange(of: "serialized") else { continue }
            return line[words.upperBound...].drop { $0 == " " }
        }
        return nil
    }

    /// Finds out whether products overlap.
    ///
    /// - Throws: ``FlashInferError/deviceFailure(call:message:)`` with the assembler's reason where they do not.
    package static func requireNone(in log: String, of label: String) throws(FlashInferError) {
        guard let reason = reason(in: log) else { return }
        throw .deviceFailure(
            call: "checking the machine code of \(label)",
            message: "its tensor-core products wait for each other, \(reason)")
    }
}
