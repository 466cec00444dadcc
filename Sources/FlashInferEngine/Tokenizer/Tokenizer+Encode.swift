extension Tokenizer {
    /// The ids of a text.
    ///
    /// - Parameters:
    ///   - text: At most `TokenizerDefinition.textByteLimit` bytes.
    ///   - addSpecialTokens: Whether the ids that begin and end a sequence are put around it.
    ///   - parseSpecialTokens: Whether texts of special tokens become those tokens. Switch it off for text from
    ///     outside, so that it cannot forge the structure of a conversation.
    /// - Throws: `TokenizerError.tooMany` for a longer text, `patternTooExpensive` when the file's own pattern
    ///   backtracks beyond its budget.
    /// - Complexity: O(n log n) at worst, in one word of n symbols; O(n) for ordinary text.
    public func encode(
        _ text: String, addSpecialTokens: Bool = true, parseSpecialTokens: Bool = true
    ) throws(TokenizerError) -> [Int32] {
        let byteCount = text.utf8.count
        if byteCount > TokenizerDefinition.textByteLimit {
            throw .tooMany(what: "bytes of text", count: byteCount, limit: TokenizerDefinition.textByteLimit)
        }
        var state = EncodingState(cachesWords: byteCount > 2048)
        state.ids.reserveCapacity(byteCount / 4 + prefix.count + suffix.count)
        if addSpecialTokens { state.ids += prefix }
        var text = text
        let failure = text.withUTF8 { utf8 in
            capture { () throws(TokenizerError) in
                try encode(utf8, parsesSpecial: parseSpecialTokens, into: &state)
            }
        }
        if let failure { throw failure }
        if addSpecialTokens { state.ids += suffix }
        return state.ids
    }

    /// Runs a body inside of a closure that cannot throw a typed error.
    private func capture(_ body: () throws(TokenizerError) -> Void) -> TokenizerError? {
        do {
            try body()
            return nil
        } catch {
            return error
        }
    }

    private func encode(
        _ text: UnsafeBufferPointer<UInt8>, parsesSpecial: Bool, into state: inout EncodingState
    ) throws(TokenizerError) {
        var followsSpecial = true
        try rawMatcher.forEachPart(of: text, parsesSpecial: parsesSpecial) { range, token throws(TokenizerError) in
            if let token {
                let isSpecial = specialIDs.contains(token)
                // The space that begins a text stands before a token of plain text too, without joining it.
                if addsSpacePrefix, followsSpecial, !isSpecial {
                    try encode(scalars: PackedScalar.unpack(" "), startsText: false, into: &state)
                }
                state.ids.append(token)
                followsSpecial = isSpecial
                return
            }
            let part = UnsafeBufferPointer(rebasing: text[range])
            if normalizers.isEmpty, normalizedMatcher.isEmpty, !addsSpacePrefix {
                try encode(scalars: PackedScalar.unpack(part), startsText: range.lowerBound == 0, into: &state)
            } else {
                try encode(
                    normalizing: part, startsText: range.lowerBound == 0, followsSpecial: followsSpecial,
                    parsesSpecial: parsesSpecial, into: &state)
            }
            followsSpecial = false
        }
    }

    /// Normalises a part, and finds the added tokens that are looked for only then.
    private func encode(
        normalizing part: UnsafeBufferPointer<UInt8>, startsText: Bool, followsSpecial: Bool, parsesSpecial: Bool,
        into state: inout EncodingState
    ) throws(TokenizerError) {
        var text = String(decoding: part, as: UTF8.self)
        for normalizer in normalizers { text = try normalizer.apply(to: text) }
        if addsSpacePrefix, followsSpecial { text = " " + text }
        let failure = text.withUTF8 { utf8 in
            capture { () throws(TokenizerError) in
                try normalizedMatcher.forEachPart(of: utf8, parsesSpecial: parsesSpecial) {
                    range, token throws(TokenizerError) in
                    if let token {
                        state.ids.append(token)
                    } else {
                        let part = UnsafeBufferPointer(rebasing: utf8[range])
                        try encode(
                            scalars: PackedScalar.unpack(part), startsText: startsText && range.lowerBound == 0,
                            into: &state)
                    }
                }
            }
        }
        if let failure { throw failure }
    }

    private func encode(
        scalars: [PackedScalar], startsText: Bool, into state: inout EncodingState
    ) throws(TokenizerError) {
        if model == .scoredMerges {
            state.appendScored(scalars, self)
            return
        }
        var text = PreTokenizedText(scalars, startsText: startsText)
        for step in preTokenizers { try text.apply(step) }
        state.appendRanked(text, self)
    }
}

/// What one call of `encode` fills and reuses.
private struct EncodingState {
    var ids: [Int32] = []
    private var word: [UInt8] = []
    private var ranked = RankedMerger()
    private var scored = ScoredMerger()
    private var cache: WordCache?

    init(cachesWords: Bool) {
        cache = cachesWords ? WordCache() : nil
    }

    mutating func appendRanked(_ text: PreTokenizedText, _ tokenizer: Tokenizer) {
        text.scalars.withUnsafeBufferPointer { scalars in
            for piece in text.pieces {
                word.removeAll(keepingCapacity: true)
                for index in piece { scalars[index].appendUTF8(to: &word) }
                appendWord(tokenizer)
            }
        }
    }

    private mutating func appendWord(_ tokenizer: Tokenizer) {
        word.withUnsafeBufferPointer { word in
            if tokenizer.ignoresMerges {
                let id = tokenizer.vocabulary.id(of: word)
                if id >= 0 {
                    ids.append(id)
                    return
                }
            }
            let key = WordCache.Key(word)
            if let key, cache?.append(key, to: &ids) == true { return }
            let start = ids.count
            ranked.reset()
            if tokenizer.isByteLevel {
                Self.addBytes(word, tokenizer, &ranked)
            } else {
                Self.addScalars(word, tokenizer, &ranked)
            }
            ranked.merge(tokenizer.merges, into: &ids)
            if let key { cache?.store(key, ids[start...]) }
        }
    }

    private static func addBytes(
        _ word: UnsafeBufferPointer<UInt8>, _ tokenizer: Tokenizer, _ merger: inout RankedMerger
    ) {
        var unknown = UnknownRun(tokenizer)
        tokenizer.byteIDs.withUnsafeBufferPointer { byteIDs in
            for byte in word {
                let id = byteIDs[Int(byte)]
                if id >= 0 {
                    unknown.end(&merger)
                    merger.append(id)
                } else {
                    unknown.add(&merger)
                }
            }
        }
        unknown.end(&merger)
    }

    private static func addScalars(
        _ word: UnsafeBufferPointer<UInt8>, _ tokenizer: Tokenizer, _ merger: inout RankedMerger
    ) {
        var unknown = UnknownRun(tokenizer)
        var start = 0
        while start < word.count {
            let end = start + UTF8Decoding.scalar(in: word, at: start).width
            let scalar = UnsafeBufferPointer(rebasing: word[start..<end])
            let id = tokenizer.vocabulary.id(of: scalar)
            if id >= 0 {
                unknown.end(&merger)
                merger.append(id)
            } else if tokenizer.fallsBackToBytes {
                for byte in scalar { merger.append(tokenizer.byteIDs[Int(byte)]) }
            } else {
                unknown.add(&merger)
            }
            start = end
        }
        unknown.end(&merger)
    }

    mutating func appendScored(_ scalars: [PackedScalar], _ tokenizer: Tokenizer) {
        word.removeAll(keepingCapacity: true)
        for scalar in scalars {
            // U+2581 is what SentencePiece writes a space as.
            (scalar.value == 32 ? PackedScalar(bits: 0x2581) : scalar).appendUTF8(to: &word)
        }
        var unknownIsOpen = false
        word.withUnsafeBufferPointer { text in
            scored.pieces(of: text, tokenizer.vocabulary, scores: tokenizer.scores) { piece in
                let id = tokenizer.vocabulary.id(of: piece)
                if id >= 0 {
                    ids.append(id)
                    unknownIsOpen = false
                } else if tokenizer.fallsBackToBytes {
                    for byte in piece { ids.append(tokenizer.byteIDs[Int(byte)]) }
                } else if let unknown = tokenizer.writtenUnknown {
                    if !unknownIsOpen { ids.append(unknown) }
                    unknownIsOpen = true
                }
            }
        }
    }
}

/// Scalars that the vocabulary lacks become the unknown token, one each or one for a run; or nothing without one.
private struct UnknownRun {
    private let id: Int32?
    private let fuses: Bool
    private var isOpen = false

    init(_ tokenizer: Tokenizer) {
        id = tokenizer.writtenUnknown
        fuses = tokenizer.fusesUnknown
    }

    mutating func add(_ merger: inout RankedMerger) {
        if !fuses { end(&merger) }
        isOpen = true
    }

    mutating func end(_ merger: inout RankedMerger) {
        if isOpen, let id { merger.append(id) }
        isOpen = false
    }
}

/// The ids of short words seen before: a direct-mapped table, where a newer word takes the place of an older one.
private struct WordCache {
    static let slotCount = 4096

    /// Up to 16 bytes of a word.
    struct Key: Equatable {
        var low: UInt64 = 0
        var high: UInt64 = 0
        var count: UInt8 = 0

        /// Nil for longer words.
        @inline(__always)
        init?(_ word: UnsafeBufferPointer<UInt8>) {
            guard word.count <= 16, !word.isEmpty else { return nil }
            count = UInt8(word.count)
            for index in 0..<Swift.min(word.count, 8) { low |= UInt64(word[index]) << UInt64(8 * index) }
            if word.count > 8 {
                for index in 8..<word.count { high |= UInt64(word[index]) << UInt64(8 * (index - 8)) }
            }
        }

        init() {}

        @inline(__always)
        var slot: Int {
            Int(truncatingIfNeeded: ByteStringTable.mix(ByteStringTable.mix(low ^ UInt64(count) << 56) ^ high))
                & (WordCache.slotCount - 1)
        }
    }

    private struct Slot {
        var key = Key()
        var idCount: Int32 = 0
        var ids: (Int32, Int32, Int32, Int32) = (0, 0, 0, 0)
    }

    private var slots = [Slot](repeating: Slot(), count: slotCount)

    @inline(__always)
    func append(_ key: Key, to ids: inout [Int32]) -> Bool {
        let slot = key.slot
        guard slots[slot].key == key else { return false }
        let found = slots[slot].ids
        let count = slots[slot].idCount
        if count > 0 { ids.append(found.0) }
        if count > 1 { ids.append(found.1) }
        if count > 2 { ids.append(found.2) }
        if count > 3 { ids.append(found.3) }
        return true
    }

    mutating func store(_ key: Key, _ found: ArraySlice<Int32>) {
        guard found.count <= 4 else { return }
        func id(_ index: Int) -> Int32 { index < found.count ? found[found.startIndex + index] : 0 }
        slots[key.slot] = Slot(key: key, idCount: Int32(found.count), ids: (id(0), id(1), id(2), id(3)))
    }
}
