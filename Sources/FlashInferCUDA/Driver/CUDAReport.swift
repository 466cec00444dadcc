internal import CCUDA
internal import FlashInferCore

/// What of CUDA is on this machine, what is missing, and how to get it: for `flashinfer doctor`.
package struct CUDAReport: Sendable {
    /// A name and what there is to say of it.
    package struct Row: Sendable {
        package let name: String
        package let value: String
    }

    /// In the order in which things are needed.
    package private(set) var rows: [Row] = []
    /// Whether a GPU can be used.
    package private(set) var isUsable = false

    /// Looks around; nothing is left changed.
    package init(
        environment: CUDAEnvironment = .current, driverCandidates: [String] = LibraryPlaces.driver
    ) {
        var driver: CUDADriver?
        do throws(FlashInferError) {
            let found = try CUDADriver.load(candidates: driverCandidates)
            add("driver", "CUDA \(CUDADriver.text(found.version)) (\(found.path))")
            driver = found
        } catch {
            add("driver", error)
        }
        let hasGPU = driver.map { addGPUs($0) } ?? false
        let hasCompiler = addCompiler(driver, environment)
        addKernelTexts(environment)
        addMatrixProducts(environment)
        addCache(environment)
        let hasBundle = addBundle(environment)
        isUsable = hasGPU && (hasCompiler || hasBundle)
        add("verdict", isUsable ? "a GPU is used by default" : "the CPU is used: \(missing(hasGPU))")
    }

    private func missing(_ hasGPU: Bool) -> String {
        hasGPU ? "there is neither NVRTC nor a bundle of kernels" : "there is no usable GPU"
    }

    private mutating func add(_ name: String, _ value: String) { rows.append(Row(name: name, value: value)) }

    private mutating func add(_ name: String, _ error: FlashInferError) {
        if case .deviceFailure(_, let message) = error { add(name, message) } else { add(name, "\(error)") }
    }

    private mutating func addGPUs(_ driver: CUDADriver) -> Bool {
        var isAnyUsable = false
        do throws(FlashInferError) {
            let count = try driver.deviceCount()
            if count == 0 { add("GPUs", "none that this process may use (see CUDA_VISIBLE_DEVICES)") }
            for ordinal in 0..<count {
                var device: fi_cu_device = 0
                try driver.check(driver.functions.cuDeviceGet(&device, Int32(ordinal)), "cuDeviceGet")
                let properties = try CUDAProperties(of: device, driver: driver)
                let (major, minor) = properties.computeCapability
                var text = "\(properties.name), compute capability \(major).\(minor), "
                text += "\(properties.processors) processors, \(properties.totalMemory >> 20) MiB"
                if !properties.isSupported { text += "; too old: 8.0 is needed" }
                isAnyUsable = isAnyUsable || properties.isSupported
                add("cuda:\(ordinal)", text)
            }
        } catch {
            add("GPUs", error)
        }
        return isAnyUsable
    }

    /// Texts that are not those that ship must not go unnoticed.
    private mutating func addKernelTexts(_ environment: CUDAEnvironment) {
        guard let folder = environment.kernelTexts else { return }
        let shipped = KernelTexts.shipped(replacedFrom: nil).texts
        let texts = KernelTexts.shipped(replacedFrom: folder).texts
        let changed = zip(shipped, texts).count { $0.text != $1.text }
        add("kernel texts", "\(changed) of \(texts.count) are others, from \(folder) (FLASHINFER_KERNEL_TEXTS)")
    }

    private mutating func addCompiler(_ driver: CUDADriver?, _ environment: CUDAEnvironment) -> Bool {
        do throws(FlashInferError) {
            let nvrtc = try NVRTC(driverVersion: driver?.version, environment: environment)
            // Some installations lack the compiler's built-in headers, which only a compilation finds out.
            _ = try nvrtc.compile(
                name: "probe", text: "extern \"C\" __global__ void probe() {}", headers: [],
                options: ["--gpu-architecture=sm_80"])
            add("NVRTC", "\(nvrtc.version) (\(nvrtc.path))")
            return true
        } catch {
            add("NVRTC", error)
            return false
        }
    }

    private mutating func addMatrixProducts(_ environment: CUDAEnvironment) {
        do throws(FlashInferError) {
            let library = try DynamicLibrary(
                "cuBLASLt",
                candidates: LibraryPlaces.toolkit(
                    names: ["libcublasLt.so.13", "libcublasLt.so.12"], wheels: ["cu13/lib", "cublas/lib"],
                    environment: environment),
                help: "Install it with 'pip install nvidia-cublas' (or nvidia-cublas-cu12 for a driver of CUDA 12)")
            add("cuBLASLt", library.path)
        } catch {
            add("cuBLASLt", error)
        }
    }

    private mutating func addCache(_ environment: CUDAEnvironment) {
        guard let cache = DiskCache(environment: environment) else {
            add("kernel cache", "none: neither FLASHINFER_CACHE nor HOME is set, so every start compiles")
            return
        }
        let (count, byteCount) = cache.size()
        var text = "\(cache.folder), \(count) kernels, \((byteCount + 1023) / 1024) KiB of \(cache.byteLimit >> 20) MiB"
        if FileSystem.exists(cache.folder), !FileSystem.isWritable(cache.folder) { text += "; not writable" }
        add("kernel cache", text)
    }

    private mutating func addBundle(_ environment: CUDAEnvironment) -> Bool {
        guard let path = CubinSource.bundlePath(environment) else {
            add("bundle", "none (FLASHINFER_BUNDLE, or \(KernelBundle.usualName) beside the program)")
            return false
        }
        do throws(FlashInferError) {
            let bundle = try KernelBundle(path: path)
            let architectures = Set(bundle.entries.values.map { "\($0.architecture)" }).sorted()
            add("bundle", "\(path), \(bundle.entries.count) kernels, \(architectures.joined(separator: ", "))")
            return !bundle.entries.isEmpty
        } catch {
            add("bundle", error)
            return false
        }
    }
}
