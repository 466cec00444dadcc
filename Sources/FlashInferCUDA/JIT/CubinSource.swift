internal import FlashInferCore

/// Where machine code comes from: a bundle, the disk cache, or the compiler, in this order.
///
/// The compiler is loaded only when it is needed, so a bundle works where there is none.
package final class CubinSource: Sendable {
    /// Texts and options.
    package let compiler: KernelCompiler
    private let driverVersion: Int?
    private let environment: CUDAEnvironment
    private let disk: DiskCache?
    private let bundle: Result<KernelBundle, FlashInferError>?
    /// Bytes that a variant in a frame may spill: where registers run out in earnest the whole is compiled, whose optimizer sees more at
    /// once. A few words are not worth a second compilation.
    package static let frameSpillLimit = 64
    private let nvrtc = Locked<Result<NVRTC, FlashInferError>?>(nil)
    private let counts = Locked(Counts())

    /// Where cubins came from so far.
    package struct Counts: Sendable, Equatable {
        package var bundled = 0
        package var cached = 0
        package var compiled = 0
        /// How many of those compiled were variants put into a frame.
        package var assembled = 0

        package init(bundled: Int = 0, cached: Int = 0, compiled: Int = 0, assembled: Int = 0) {
            self.bundled = bundled
            self.cached = cached
            self.compiled = compiled
            self.assembled = assembled
        }
    }

    /// A source as the environment says.
    ///
    /// - Parameter driverVersion: the CUDA version of the driver that will load the cubins (13000 is 13.0); nil where none will.
    package init(
        compiler: KernelCompiler = KernelCompiler(), driverVersion: Int?, environment: CUDAEnvironment = .current
    ) {
        self.compiler = compiler
        self.driverVersion = driverVersion
        self.environment = environment
        disk = DiskCache(environment: environment)
        // A bundle that was named must be there and be whole; one beside the program is taken where it is.
        bundle = Self.bundlePath(environment).map { path in
            Result { () throws(FlashInferError) in try KernelBundle(path: path) }
        }
    }

    /// The bundle that is named, or that lies beside the program.
    package static func bundlePath(_ environment: CUDAEnvironment) -> String? {
        if let path = environment.bundle { return path }
        guard let folder = FileSystem.programFolder else { return nil }
        let path = "\(folder)/\(KernelBundle.usualName)"
        return FileSystem.exists(path) ? path : nil
    }

    /// How often cubins came from where.
    package var statistics: Counts { counts.withLock { $0 } }

    /// The machine code of a spec for a GPU.
    ///
    /// - Throws: ``FlashInferError/deviceFailure(call:message:)`` where neither bundle nor cache has it, and there is no compiler, it
    ///   is too old for the GPU, or it finds errors in the text.
    package func cubin(for spec: KernelSpec, architecture: Architecture) throws(FlashInferError) -> [UInt8] {
        if let cubin = try bundled(spec, architecture.fallbacks) { return cubin }
        let nvrtc = try loadedNVRTC(for: spec, architecture)
        guard let target = architecture.fallbacks.first(where: nvrtc.supports) else {
            throw .deviceFailure(
                call: "compiling \(spec.label)",
                message: "NVRTC \(nvrtc.version) (\(nvrtc.path)) makes no code for \(architecture); install a newer one"
            )
        }
        return try cubin(for: spec, exactly: target, with: nvrtc)
    }

    /// The machine code of a spec for exactly one architecture, cached or compiled now.
    package func cubin(
        for spec: KernelSpec, exactly architecture: Architecture, with nvrtc: NVRTC
    ) throws(FlashInferError) -> [UInt8] {
        let source = try compiler.sourceKey(for: spec, architecture: architecture)
        let key = KernelCompiler.key(sourceKey: source, version: nvrtc.version)
        if let cubin = disk?.cubin(for: key) {
            counts.withLock { $0.cached += 1 }
            return cubin
        }
        let cubin: [UInt8]
        if let assembled = assembled(spec, architecture, nvrtc) {
            cubin = assembled
            counts.withLock { $0.assembled += 1 }
        } else {
            cubin = try compiled(spec, architecture, nvrtc)
        }
        counts.withLock { $0.compiled += 1 }
        disk?.keep(cubin, for: key)
        return cubin
    }

    /// The machine code of a whole text. Where the assembler has made copies of it that no GPU executes, as it may of those with a cache
    /// policy, copies have none.
    private func compiled(
        _ spec: KernelSpec, _ architecture: Architecture, _ nvrtc: NVRTC
    ) throws(FlashInferError) -> [UInt8] {
        let cubin = try compiler.compile(spec, architecture: architecture, with: nvrtc).cubin
        if MachineCode.isLegal(cubin) { return cubin }
        let plain = try compiler.compile(spec, architecture: architecture, with: nvrtc, hasCachePolicies: false).cubin
        try MachineCode.requireLegalCopies(in: plain, of: spec.label)
        return plain
    }

    /// The machine code of a variant by the frame of its kind, which is kept beside kernels; nil where the whole must be compiled, be it
    /// because of an error: the whole text's messages name the place in Swift.
    private func assembled(_ spec: KernelSpec, _ architecture: Architecture, _ nvrtc: NVRTC) -> [UInt8]? {
        guard let splice = spec.splice, let frame = spec.frame,
            let ptx = try? framePTX(frame, exactly: architecture, with: nvrtc)
        else { return nil }
        guard let output = try? compiler.assemble(spec, splice, frame: ptx, architecture: architecture, with: nvrtc)
        else { return nil }
        if let found = KernelResources(log: output.log, entry: spec.entry), found.spillByteCount > Self.frameSpillLimit
        {
            return nil
        }
        return MachineCode.isLegal(output.cubin) ? output.cubin : nil
    }

    /// The PTX of a frame: from the bundle, the disk cache, or the compiler.
    package func framePTX(
        _ frame: KernelSpec, exactly architecture: Architecture, with nvrtc: NVRTC
    ) throws(FlashInferError) -> [UInt8] {
        let source = try compiler.frameKey(frame, architecture: architecture)
        // An assembler reads what compilers before it have written.
        if case .success(let bundle)? = bundle, let entry = bundle.entries[source], entry.version <= nvrtc.version {
            return try bundle.cubin(entry)
        }
        let key = KernelCompiler.key(sourceKey: source, version: nvrtc.version)
        if let ptx = disk?.cubin(for: key) { return ptx }
        let ptx = try compiler.framePTX(frame, architecture: architecture, with: nvrtc)
        disk?.keep(ptx, for: key)
        return ptx
    }

    /// Finds out whether kernels can be had at all: from a bundle, or from a compiler.
    ///
    /// - Throws: ``FlashInferError/deviceFailure(call:message:)`` that says what was looked for.
    package func requireAvailable() throws(FlashInferError) {
        if try bundle?.get() != nil { return }
        _ = try loadedNVRTC()
    }

    private func bundled(
        _ spec: KernelSpec, _ architectures: [Architecture]
    ) throws(FlashInferError) -> [UInt8]? {
        guard let bundle = try bundle?.get() else { return nil }
        for architecture in architectures {
            let key = try compiler.sourceKey(for: spec, architecture: architecture)
            guard let entry = bundle.entries[key], entry.version.isLoadable(byDriver: driverVersion ?? .max) else {
                continue
            }
            counts.withLock { $0.bundled += 1 }
            return try bundle.cubin(entry)
        }
        return nil
    }

    private func loadedNVRTC() throws(FlashInferError) -> NVRTC {
        let (version, environment) = (driverVersion, environment)
        let result = nvrtc.withLock { kept in
            if let kept { return kept }
            let fresh = Result { () throws(FlashInferError) in
                try NVRTC(driverVersion: version, environment: environment)
            }
            kept = fresh
            return fresh
        }
        return try result.get()
    }

    /// The compiler; where there is none, the error says what the kernel was looked for in before.
    private func loadedNVRTC(
        for spec: KernelSpec, _ architecture: Architecture
    ) throws(FlashInferError) -> NVRTC {
        do throws(FlashInferError) {
            return try loadedNVRTC()
        } catch {
            guard case .success(let bundle)? = bundle, case .deviceFailure(let call, let message) = error else {
                throw error
            }
            throw .deviceFailure(
                call: call,
                message:
                    "\(message). The bundle \(bundle.path) has no \(spec.label) for \(architecture) made from this "
                    + "version's text")
        }
    }
}
