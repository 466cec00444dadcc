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
    /// - Parameter isVerbose: whether the log tells registers, stack and spills.
    /// - Throws: ``FlashInferError/deviceFailure(call:message:)`` with the compiler's errors, by file and line.
    package func compile(
        _ spec: KernelSpec, architecture: Architecture, with nvrtc: NVRTC, isVerbose: Bool = false
    ) throws(FlashInferError) -> NVRTC.Output {
        var options = Self.options(for: spec, architecture: architecture)
        if isVerbose { options.append("--ptxas-options=-v") }
        // NVRTC 13 keeps results of its own beside the driver, which come without the assembler's report.
        if nvrtc.version >= CompilerVersion(major: 13, minor: 0) { options.append("--no-cache") }
        let names = try texts.closure(of: spec.file)
        var headers = names.dropFirst().map { (name: $0, text: texts[$0]!) }
        if let variant = spec.variant { headers.append((VariantText.file, variant)) }
        return try nvrtc.compile(name: spec.file, text: texts[spec.file]!, headers: headers, options: options)
    }
}
