extension Tokenizer {
    /// The text of ids. Bytes that are no UTF-8 become U+FFFD; ids out of range stand for nothing.
    ///
    /// - Complexity: O(bytes of the text).
    public func decode(_ ids: some Sequence<Int32>, skipSpecialTokens: Bool = false) -> String {
        var bytes: [UInt8] = []
        var isFirst = true
        for id in ids where id >= 0 && Int(id) < pieces.count {
            if skipSpecialTokens, specialIDs.contains(id) { continue }
            if decoder.joinsWithSpaces, !isFirst { bytes.append(32) }
            bytes.append(contentsOf: pieces.bytes(of: Int(id)))
            isFirst = false
        }
        var start = 0
        while start < decoder.leading.count, start < bytes.count, bytes[start] == decoder.leading.byte { start += 1 }
        return String(decoding: bytes[start...], as: UTF8.self)
    }
}

/// Ids in one at a time, text out as soon as it is whole scalars.
///
/// ```swift
/// var decoder = StreamingDecoder(tokenizer)
/// for id in generated { print(decoder.push(id), terminator: "") }
/// print(decoder.finish())
/// ```
///
/// The pieces joined are what `decode` gives for all the ids. A scalar whose bytes come with several tokens is given
/// out with the last of them; U+FFFD stands only for bytes that no later token can complete.
public struct StreamingDecoder: Sendable {
    private let tokenizer: Tokenizer
    private let skipSpecialTokens: Bool
    private var pending: [UInt8] = []
    private var strippable: Int
    private var isFirst = true

    /// Begins a stream.
    ///
    /// - Parameter startsText: Whether the first id begins a text, so that the space that the tokenizer puts before
    ///   texts is taken off; false for what a model writes after a prompt.
    public init(_ tokenizer: Tokenizer, skipSpecialTokens: Bool = true, startsText: Bool = false) {
        self.tokenizer = tokenizer
        self.skipSpecialTokens = skipSpecialTokens
        self.strippable = startsText ? tokenizer.decoder.leading.count : 0
    }

    /// The text that an id completes; empty while a scalar is incomplete.
    public mutating func push(_ id: Int32) -> String {
        guard id >= 0, Int(id) < tokenizer.pieces.count else { return "" }
        if skipSpecialTokens, tokenizer.specialIDs.contains(id) { return "" }
        if tokenizer.decoder.joinsWithSpaces, !isFirst { pending.append(32) }
        isFirst = false
        tokenizer.pieces.withBytes(of: Int(id)) { bytes in
            for byte in bytes {
                if strippable > 0, byte == tokenizer.decoder.leading.byte {
                    strippable -= 1
                    continue
                }
                strippable = 0
                pending.append(byte)
            }
        }
        let complete = completeCount()
        if complete == 0 { return "" }
        let text = String(decoding: pending[..<complete], as: UTF8.self)
        pending.removeFirst(complete)
        return text
    }

    /// What is left: U+FFFD for an incomplete scalar, nothing otherwise.
    public mutating func finish() -> String {
        let text = String(decoding: pending, as: UTF8.self)
        pending.removeAll()
        return text
    }

    /// Bytes up to the beginning of a scalar that is incomplete at the end.
    private func completeCount() -> Int {
        pending.withUnsafeBufferPointer { bytes in
            // A scalar has at most three bytes before its last one.
            var start = Swift.max(0, bytes.count - 3)
            while start < bytes.count {
                if bytes[start] >= 0xC0, case .incomplete = UTF8Decoding.sequence(in: bytes, at: start) {
                    return start
                }
                start += 1
            }
            return bytes.count
        }
    }
}
