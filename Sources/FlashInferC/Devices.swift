// swift-format-ignore-file: AlwaysUseLowerCamelCase
// The functions of this file have the header's names.

public import CFlashInfer
internal import FlashInferCUDA
internal import FlashInferCore

/// How many devices of a type there are.
@c @implementation
public func fi_device_count(_ device_type: Int32, _ count: UnsafeMutablePointer<Int32>?) -> fi_status {
    perform {
        guard let count else { throw FlashInferError.invalidArgument("count", found: "NULL", expected: "a pointer") }
        let isGPU = try choice("device_type", device_type, [(FI_CPU, false), (FI_CUDA, true)])
        count.pointee = isGPU ? Int32(clamping: (try? CUDADriver.load().deviceCount()) ?? 0) : 1
    }
}

/// Makes a device.
@c @implementation
public func fi_device_create(
    _ given: UnsafePointer<fi_device_options>?, _ device: UnsafeMutablePointer<OpaquePointer?>?
) -> fi_status {
    perform {
        guard let device else { throw FlashInferError.invalidArgument("device", found: "NULL", expected: "a pointer") }
        let wanted = given == nil ? fi_device_options() : try options(given, "options", empty: fi_device_options())
        let isGPU = try choice("device_type", wanted.device_type, [(0, false), (FI_CPU, false), (FI_CUDA, true)])
        if isGPU {
            let gpu = try CUDADevice(ordinal: Int(wanted.device_id))
            try gpu.requireKernels()
            device.pointee = handle(DeviceHandle(gpu: gpu))
        } else {
            // More threads than any machine has processors only take turns.
            guard wanted.threads >= 0, wanted.threads <= 4096 else {
                throw FlashInferError.invalidArgument("threads", found: "\(wanted.threads)", expected: "in 0 ... 4096")
            }
            device.pointee = handle(DeviceHandle(threads: wanted.threads == 0 ? nil : Int(wanted.threads)))
        }
    }
}

/// Frees a device.
@c @implementation
public func fi_device_destroy(_ device: OpaquePointer?) { release(device, as: DeviceHandle.self) }

/// A device's name for people.
@c @implementation
public func fi_device_name(_ device: OpaquePointer?) -> UnsafePointer<CChar>? {
    (try? object(device, "device", as: DeviceHandle.self))?.name
}

/// What a device is.
@c @implementation
public func fi_device_get_info(_ device: OpaquePointer?, _ info: UnsafeMutablePointer<fi_device_info>?) -> fi_status {
    perform {
        let base = try object(device, "device", as: DeviceHandle.self).base
        var found = fi_device_info()
        if case .cuda(let ordinal) = base.id {
            (found.device_type, found.device_id) = (Int32(FI_CUDA), Int32(clamping: ordinal))
        } else {
            found.device_type = Int32(FI_CPU)
        }
        found.processors = Int32(clamping: base.limits.processors)
        found.memory_bytes = UInt64(clamping: base.limits.memoryByteCount ?? 0)
        try store(found, to: info, "info")
    }
}

/// Waits for a stream's work.
@c @implementation
public func fi_device_synchronize(_ device: OpaquePointer?, _ stream: UnsafeMutableRawPointer?) -> fi_status {
    perform { try object(device, "device", as: DeviceHandle.self).on(stream).device.synchronize() }
}

/// Drops what is kept for a stream.
@c @implementation
public func fi_device_forget_stream(_ device: OpaquePointer?, _ stream: UnsafeMutableRawPointer?) -> fi_status {
    perform { try object(device, "device", as: DeviceHandle.self).forget(stream) }
}
