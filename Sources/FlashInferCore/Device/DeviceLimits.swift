/// What planning needs to know of a device.
public struct DeviceLimits: Sendable, Hashable {
    /// Workers that run work items side by side: threads of a CPU, resident thread blocks of a GPU.
    public var processors: Int

    /// Bytes of memory the device has, or `nil` where it cannot tell.
    public var memoryByteCount: Int?

    /// Limits with these values.
    public init(processors: Int, memoryByteCount: Int? = nil) {
        precondition(processors > 0, "a device has at least one processor")
        self.processors = processors
        self.memoryByteCount = memoryByteCount
    }
}
