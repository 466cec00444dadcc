import FlashInferCUDA
import FlashInferCore
import TestSupport
import Testing

/// The CUDA C++ of variants.
@Suite struct VariantTextTests {
    @Test func golden() {
        let documents = Parameter<Int32>("documents", .perPosition)
        let bias = Parameter<Float>("bias", .perHeadTable(count: 32))
        let variant = AttentionVariant(
            "documents with a bias",
            mask: Mask(fileID: "Models/Mine.swift", line: 7) { at in
                at.keyPosition <= at.queryPosition && documents[at.queryPosition] == documents[at.keyPosition]
                    && at.keyPosition + 2 * at.head < 90
            },
            logits: Logits(fileID: "Models/Mine.swift", line: 11) { score, at in
                30 * tanh(score / 30) + bias[at.head, at.queryPosition - at.keyPosition]
            })
        #expect(
            VariantText(variant).text == """
                #pragma once
                constexpr bool normalises = true, changes_output = false;
                constexpr bool computes_sink = false, changes_sum = false;
                constexpr ValueHook value_hook = ValueHook::none;
                constexpr bool hides_keys = true, hides_by_words = false, reads_keys = true;
                struct VariantRow : VariantSite {
                    int shows1;
                    int shows7;
                    __device__ __forceinline__ VariantRow(const fi_attention_params &p, const Item &item, int query_row, int query_head)
                        : VariantSite(p, item, query_row, query_head) {
                        const VariantRow &at = *this;
                #line 7 "Models/Mine.swift"
                        shows1 = variant_element<int>(p.variant[0], at.request, at.query_position);
                #line 7 "Models/Mine.swift"
                        shows7 = wrap_mul(at.head, 2);
                    }
                };
                struct VariantKey : VariantKeySite {
                    __device__ __forceinline__ VariantKey(const fi_attention_params &p, const Item &item, int position) : VariantKeySite(item) {
                        const VariantKey &at = *this;
                    }
                };
                FI_DEVICE float variant_logit(const fi_attention_params &p, const VariantRow &at, float score, int key, int position) {
                #line 11 "Models/Mine.swift"
                    const float t2 = score * 0.033333335f;
                #line 11 "Models/Mine.swift"
                    const float t3 = tanh_by_exp(t2);
                #line 11 "Models/Mine.swift"
                    const float t4 = t3 * 30.0f;
                #line 11 "Models/Mine.swift"
                    const int t7 = wrap_sub(at.query_position, position);
                #line 11 "Models/Mine.swift"
                    const float t9 = variant_element<float>(p.variant[1], at.head, t7);
                #line 11 "Models/Mine.swift"
                    const float t10 = t4 + t9;
                    return t10;
                }
                FI_DEVICE float variant_weight(const fi_attention_params &p, const VariantRow &at, float score, int key, int position) {
                    return score;
                }
                FI_DEVICE bool variant_shows(const fi_attention_params &p, const VariantRow &at, int key, int position) {
                #line 7 "Models/Mine.swift"
                    const int t3 = variant_element<int>(p.variant[0], at.request, position);
                #line 7 "Models/Mine.swift"
                    const bool t4 = at.shows1 == t3;
                #line 7 "Models/Mine.swift"
                    const int t8 = wrap_add(position, at.shows7);
                #line 7 "Models/Mine.swift"
                    const bool t10 = t8 < 90;
                #line 7 "Models/Mine.swift"
                    const bool t11 = t4 & t10;
                    return t11;
                }
                FI_DEVICE float variant_sink(const fi_attention_params &p, const VariantRow &at) {
                    return 0.0f;
                }
                FI_DEVICE float variant_sum(const fi_attention_params &p, const VariantRow &at, float score) {
                    return score;
                }
                FI_DEVICE float variant_output(const fi_attention_params &p, const VariantRow &at, float score) {
                    return score;
                }
                FI_DEVICE float variant_value(const fi_attention_params &p, const VariantKey &at, float score, int position) {
                    return score;
                }
                FI_DEVICE uint32 variant_bits(const fi_attention_params &p, const VariantRow &at, int first_key, int quad) { return 0; }
                FI_DEVICE bool variant_may_hide(const fi_attention_params &p, const Item &item, int warp_row, int first_key) {
                    const VariantBlock at(p, item, warp_row, first_key);
                    return !(!FI_COLUMNS && at.key_length < (1 << 26) && (false && -2ll * at.last_head + -1ll * at.last_key + 90ll > 0));
                }

                """)
    }

    @Test func hooksOfValuesAndState() {
        let gate = Parameter<Float>("gate", .perPosition)
        func text(_ value: Values) -> String {
            VariantText(
                AttentionVariant(
                    "gated", value: value,
                    sink: .computed(fileID: "Models/Mine.swift", line: 9) { at in 0.5 * at.head.float },
                    normalizer: Normalizer(fileID: "Models/Mine.swift", line: 10) { sum, _ in max(sum, 2) })
            ).text
        }
        let factor = text(
            Values(fileID: "Models/Mine.swift", line: 8) { value, at in value * sigmoid(gate[at.keyPosition]) })
        for part in [
            "constexpr bool computes_sink = true, changes_sum = true;",
            "constexpr ValueHook value_hook = ValueHook::factor;",
            """
            struct VariantKey : VariantKeySite {
                float value1;
                float value2;
                __device__ __forceinline__ VariantKey(const fi_attention_params &p, const Item &item, int position) : VariantKeySite(item) {
                    const VariantKey &at = *this;
            #line 8 "Models/Mine.swift"
                    value1 = variant_element<float>(p.variant[0], at.request, position);
            #line 8 "Models/Mine.swift"
                    value2 = sigmoid(at.value1);
                }
            };
            """,
            """
            FI_DEVICE float variant_value(const fi_attention_params &p, const VariantKey &at, float score, int position) {
                return at.value2;
            }
            """,
            """
            FI_DEVICE float variant_sink(const fi_attention_params &p, const VariantRow &at) {
                return at.sink3;
            }
            """,
            """
            FI_DEVICE float variant_sum(const fi_attention_params &p, const VariantRow &at, float score) {
            #line 10 "Models/Mine.swift"
                const float t2 = fmaxf(score, 2.0f);
                return t2;
            }
            """,
        ] { #expect(factor.contains(part), "\(part)\nin\n\(factor)") }
        let element = text(
            Values(fileID: "Models/Mine.swift", line: 8) { value, at in value * value + gate[at.keyPosition] })
        for part in [
            "constexpr ValueHook value_hook = ValueHook::element;",
            """
            #line 8 "Models/Mine.swift"
                const float t1 = score * score;
            """,
        ] { #expect(element.contains(part), "\(part)\nin\n\(element)") }
    }

    @Test func factorsOfValuesAreRecognised() {
        let gate = Parameter<Float>("gate", .perPosition)
        func factor(_ rule: (Expr<Float>, Site) -> Expr<Float>) -> ExprGraph? {
            AttentionVariant("v", value: Values(rule)).form.valueFactor
        }
        #expect(factor { value, at in value * gate[at.keyPosition] } != nil)
        #expect(factor { value, at in -(2 * value / gate[at.keyPosition]) } != nil)
        #expect(factor { value, at in value + gate[at.keyPosition] * value } != nil)
        #expect(factor { value, at in select(at.keyPosition < 4, value, value * 0.5) } != nil)
        #expect(factor { value, at in value + gate[at.keyPosition] } == nil)
        #expect(factor { value, _ in value * value } == nil)
        #expect(factor { value, _ in select(value < 0, value, value * 0.5) } == nil)
        #expect(AttentionVariant("v", value: Values { value, _ in value }).form.isFused)
    }

    /// Blocks take tiles that begin at the same key side by side, with a variant as without.
    @Test(arguments: [128, 256]) func masksThatReachTheFirstKeyRunInPairs(dim: Int) throws {
        let hopper = try #require(Architecture("sm_90a"))
        func isPaired(_ mask: Mask) throws -> Bool {
            let problem = try AttentionProblem(
                geometry: .ragged(queryIndptr: [0, 900], kvIndptr: [0, 900]),
                shape: AttentionShape(queryHeads: 2, kvHeads: 2, headDimQK: dim),
                variant: AttentionVariant("a", mask: mask), queryType: .bfloat16, kvType: .bfloat16)
            return try AttentionKernel.longestSpec(of: problem, on: hopper).label.contains("pairs of")
        }
        let ids = Parameter<Int32>("ids", .perPosition)
        let always = Mask { at in at.keyLength * at.keyLength >= 0 }
        #expect(try isPaired(.causal) && isPaired(.causal && always) && isPaired(.causal && .documents(ids)))
        #expect(try !isPaired(.causal && .window(left: 99)))
        #expect(try !isPaired(.causal && .window(left: 99) && always))
        #expect(try !isPaired(.causal && (.window(left: 99) || .prefix(4))))
    }

    /// Conditions that are ranges of keys are words of bits; where one is not, or may wrap, none is.
    @Test func rangesOfKeysAreWords() {
        func bits(_ mask: Mask) -> String? {
            let text = VariantText(AttentionVariant("a", mask: mask)).text
            guard text.contains("hides_by_words = true") else { return nil }
            let line = text.split(separator: "\n").first { $0.contains(" variant_bits(") }
            return line?.split(separator: "{ return ").last.map {
                String($0.dropLast(3).replacing(#/at\.shows\d+/#, with: "at.shows"))
            }
        }
        #expect(
            bits(.causal && (.window(left: 21) || .prefix(4))) == """
                (bits_from((1ll * at.query_position + 0ll) - static_cast<int64>(21), first_key, quad) | \
                bits_until(static_cast<int64>(4) - (0ll) - 1, first_key, quad))
                """)
        let lengths = Parameter<Int32>("lengths", .perRequest)
        #expect(
            bits(.causal || .prefix(lengths)) == """
                (bits_until(static_cast<int64>(at.query_position) - (0ll), first_key, quad) | \
                bits_until(static_cast<int64>(at.shows) - (0ll) - 1, first_key, quad))
                """)
        // Sums that may wrap in 32 bits, or whose bounds do not fit in 64, stay comparisons.
        #expect(
            bits(Mask { $0.keyPosition * 65_537 * 65_535 + $0.queryPosition * 65_537 * 65_535 < $0.head }) == nil)
        #expect(bits(!.causal) == "bits_from(static_cast<int64>(at.query_position) - (0ll) + 1, first_key, quad)")
        #expect(
            bits(Mask { $0.keyPosition == $0.head || $0.head < 2 }) == """
                ((bits_from(static_cast<int64>(at.head) - (0ll), first_key, quad) & \
                bits_until(static_cast<int64>(at.head) - (0ll), first_key, quad)) | (at.shows ? 0xffffffffu : 0u))
                """)
        for mask: Mask in [
            .documents(Parameter<Int32>("ids", .perPosition)), .strided(2), .prefix(9) || .strided(2),
            Mask { $0.keyPosition * 2 < $0.queryPosition }, Mask { $0.keyPosition + 1000 < $0.queryPosition },
            Mask { $0.keyPosition.float < 9 },
        ] { #expect(bits(mask) == nil, "\(mask)") }
    }

    @Test func textFollowsTheTermsOnly() {
        // Where it was written is for messages, and so part of the text; its name is not.
        let mask = Mask { at in at.keyPosition % 3 == 0 }
        #expect(VariantText(AttentionVariant("a", mask: mask)) == VariantText(AttentionVariant("b", mask: mask)))
        #expect(VariantText(AttentionVariant("a", mask: mask)) != VariantText(AttentionVariant("a", mask: !mask)))
    }

    /// A variant's name from JSON is the file of its hooks.
    @Test func namesStayOnTheirLine() throws {
        let name = #"a\"\n#error \u2028\r\n\\b"#
        let variant = try AttentionVariant(json: #"{"name":"\#(name)","mask":["lt",["add","head",1],3]}"#)
        let lines = VariantText(variant).text.split(whereSeparator: \.isNewline)
        #expect(lines.contains(#"#line 1 "a#error b.json""#))
        #expect(!lines.contains { $0.hasPrefix("#error") })
    }
}

/// The text compiled by the real compiler, where there is one.
@Suite(.enabled(if: TestMachine.hasCompiler, TestMachine.needsCompiler)) struct VariantCompileTests {
    private func problem(_ variant: AttentionVariant) throws -> AttentionProblem {
        try AttentionProblem(
            geometry: .ragged(queryIndptr: [0, 40], kvIndptr: [0, 90]),
            shape: AttentionShape(queryHeads: 4, kvHeads: 2, headDimQK: 64), variant: variant, queryType: .bfloat16,
            kvType: .bfloat16)
    }

    /// The kernel that a prompt takes.
    private func longestSpec(_ variant: AttentionVariant, on architecture: Architecture) throws -> KernelSpec {
        let problem = try AttentionProblem(
            geometry: .ragged(queryIndptr: [0, 400], kvIndptr: [0, 900]),
            shape: AttentionShape(queryHeads: 2, kvHeads: 2, headDimQK: 128), variant: variant, queryType: .bfloat16,
            kvType: .bfloat16)
        return try AttentionKernel.longestSpec(of: problem, on: architecture)
    }

    @Test(arguments: VariantSample.builtIns.indices) func builtIns(_ index: Int) throws {
        let variant = VariantSample.builtIns[index].variant
        if variant.form.isFused { return }
        try compile(variant)
    }

    /// Hopper's kernel has few registers to spare.
    @Test(arguments: VariantSample.builtIns.indices) func onHopper(_ index: Int) throws {
        let variant = VariantSample.builtIns[index].variant
        if variant.form.isFused || variant.rope != nil { return }
        let architecture = try #require(Architecture("sm_90a"))
        let spec = try longestSpec(variant, on: architecture)
        if variant.form.values != nil, variant.form.valueFactor == nil {
            // Values meet the weights as they lie in memory: what is no factor takes the portable kernel.
            #expect(spec.entry == "fi_attention")
            return
        }
        #expect(spec.entry == "fi_hopper_attention")
        let nvrtc = try #require(TestMachine.nvrtc)
        let output = try KernelCompiler().compile(spec, architecture: architecture, with: nvrtc, isVerbose: true)
        let resources = try #require(KernelResources(log: output.log, entry: spec.entry))
        print("\(variant.name) on Hopper: \(resources.registers) registers, \(resources.spillByteCount) bytes spilt")
        // Tables, and factors of values, may take some.
        #expect(resources.spillByteCount <= (Self.mayNotSpill.contains(variant.name) ? 0 : 64), "\(variant.name)")
    }

    /// Put into the frame of its kind a variant takes what it takes compiled whole, or a few words more.
    @Test(arguments: VariantSample.builtIns.indices) func inFrames(_ index: Int) throws {
        let variant = VariantSample.builtIns[index].variant
        if variant.form.isFused || variant.rope != nil { return }
        let architecture = try #require(Architecture("sm_90a"))
        let spec = try longestSpec(variant, on: architecture)
        guard let splice = spec.splice, let frame = spec.frame else { return }
        let nvrtc = try #require(TestMachine.nvrtc)
        let compiler = KernelCompiler()
        let ptx = try compiler.framePTX(frame, architecture: architecture, with: nvrtc)
        let output = try compiler.assemble(spec, splice, frame: ptx, architecture: architecture, with: nvrtc)
        let resources = try #require(KernelResources(log: output.log, entry: spec.entry))
        #expect(resources.spillByteCount <= CubinSource.frameSpillLimit, "\(variant.name)")
    }

    /// Variants of a kind have one frame, whatever their numbers; what changes more than scores has none.
    @Test func kindsShareFrames() throws {
        func splice(_ variant: AttentionVariant) -> VariantSplice? { VariantText(variant).splice }
        let even = AttentionVariant("a", mask: Mask { ($0.keyPosition & 1) == 0 })
        let near = AttentionVariant("b", mask: Mask { abs($0.queryPosition - $0.keyPosition) < 90 || $0.head < 3 })
        #expect(splice(even) != nil && splice(even)?.frame == splice(near)?.frame)
        #expect(splice(even)?.parts != splice(near)?.parts)
        let biased = AttentionVariant("c", mask: .causal) { score, at in score + at.keyPosition.float }
        #expect(splice(biased) != nil && splice(biased)?.frame != splice(even)?.frame)
        let ended = AttentionVariant("d", output: Output { value, _ in value * 2 })
        #expect(splice(ended) == nil)
    }

    private static let mayNotSpill: Set<String> = [
        "documents", "documents both ways", "prefix", "streaming", "window both ways", "items", "gemma-2",
        "causal, cap of 1, documents", "alibi, clipped", "temperature", "sigmoid", "log-n", "tree", "dilated",
        "block diagonal", "custom and documents", "packed or near",
    ]

    @Test(arguments: 0..<6) func randomExpressions(_ seed: Int) throws {
        var random = RandomExpression(seed: UInt64(seed))
        try compile(random.variant("random \(seed)"))
    }

    @Test func errorsNameTheSwiftFile() throws {
        // A name that is no kernel's: what a mistake in the lowering would look like.
        let text = VariantText(AttentionVariant("a", mask: Mask(fileID: "Models/Mine.swift", line: 7) { $0.head < 1 }))
            .text
        let nvrtc = try #require(TestMachine.nvrtc)
        let spec = try spec(AttentionVariant("a", mask: Mask { $0.head < 1 }))
        let wrong = KernelSpec(
            file: spec.file, entry: spec.entry, defines: spec.defines, threads: spec.threads, label: "wrong",
            variant: text.replacing("at.head", with: "at.no_such_thing"))
        #expect {
            try KernelCompiler().compile(wrong, architecture: Architecture("sm_80")!, with: nvrtc)
        } throws: {
            "\($0)".contains("Models/Mine.swift(7): error")
        }
    }

    private func compile(_ variant: AttentionVariant) throws {
        let nvrtc = try #require(TestMachine.nvrtc)
        let output = try KernelCompiler().compile(
            spec(variant), architecture: Architecture("sm_80")!, with: nvrtc, isVerbose: true)
        let resources = try #require(KernelResources(log: output.log, entry: "fi_attention"))
        // A variant may take a few registers more than the shape of its tile has: no local memory in earnest.
        #expect(resources.spillByteCount <= 512, "\(variant.name)")
    }

    private func spec(_ variant: AttentionVariant) throws -> KernelSpec {
        try AttentionKernel.spec(of: problem(variant), on: Architecture("sm_80")!)
    }
}
