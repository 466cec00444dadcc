import FlashInferCUDA
import FlashInferCore
import Foundation
import Testing

/// The GPU of this machine, where there is one: tests that need it say `.enabled(if: GPU.isPresent, GPU.absence)`.
enum GPU {
    /// Whether there is a driver with at least one GPU. One that is there but cannot be used fails its tests.
    static let isPresent = count > 0

    /// How many this machine has.
    static let count = (try? CUDADriver.load().deviceCount()) ?? 0

    /// Why tests are skipped: `Scripts/gpu-machine` looks for these words.
    static let absence: Comment = "no CUDA device on this machine"

    /// Whether this runs under compute-sanitizer, by whose script (`Scripts/gpu-machine sanitize`).
    static let runsOneKernelAtATime = ProcessInfo.processInfo.environment["FLASHINFER_SANITIZER"] != nil

    /// The device that tests share: its kernels are loaded once. Graphs are captured on devices of their own, see ``makeDevice()``.
    static var device: CUDADevice { get throws { try shared.get() } }

    /// A device with a stream of its own, on the same GPU.
    static func makeDevice() throws -> CUDADevice { try CUDADevice() }

    private static let shared = Result { try CUDADevice() }
}
