internal import FlashInferCore

/// A variant in two texts: the frame of a kernel in which places are marked, the same for all variants of a kind, and the variant's
/// parts, which `portable/variant_parts.cuh` compiles by themselves.
package struct VariantSplice: Hashable, Sendable {
    /// Terms of a row that a frame keeps from one place to others.
    static let keptTerms = 8

    /// The text that a kernel includes instead of the variant's.
    package let frame: String
    /// The text that `portable/variant_parts.cuh` includes.
    package let parts: String

    init(head: String, changesLogits: Bool, weighs: Bool, hides: Bool, hidesByWords: Bool, parts: String) {
        self.parts = parts
        let site = [
            "request", "head", "kv_head", "query_index", "query_position", "query_length", "key_length",
        ]
        let block = [
            "request", "kv_head", "first_head", "last_head", "first_index", "last_index", "first_position",
            "last_position", "first_key", "last_key", "query_length", "key_length",
        ]
        let kept = (0..<Self.keptTerms).map { "kept[\($0)]" }
        /// A statement that the variant's code takes the place of: no instruction that there is, so that a place that was missed is an error.
        func mark(_ name: String, results: [String], operands: [String]) -> String {
            let places = (0..<results.count + operands.count).map { "%\($0)" }.joined(separator: ", ")
            let lists = [results, operands].map { $0.joined(separator: ", ") }
            return "asm(\"\(name) \(places);\" : \(lists[0]) : \(lists[1]));"
        }
        func inputs(_ names: [String], of object: String = "") -> [String] { names.map { "\"r\"(\(object)\($0))" } }
        let row = "const fi_attention_params &p, const VariantRow &at"
        let ofRow = inputs(kept + site, of: "at.") + inputs(["key", "position"])
        func ofScore(_ name: String, _ isMarked: Bool) -> String {
            let statement = mark("fi_\(name)", results: ["\"=f\"(result)"], operands: ofRow + ["\"f\"(score)"])
            let text = isMarked ? "float result; \(statement) return result;" : "return score;"
            return "FI_DEVICE float variant_\(name)(\(row), float score, int key, int position) { \(text) }\n"
        }
        let result = ["\"=r\"(result)"]
        let shows =
            hides
            ? "int result; \(mark("fi_shows", results: result, operands: ofRow)) return result != 0;" : "return true;"
        let ofStage = inputs(kept + site, of: "at.") + inputs(["first_key", "quad"])
        let bits =
            hidesByWords
            ? "int result; \(mark("fi_bits", results: result, operands: ofStage)) return result;" : "return 0;"
        let mayHide =
            hides
            ? "const VariantBlock at(p, item, warp_row, first_key); int result; "
                + "\(mark("fi_hides", results: result, operands: inputs(block, of: "at."))) return result != 0;"
            : "return false;"
        var text = head
        text += """
            struct VariantRow : VariantSite {
                int kept[\(Self.keptTerms)];
                __device__ __forceinline__ VariantRow(const fi_attention_params &p, const Item &item, int query_row, int query_head)
                    : VariantSite(p, item, query_row, query_head) {
                    \(mark("fi_row", results: kept.map { "\"=r\"(\($0))" }, operands: inputs(site)))
                }
            };
            struct VariantKey : VariantKeySite {
                __device__ __forceinline__ VariantKey(const fi_attention_params &, const Item &item, int) : VariantKeySite(item) {}
            };
            \(ofScore("logit", changesLogits))\(ofScore("weight", weighs))
            FI_DEVICE bool variant_shows(\(row), int key, int position) { \(shows) }
            FI_DEVICE uint32 variant_bits(\(row), int first_key, int quad) { \(bits) }
            FI_DEVICE float variant_sink(\(row)) { return 0; }
            FI_DEVICE float variant_sum(\(row), float score) { return score; }
            FI_DEVICE float variant_output(\(row), float score) { return score; }
            FI_DEVICE float variant_value(const fi_attention_params &, const VariantKey &, float score, int) { return score; }
            FI_DEVICE bool variant_may_hide(const fi_attention_params &p, const Item &item, int warp_row, int first_key) { \(mayHide) }

            """
        frame = text
    }

    /// The functions by which a row's terms are given to the frame and taken from it.
    static func rowFunctions(_ members: [(type: String, name: String)]) -> String {
        var keep = ""
        var take = ""
        for (index, member) in members.enumerated() {
            keep += " part_output<\(index)>(\(member.name));"
            take += " part_input<\(index + 1)>(\(member.name));"
        }
        return """
                __device__ __forceinline__ VariantRow(Kept kept) : VariantSite(kept) {\(take) }
                __device__ __forceinline__ void keep() const {\(keep) }

            """
    }
}
