internal import FlashInferCore

/// Specs and texts to machine code: what the options are, and what a cubin is known by.
package struct KernelCompiler: Sendable {
    /// The texts that specs name.
    package let texts: KernelTexts

    package init(texts: KernelTexts = .shipped) { self.texts = texts }

    /// The compiler's options for a spec.
    package static func options(for spec: KernelSpec, architecture: Architecture) -> [String] {
        var options = ["--gpu-architecture=\(architecture)", "--std=c++17", "--device-as-default-execution-space"]
        if spec.usesFastMath { options.append("--use_fast_math") }
        options += [
            "--define-macro=FI_THREADS=\(spec.threads)", "--define-macro=FI_MIN_BLOCKS=\(spec.blocksPerProcessor)",
        ]
        options += spec.defines.map { "--define-macro=\($0.name)=\($0.value)" }
        if spec.variant != nil { options.append("--define-macro=FI_VARIANT=\"\(VariantText.file)\"") }
        return options
    }

    /// What a cubin depends on apart from the compiler's version, as a SHA-256.
    package func sourceKey(for spec: KernelSpec, architecture: Architecture) throws(FlashInferError) -> String {
        var hash = SHA256()
        hash.update("flashinfer kernel 1\n\(try texts.digest(of: spec.file))\n\(spec.entry)\n")
        for option in Self.options(for: spec, architecture: architecture) { hash.update(option + "\n") }
        if let variant = spec.variant { hash.update(variant) }
        if let splice = spec.splice {
            hash.update("\(try texts.digest(of: Self.parts))\n\(splice.frame)\n\(splice.parts)")
        }
        return hash.finish()
    }

    /// What a cubin depends on, as a SHA-256: ``sourceKey(for:architecture:)`` and the compiler's version.
    package static func key(sourceKey: String, version: CompilerVersion) -> String {
        var hash = SHA256()
        hash.update("\(sourceKey)\nnvrtc \(version)\n")
        return hash.finish()
    }

    /// Compiles a spec.
    ///
    /// - Parameters:
    ///   - isVerbose: whether the log tells registers, stack and spills.
    ///   - hasCachePolicies: whether copies may say how L2 treats what they bring.
    /// - Throws: ``FlashInferError/deviceFailure(call:message:)`` with the compiler's errors, by file and line.
    package func compile(
        _ spec: KernelSpec, architecture: Architecture, with nvrtc: NVRTC, isVerbose: Bool = false,
        hasCachePolicies: Bool = true
    ) throws(FlashInferError) -> NVRTC.Output {
        var options = Self.options(for: spec, architecture: architecture)
        if !hasCachePolicies { options.append("--define-macro=FI_PLAIN_COPIES") }
        if isVerbose { options.append("--ptxas-options=-v") }
        // NVRTC 13 keeps results of its own beside the driver, which come without the assembler's report.
        if nvrtc.version >= CompilerVersion(major: 13, minor: 0) { options.append("--no-cache") }
        return try compile(spec.file, variant: spec.variant, options: options, with: nvrtc)
    }

    private func compile(
        _ file: String, variant: String?, options: [String], with nvrtc: NVRTC, to product: NVRTC.Product = .cubin
    ) throws(FlashInferError) -> NVRTC.Output {
        let names = try texts.closure(of: file)
        var headers = names.dropFirst().map { (name: $0, text: texts[$0]!) }
        if let variant { headers.append((VariantText.file, variant)) }
        return try nvrtc.compile(name: file, text: texts[file]!, headers: headers, options: options, to: product)
    }
}

// A new variant of a known kind: its parts alone go through the compiler's front end and optimizer, and what they become is put into the
// kernel's PTX, which is there already. The assembler is half of a kernel's time.
extension KernelCompiler {
    /// The text that compiles a variant's parts.
    private static let parts = "portable/variant_parts.cuh"

    private static func virtualOptions(for spec: KernelSpec, _ architecture: Architecture, _ nvrtc: NVRTC) -> [String] {
        var options = options(for: spec, architecture: architecture)
        options[0] = "--gpu-architecture=compute_\("\(architecture)".dropFirst(3))"
        if nvrtc.version >= CompilerVersion(major: 13, minor: 0) { options.append("--no-cache") }
        return options
    }

    /// What the PTX of a frame depends on apart from the compiler's version.
    package func frameKey(_ frame: KernelSpec, architecture: Architecture) throws(FlashInferError) -> String {
        try sourceKey(for: frame, architecture: architecture) + "-ptx"
    }

    /// The PTX of a frame, with its marks.
    package func framePTX(
        _ frame: KernelSpec, architecture: Architecture, with nvrtc: NVRTC
    ) throws(FlashInferError) -> [UInt8] {
        try compile(
            frame.file, variant: frame.variant, options: Self.virtualOptions(for: frame, architecture, nvrtc),
            with: nvrtc,
            to: .ptx
        ).cubin
    }

    /// The machine code of a variant by its frame.
    ///
    /// - Throws: also where the two do not fit together; then the whole text must be compiled.
    package func assemble(
        _ spec: KernelSpec, _ splice: VariantSplice, frame: [UInt8], architecture: Architecture, with nvrtc: NVRTC
    ) throws(FlashInferError) -> NVRTC.Output {
        var options = Self.virtualOptions(for: spec, architecture, nvrtc) + ["--disable-warnings"]
        if spec.file.hasPrefix("hopper/") { options.append("--define-macro=FI_HOPPER") }
        let parts = try compile(Self.parts, variant: splice.parts, options: options, with: nvrtc, to: .ptx).cubin
        guard let ptx = PTXSplice(parts: parts, entry: spec.entry)?.text(frame: frame) else {
            throw .deviceFailure(call: "compiling \(spec.label)", message: "the variant's parts do not fit their frame")
        }
        options = ["--gpu-architecture=\(architecture)", "--std=c++17", "--ptxas-options=-v"]
        if nvrtc.version >= CompilerVersion(major: 13, minor: 0) { options.append("--no-cache") }
        return try nvrtc.compile(name: spec.file, text: PTXSplice.asProgram(ptx), options: options)
    }
}
