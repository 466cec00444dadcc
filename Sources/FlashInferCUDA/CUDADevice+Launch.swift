internal import CCUDA
package import FlashInferCore

extension CUDADevice {
    /// The kernel of a spec: from memory in well under a microsecond once it was used.
    package func kernel(_ spec: KernelSpec) throws(FlashInferError) -> CUDAFunction { try kernels.function(spec) }

    /// Loads kernels side by side, so that a start does not compile them one after the other.
    package func preload(_ specs: [KernelSpec]) throws(FlashInferError) { try kernels.preload(specs) }

    /// How many blocks of a kernel run on one processor at a time.
    package func residentBlocks(of kernel: CUDAFunction) throws(FlashInferError) -> Int {
        var blocks: Int32 = 0
        try queue.context.call("cuOccupancyMaxActiveBlocksPerMultiprocessor") {
            $0.cuOccupancyMaxActiveBlocksPerMultiprocessor(
                &blocks, kernel.handle, Int32(kernel.threads), Int(kernel.sharedByteCount))
        }
        return Int(blocks)
    }

    /// Finds out whether kernels can be had at all, from a bundle or a compiler; compiles nothing.
    package func requireKernels() throws(FlashInferError) { try kernels.requireSource() }

    /// Enqueues a kernel with its one parameter; a grid with a zero in it enqueues nothing.
    ///
    /// - Throws: ``FlashInferError`` where the grid is larger than a GPU takes, the parameter is not of the kernel's size, or the
    ///   driver refuses.
    @inline(__always)
    package func launch<P: BitwiseCopyable>(
        _ kernel: CUDAFunction, grid: (Int, Int, Int), _ params: P
    ) throws(FlashInferError) {
        try queue.gate.inside { () throws(FlashInferError) in try queue.launch(kernel, grid: grid, params) }
    }

    /// Lets `fill` write `byteCount` bytes of pinned memory (of undefined content) and enqueues their copy to device memory.
    ///
    /// Never waits for the GPU unless the host is far ahead of it; a message still being read is never overwritten.
    ///
    /// - Throws: ``FlashInferError`` while a graph is captured, and where memory is short.
    package func staging(
        byteCount: Int, to address: UInt, _ fill: (UnsafeMutableRawBufferPointer) -> Void
    ) throws(FlashInferError) {
        try queue.gate.inside { () throws(FlashInferError) in
            try queue.stage(byteCount: byteCount, to: address, fill)
        }
    }
}

extension CUDAQueue {
    /// The most blocks along x, and along y and z, of any GPU.
    private static var largestGrid: (x: Int, yz: Int) { (Int(Int32.max), 65535) }

    /// Enqueues a kernel; see ``CUDADevice/launch(_:grid:_:)``.
    ///
    /// - Parameter mayStartEarly: whether what it reads before it waits for the kernels ahead of it is not written by them.
    package func launch<P: BitwiseCopyable>(
        _ kernel: CUDAFunction, grid: (Int, Int, Int), mayStartEarly: Bool = true, _ params: P
    ) throws(FlashInferError) {
        let limit = Self.largestGrid
        guard grid.0 >= 0, grid.1 >= 0, grid.2 >= 0, grid.0 <= limit.x, grid.1 <= limit.yz, grid.2 <= limit.yz else {
            throw .invalidArgument(
                "grid of \(kernel.spec.label)", found: "\(grid)",
                expected: "in 0 ... (\(limit.x), \(limit.yz), \(limit.yz))")
        }
        if grid.0 == 0 || grid.1 == 0 || grid.2 == 0 { return }
        // The driver copies as many bytes as the kernel says.
        if let size = kernel.parameterByteCount, size != MemoryLayout<P>.size {
            throw .lengthMismatch(
                "parameter \(P.self) of \(kernel.spec.label)", found: MemoryLayout<P>.size, expected: size)
        }
        var params = params
        let stream = stream.handle
        try context.call("cuLaunchKernel") { driver in
            withUnsafeMutablePointer(to: &params) { params in
                var pointer: UnsafeMutableRawPointer? = UnsafeMutableRawPointer(params)
                if kernel.startsEarly, mayStartEarly, let launch = driver.cuLaunchKernelEx {
                    var attribute = fi_cu_launch_attribute()
                    attribute.id = Int32(FI_CU_LAUNCH_PROGRAMMATIC_STREAM_SERIALIZATION)
                    attribute.value = 1
                    return withUnsafeMutablePointer(to: &attribute) { attribute in
                        var config = fi_cu_launch_config(
                            grid_x: UInt32(grid.0), grid_y: UInt32(grid.1), grid_z: UInt32(grid.2),
                            block_x: kernel.threads, block_y: 1, block_z: 1, shared_bytes: kernel.sharedByteCount,
                            stream: stream, attributes: attribute, attribute_count: 1)
                        return launch(&config, kernel.handle, &pointer, nil)
                    }
                }
                return driver.cuLaunchKernel(
                    kernel.handle, UInt32(grid.0), UInt32(grid.1), UInt32(grid.2), kernel.threads, 1, 1,
                    kernel.sharedByteCount, stream, &pointer, nil)
            }
        }
    }
}
