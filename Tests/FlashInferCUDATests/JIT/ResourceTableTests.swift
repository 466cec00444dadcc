import FlashInferCUDA
import Testing

/// What kernels take, as read from the assembler's log and compared with the committed table.
struct ResourceTableTests {
    private let log = """
        ptxas info    : 0 bytes gmem
        ptxas info    : Compiling entry function 'other' for 'sm_90a'
        ptxas info    : Function properties for other
            96 bytes stack frame, 10 bytes spill stores, 20 bytes spill loads
        ptxas info    : Used 99 registers, 400 bytes cmem[0]
        ptxas info    : Compiling entry function 'k' for 'sm_90a'
        ptxas info    : Function properties for k
        ptxas         .     48 bytes stack frame, 8 bytes spill stores, 12 bytes spill loads
        ptxas info    : Used 72 registers, used 1 barriers, 48 bytes cumulative stack size, 1024 bytes smem
        ptxas info    : Compile time = 46.178 ms
        """

    private let sm90 = Architecture("sm_90a")!
    private let v13 = CompilerVersion(major: 13, minor: 0)

    private func key(_ label: String) -> ResourceTable.Key { .init(label: label, architecture: sm90) }

    @Test func readsTheLog() {
        #expect(
            KernelResources(log: log, entry: "k")
                == KernelResources(registers: 72, sharedByteCount: 1024, stackByteCount: 48, spillByteCount: 20))
        #expect(KernelResources(log: log, entry: "other")?.spillByteCount == 30)
        #expect(KernelResources(log: log, entry: "third") == nil)
        #expect(KernelResources(log: "", entry: "k") == nil)
    }

    @Test func findsProductsThatWait() {
        let wait =
            "ptxas info    : (C7520) Potential Performance Loss: wgmma.mma_async instructions are serialized due to "
            + "program dependence on compiler-inserted WG.AR in divergent path in the function 'k'"
        let harmless =
            "ptxas info    : (C7519) warpgroup.arrive is injected in around line 7 by compiler to allow use of "
            + "registers in GMMA in function 'k'"
        #expect(SerializedProducts.reason(in: "\(harmless)\n\(log)") == nil)
        #expect(SerializedProducts.reason(in: "\(wait)\n\(log)")?.hasPrefix("due to program dependence") == true)
        #expect(throws: FlashInferError.self) {
            try SerializedProducts.requireNone(in: "\(log)\n\(wait)", of: "attention")
        }
    }

    @Test func comesBackAsItWent() throws {
        var table = ResourceTable(version: v13)
        table.rows[key("b of two words")] = .init(resources: KernelResources(registers: 10, sharedByteCount: 20))
        table.rows[key("a/k")] = .init(
            resources: KernelResources(registers: 255, stackByteCount: 8, spillByteCount: 16), reason: "once a tile")
        #expect(try ResourceTable(text: table.text) == table)
        #expect(
            table.text.hasSuffix("nvrtc 13.0\nsm_90a 255 0 8 16 a/k  # once a tile\nsm_90a 10 20 0 0 b of two words\n"))
    }

    @Test(arguments: ["", "sm_90a 1 2 3 4 k", "nvrtc 13.0\nsm_90a 1 2 3 k", "nvrtc 13.0\nsm_x 1 2 3 4 k"])
    func otherTextIsAnError(text: String) {
        #expect(throws: FlashInferError.self) { try ResourceTable(text: text) }
    }

    @Test func theCommittedTableIsReadable() throws {
        let table = try ResourceTable(text: ResourceTable.committedText)
        for (key, row) in table.rows where row.resources.spillByteCount > 0 {
            #expect(row.reason != nil, "\(key.label) \(key.architecture) spills for no reason")
        }
    }

    @Test func tellsWhatDiffers() {
        let plain = KernelResources(registers: 64)
        var table = ResourceTable(version: v13)
        for label in ["same", "more", "gone"] { table.rows[key(label)] = .init(resources: plain) }
        table.rows[key("excused")] = .init(
            resources: KernelResources(registers: 255, spillByteCount: 8), reason: "it must")
        var found = [
            key("same"): plain, key("more"): KernelResources(registers: 65), key("new"): plain,
            key("excused"): KernelResources(registers: 255, spillByteCount: 8),
        ]
        func differences(_ version: CompilerVersion, isPartial: Bool = false) -> [String] {
            table.differences(from: found, by: version, isPartial: isPartial).map { String($0.prefix { $0 != ":" }) }
        }
        #expect(differences(v13) == ["more sm_90a", "new sm_90a", "gone sm_90a"])
        #expect(differences(v13, isPartial: true) == ["more sm_90a", "new sm_90a"])
        // Another compiler's figures are its own; spills count all the same.
        let v12 = CompilerVersion(major: 12, minor: 9)
        #expect(differences(v12, isPartial: true) == ["new sm_90a"])
        found[key("same")] = KernelResources(registers: 64, spillByteCount: 4)
        #expect(differences(v12, isPartial: true) == ["new sm_90a", "same sm_90a"])
    }

    @Test func updatingKeepsReasons() {
        var table = ResourceTable(version: v13)
        table.rows[key("a")] = .init(resources: KernelResources(registers: 1), reason: "because")
        table.rows[key("b")] = .init(resources: KernelResources(registers: 1))
        let found = [key("a"): KernelResources(registers: 2)]
        let whole = table.updated(with: found, by: v13, isPartial: false)
        #expect(whole.rows == [key("a"): .init(resources: KernelResources(registers: 2), reason: "because")])
        #expect(table.updated(with: found, by: v13, isPartial: true).rows.count == 2)
        #expect(whole.differences(from: found, by: v13, isPartial: false).isEmpty)
    }
}
