package import CCUDA
internal import FlashInferCore

/// What kernels are chosen and launches are sized by.
package struct CUDAProperties: Sendable, Hashable {
    /// "NVIDIA H100 80GB HBM3"
    package var name: String
    /// 9.0 is (9, 0).
    package var computeCapability: (major: Int, minor: Int) {
        get { (major, minor) }
        set { (major, minor) = newValue }
    }
    /// Streaming multiprocessors.
    package var processors: Int
    /// The most shared memory of one block, in bytes.
    package var sharedMemoryPerBlockOptIn: Int
    /// Shared memory of a processor, in bytes.
    package var sharedMemoryPerProcessor: Int
    /// 32-bit registers of a processor.
    package var registersPerProcessor: Int
    /// Bytes of the second-level cache.
    package var l2ByteCount: Int
    /// Bytes of device memory.
    package var totalMemory: Int
    /// Whether memory can be allocated in stream order.
    package var hasMemoryPools: Bool
    /// Whether blocks can be launched in clusters, which read each other's shared memory.
    package var hasClusters: Bool

    private var major: Int
    private var minor: Int

    /// The oldest compute capability with a kernel: `mma.sync` of bf16, `ldmatrix` and `cp.async`.
    package static let oldestCapability = (major: 8, minor: 0)

    /// Whether the portable kernels run on it.
    package var isSupported: Bool { major >= Self.oldestCapability.major }

    /// The properties of a device.
    package init(of device: fi_cu_device, driver: CUDADriver) throws(FlashInferError) {
        func attribute(_ attribute: Int) throws(FlashInferError) -> Int {
            var value: Int32 = 0
            try driver.check(
                driver.functions.cuDeviceGetAttribute(&value, Int32(attribute), device), "cuDeviceGetAttribute")
            return Int(value)
        }
        var text = [CChar](repeating: 0, count: 256)
        try driver.check(driver.functions.cuDeviceGetName(&text, Int32(text.count), device), "cuDeviceGetName")
        name = String(decoding: text.prefix { $0 != 0 }.map(UInt8.init(bitPattern:)), as: UTF8.self)
        var bytes = 0
        try driver.check(driver.functions.cuDeviceTotalMem(&bytes, device), "cuDeviceTotalMem")
        totalMemory = bytes
        major = try attribute(FI_CU_ATTRIBUTE_MAJOR)
        minor = try attribute(FI_CU_ATTRIBUTE_MINOR)
        processors = try attribute(FI_CU_ATTRIBUTE_PROCESSORS)
        sharedMemoryPerBlockOptIn = try attribute(FI_CU_ATTRIBUTE_SHARED_BYTES_PER_BLOCK_OPT_IN)
        sharedMemoryPerProcessor = try attribute(FI_CU_ATTRIBUTE_SHARED_BYTES_PER_PROCESSOR)
        registersPerProcessor = try attribute(FI_CU_ATTRIBUTE_REGISTERS_PER_PROCESSOR)
        l2ByteCount = try attribute(FI_CU_ATTRIBUTE_L2_BYTES)
        hasMemoryPools = try attribute(FI_CU_ATTRIBUTE_MEMORY_POOLS) != 0
        // Drivers before 11.8 do not know the attribute.
        var clusters: Int32 = 0
        let answer = driver.functions.cuDeviceGetAttribute(&clusters, Int32(FI_CU_ATTRIBUTE_CLUSTER_LAUNCH), device)
        hasClusters = answer == 0 && clusters != 0
    }
}
