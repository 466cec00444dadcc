import ArgumentParser
import FlashInferEngine
import Foundation

/// `flashinfer inspect`
struct InspectCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "inspect",
        abstract: "Show what a model's files hold: settings, metadata, tensors, and whether the engine can run it.")

    @Argument(help: "A model by name, a GGUF file or a Hugging Face folder.")
    var model: String

    @Flag(inversion: .prefixedNo, help: "List every tensor.")
    var tensors = true

    func run() async throws {
        try await Interrupt.watching { [self] _ in
            let location = try await ModelLoading.locate(model, progress: ProgressLine(isQuiet: false))
            Terminal.write(ModelSummary(try ModelSource.open(location.path)).text(tensors: tensors))
        }
    }
}
