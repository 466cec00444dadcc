import CFlashInfer
import FlashInferCore
import Testing

/// A handle of a device, destroyed with it.
final class CDevice: Sendable {
    nonisolated(unsafe) let handle: OpaquePointer

    init(_ options: fi_device_options? = nil) throws {
        var options = options ?? fi_device_options()
        options.struct_size = UInt64(MemoryLayout<fi_device_options>.size)
        var handle: OpaquePointer?
        try ok(fi_device_create(&options, &handle))
        self.handle = try #require(handle)
    }

    /// The CPU with two threads.
    static func cpu() throws -> CDevice {
        var options = fi_device_options()
        options.threads = 2
        return try CDevice(options)
    }

    deinit { fi_device_destroy(handle) }
}

/// A handle of an attention, destroyed with it.
final class CAttention: Sendable {
    nonisolated(unsafe) let handle: OpaquePointer
    private let device: CDevice

    init(_ options: fi_attention_options, on device: CDevice) throws {
        var options = options
        options.struct_size = UInt64(MemoryLayout<fi_attention_options>.size)
        var handle: OpaquePointer?
        try ok(fi_attention_create(device.handle, &options, &handle))
        self.handle = try #require(handle)
        self.device = device
    }

    deinit { fi_attention_destroy(handle) }

    func run(_ args: fi_attention_run_args, stream: UnsafeMutableRawPointer? = nil) -> fi_status {
        var args = args
        args.struct_size = UInt64(MemoryLayout<fi_attention_run_args>.size)
        return fi_attention_run(handle, stream, &args)
    }
}

/// A call of the ABI that failed.
struct CallFailed: Error, CustomStringConvertible {
    var status: fi_status
    var message: String
    var description: String { "\(String(cString: fi_status_name(status))): \(message)" }
}

/// What the thread's last failed call said.
var lastMessage: String { String(cString: fi_last_error_message()) }

/// Throws what a call said, unless it succeeded.
func ok(_ status: fi_status) throws {
    if status != FI_OK { throw CallFailed(status: status, message: lastMessage) }
}

/// Expects that a call failed with a status and a message that holds all of `parts`.
func expect(
    _ status: fi_status, _ expected: Int, _ parts: String..., sourceLocation: SourceLocation = #_sourceLocation
) {
    let message = lastMessage
    #expect(Int(status) == expected, "\(message)", sourceLocation: sourceLocation)
    for part in parts { #expect(message.contains(part), "\(message)", sourceLocation: sourceLocation) }
}
