import ArgumentParser
import FlashInferEngine
import Foundation

/// `flashinfer tokenize`
struct TokenizeCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "tokenize", abstract: "Show the token ids of a text, and the piece each one stands for.")

    @Argument(help: "A model by name, a GGUF file or a Hugging Face folder.")
    var model: String

    @Argument(help: "The text.")
    var text: String

    @Flag(help: "Print the ids only, on one line.")
    var ids = false

    func run() async throws {
        let location = try await ModelLoading.locate(model, progress: ProgressLine(isQuiet: false))
        let tokenizer = try Tokenizer(TokenizerDefinition(ModelSource.open(location.path)))
        let tokens = try tokenizer.encode(text)
        if ids {
            Terminal.write(tokens.map(String.init).joined(separator: " ") + "\n")
            return
        }
        let width = tokens.map { String($0).count }.max() ?? 0
        for token in tokens {
            let id = String(token)
            let piece = Self.show(tokenizer.bytes(of: token))
            Terminal.write(String(repeating: " ", count: width - id.count) + "\(id)  \(piece)\n")
        }
        Terminal.writeError("\(tokens.count) tokens\n")
    }

    /// A piece in quotes, or its bytes in hexadecimal where they are not whole characters.
    private static func show(_ bytes: [UInt8]) -> String {
        guard let text = String(validating: bytes, as: UTF8.self) else {
            return bytes.map { "<" + String($0, radix: 16, uppercase: true) + ">" }.joined()
        }
        return text.debugDescription
    }
}
