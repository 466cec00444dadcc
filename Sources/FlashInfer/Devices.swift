internal import FlashInferCPU
internal import FlashInferCUDA
public import FlashInferCore

/// The devices of this machine.
public enum Devices {
    /// The fastest device found: the first GPU where one can be used, else the CPU with all processors this process may use.
    ///
    /// A GPU can be used where its driver is new enough, its compute capability is 8.0 or later, and kernels can be had for it, from a
    /// bundle or from the compiler. `flashinfer doctor` says what is missing; `make(named: "cuda")` throws it.
    ///
    /// - Throws: nothing today.
    public static func makeDefault() throws(FlashInferError) -> any Device {
        do throws(FlashInferError) {
            return try makeGPU(0)
        } catch {
            return CPUDevice()
        }
    }

    /// A device by its name: "cpu", "cuda" (the first GPU) or "cuda:1".
    ///
    /// - Throws: ``FlashInferError`` where there is no such name, or where the GPU cannot be used, and why.
    public static func make(named name: String) throws(FlashInferError) -> any Device {
        if name == "cpu" { return CPUDevice() }
        if name == "cuda" { return try makeGPU(0) }
        let digits = name.dropFirst("cuda:".count)
        guard name.hasPrefix("cuda:"), digits.allSatisfy(\.isASCII), digits.allSatisfy(\.isNumber),
            let ordinal = Int(digits)
        else {
            throw .invalidArgument(
                "device", found: "'\(name)'", expected: "cpu, cuda or cuda:N with N the GPU's number")
        }
        return try makeGPU(ordinal)
    }

    private static func makeGPU(_ ordinal: Int) throws(FlashInferError) -> any Device {
        let device = try CUDADevice(ordinal: ordinal)
        try device.requireKernels()
        return device
    }
}
