internal import FlashInferCPU
public import FlashInferCore

/// The devices of this machine.
public enum Devices {
    /// The fastest device found: today the CPU, with all processors this process may use.
    ///
    /// - Throws: nothing yet; a GPU that is present but unusable will say why.
    public static func makeDefault() throws(FlashInferError) -> any Device { CPUDevice() }
}
