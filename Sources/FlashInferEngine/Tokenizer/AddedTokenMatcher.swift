/// Finds added tokens in text: the leftmost, and of those that begin at one place the longest.
///
/// A trie over bytes with its edges in one array. O(n · length of the longest added token) at worst; most positions
/// are passed by one look into a table of first bytes.
struct AddedTokenMatcher: Sendable {
    private struct Node {
        var edges: Range<Int32> = 0..<0
        /// The added token that ends here, -1 for none.
        var token: Int32 = -1
    }

    private var nodes: [Node] = [Node()]
    private var edges: [(byte: UInt8, node: Int32)] = []
    private var root: [Int32] = Array(repeating: -1, count: 256)
    private let tokens: [TokenizerDefinition.AddedToken]

    var isEmpty: Bool { tokens.isEmpty }

    init(_ tokens: [TokenizerDefinition.AddedToken]) {
        self.tokens = tokens
        var strings: [(bytes: [UInt8], token: Int32)] = []
        for (index, token) in tokens.enumerated() where !token.content.isEmpty {
            strings.append((Array(token.content.utf8), Int32(index)))
        }
        strings.sort { $0.bytes.lexicographicallyPrecedes($1.bytes) }
        // Level by level: each pending node owns the run of sorted strings that share its prefix.
        var pending: [(node: Int, strings: Range<Int>, depth: Int)] = [(0, 0..<strings.count, 0)]
        var next = 0
        while next < pending.count {
            let (node, range, depth) = pending[next]
            next += 1
            let firstEdge = Int32(edges.count)
            var index = range.lowerBound
            while index < range.upperBound, strings[index].bytes.count == depth {
                nodes[node].token = strings[index].token
                index += 1
            }
            while index < range.upperBound {
                let byte = strings[index].bytes[depth]
                var end = index
                while end < range.upperBound, strings[end].bytes[depth] == byte { end += 1 }
                edges.append((byte, Int32(nodes.count)))
                if node == 0 { root[Int(byte)] = Int32(nodes.count) }
                pending.append((nodes.count, index..<end, depth + 1))
                nodes.append(Node())
                index = end
            }
            nodes[node].edges = firstEdge..<Int32(edges.count)
        }
    }

    /// Calls `body` with the parts of `text` in order: what lies between added tokens (id nil), and the tokens.
    func forEachPart(
        of text: UnsafeBufferPointer<UInt8>, parsesSpecial: Bool,
        _ body: (Range<Int>, Int32?) throws(TokenizerError) -> Void
    ) throws(TokenizerError) {
        var start = 0
        var position = 0
        while position < text.count {
            guard root[Int(text[position])] >= 0, let match = match(text, at: position, parsesSpecial: parsesSpecial)
            else {
                position += 1
                continue
            }
            let token = tokens[match.token]
            if token.isSingleWord, touchesWord(text, position..<match.end) {
                position = match.end
                continue
            }
            var begin = position
            var end = match.end
            if token.stripsLeft { begin = spaceStart(text, before: begin, notBefore: start) }
            if token.stripsRight { end = spaceEnd(text, after: end) }
            if start < begin { try body(start..<begin, nil) }
            try body(begin..<end, token.id)
            start = end
            position = max(end, match.end)
        }
        if start < text.count { try body(start..<text.count, nil) }
    }

    private func match(
        _ text: UnsafeBufferPointer<UInt8>, at start: Int, parsesSpecial: Bool
    ) -> (token: Int, end: Int)? {
        var node = Int(root[Int(text[start])])
        var position = start + 1
        var best: (Int, Int)?
        while true {
            let token = Int(nodes[node].token)
            if token >= 0, parsesSpecial || !tokens[token].isSpecial { best = (token, position) }
            guard position < text.count else { break }
            let byte = text[position]
            let range = nodes[node].edges
            guard let edge = edges[Int(range.lowerBound)..<Int(range.upperBound)].first(where: { $0.byte == byte })
            else { break }
            node = Int(edge.node)
            position += 1
        }
        return best
    }

    private func touchesWord(_ text: UnsafeBufferPointer<UInt8>, _ range: Range<Int>) -> Bool {
        if range.lowerBound > 0,
            ScalarSet.isWord(scalar(text, endingAt: range.lowerBound).scalar)
        {
            return true
        }
        return range.upperBound < text.count
            && ScalarSet.isWord(PackedScalar(value: UTF8Decoding.scalar(in: text, at: range.upperBound).value))
    }

    private func scalar(
        _ text: UnsafeBufferPointer<UInt8>, endingAt end: Int
    ) -> (scalar: PackedScalar, start: Int) {
        var start = end - 1
        while start > 0, end - start < 4, text[start] & 0xC0 == 0x80 { start -= 1 }
        return (PackedScalar(value: UTF8Decoding.scalar(in: text, at: start).value), start)
    }

    private func spaceStart(_ text: UnsafeBufferPointer<UInt8>, before end: Int, notBefore limit: Int) -> Int {
        var position = end
        while position > limit {
            let (scalar, start) = scalar(text, endingAt: position)
            guard scalar.isWhitespace, start >= limit else { break }
            position = start
        }
        return position
    }

    private func spaceEnd(_ text: UnsafeBufferPointer<UInt8>, after start: Int) -> Int {
        var position = start
        while position < text.count {
            let (value, width) = UTF8Decoding.scalar(in: text, at: position)
            guard PackedScalar(value: value).isWhitespace else { break }
            position += width
        }
        return position
    }
}
