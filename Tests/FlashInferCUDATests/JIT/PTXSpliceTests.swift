import FlashInferCUDA
import Testing

/// Parts of a variant put into the PTX of a frame; no compiler is needed for that.
@Suite struct PTXSpliceTests {
    /// An entry as the compiler writes it.
    private func part(_ name: String, _ lines: String) -> String {
        """
        .visible .entry \(name)(
        \t.param .align 8 .b8 \(name)_param_0[16]
        )
        {
        \t.reg .b32 \t%r<4>;
        \(lines)
        \tret;

        }

        """
    }

    private func parts(row: String = "", shows: String = "") -> [UInt8] {
        let entries =
            [part("fi_row", row), part("fi_shows", shows)]
            + ["bits", "logit", "weight", "hides"].map { part("fi_\($0)", "") }
        return Array((".version 9.0\n.target sm_90a\n" + entries.joined()).utf8)
    }

    private func splice(_ parts: [UInt8], _ frame: String) -> String? {
        PTXSplice(parts: parts, entry: "kernel")?.text(frame: Array(frame.utf8)).map {
            String(decoding: $0, as: UTF8.self)
        }
    }

    @Test func operandsNamesAndLabels() {
        let shows = """
            \t// begin inline asm
            \tfi_in %r1, 2;
            \tld.param.u32 \t%r2, [fi_shows_param_0+8];
            \t@%p1 bra \t$L__BB1_2;
            $L__BB1_2:
            \tfi_out 0, %r2;
            """
        let frame = """
            .version 9.0
            .target sm_90a
            .address_size 64
            \tadd.s32 \t%r1, %r2, %r3;
            \tfi_shows %r9, %r8, %r7;
            \tfi_shows %r6, %r5, %r4;
            """
        #expect(
            splice(parts(shows: shows), frame) == """
                \tadd.s32 \t%r1, %r2, %r3;
                {
                .reg .b32 \t%vr<4>;
                mov.b32 %vr1, %r7;
                ld.param.u32 \t%vr2, [kernel_param_0+8];
                @%vp1 bra \t$V0_BB1_2;
                $V0_BB1_2:
                mov.b32 %r9, %vr2;
                }
                {
                .reg .b32 \t%vr<4>;
                mov.b32 %vr1, %r4;
                ld.param.u32 \t%vr2, [kernel_param_0+8];
                @%vp1 bra \t$V1_BB1_2;
                $V1_BB1_2:
                mov.b32 %r6, %vr2;
                }

                """)
    }

    @Test func whatDoesNotFitIsNotSpliced() {
        // Nothing marked, an operand that is not there, a return in the middle, an entry too few.
        #expect(splice(parts(), "\tret;") == nil)
        #expect(splice(parts(shows: "\tfi_in %r1, 2;"), "\tfi_shows %r9, %r8;") == nil)
        #expect(splice(parts(shows: "\t@%p1 bra \t$L__BB1_1;\n\tret;\n$L__BB1_1:"), "\tfi_shows %r9;") == nil)
        #expect(splice(Array(part("fi_row", "").utf8), "\tfi_row %r9;") == nil)
    }
}
