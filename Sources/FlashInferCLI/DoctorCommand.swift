import ArgumentParser
import FlashInfer
import FlashInferCUDA
import FlashInferEngine
import Foundation

/// `flashinfer doctor`
struct DoctorCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "doctor",
        abstract: "Say what was found on this machine, and what is missing.")

    func run() async throws {
        let machine = Machine()
        section("Machine")
        row("flashinfer", FlashInferCommand.configuration.version)
        row("system", "\(machine.system), \(machine.architecture)")
        row("processor", machine.processor ?? "unknown")
        row("cores", "\(machine.cores) usable")
        row("memory", Machine.bytes(machine.memory))
        for cache in machine.caches { row(cache.name, cache.size) }

        section("CPU kernels")
        for level in InstructionSet.allCases.reversed() { row(level.name, machine.verdict(on: level)) }

        section("Devices")
        row("cpu", CPUDevice().name)

        section("CUDA")
        for line in CUDAReport().rows { row(line.name, line.value) }

        section("Models")
        let store = ModelStore()
        row("folder", store.folder.path)
        for model in CatalogueModel.all {
            let state =
                store.contains(model) ? "here" : "not here; \((model.downloadBytes + 500_000) / 1_000_000) MB to fetch"
            row(model.name, "\(state) (\(model.summary))")
        }
        row("python", await machine.pipVersion() ?? "no python3 with pip on the PATH: models cannot be fetched by name")
    }

    private func section(_ title: String) { Terminal.write("\(title)\n") }

    private func row(_ name: String, _ value: String) {
        // Further lines of a value are indented as the first one is.
        let text = value.split(separator: "\n").joined(separator: "\n" + String(repeating: " ", count: 16))
        Terminal.write("  " + name + String(repeating: " ", count: max(1, 14 - name.count)) + text + "\n")
    }
}
