internal import FlashInferCore

/// An operation as its kernel takes it: which kernel, how many blocks, and the kernel's one parameter.
package struct KernelLaunch<Parameters: BitwiseCopyable> {
    /// The kernel.
    package var spec: KernelSpec
    /// Blocks along x; no other dimension is used, as only x is long enough for any number of rows.
    package var blocks: Int
    /// The kernel's parameter.
    package var parameters: Parameters

    /// A launch of these parts.
    package init(_ spec: KernelSpec, blocks: Int, _ parameters: Parameters) {
        self.spec = spec
        self.blocks = blocks
        self.parameters = parameters
    }
}

extension CUDADevice {
    /// Enqueues a launch; `nil` is an operation with nothing to do.
    func enqueue<Parameters>(_ launch: KernelLaunch<Parameters>?) throws(FlashInferError) {
        guard let launch else { return }
        try queue.launch(kernel(launch.spec), grid: (launch.blocks, 1, 1), launch.parameters)
    }
}
