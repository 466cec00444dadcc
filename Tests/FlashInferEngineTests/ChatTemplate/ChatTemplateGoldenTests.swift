import FlashInferEngine
import Foundation
import Testing

/// Outputs of the Jinja2 package (Scripts/check-chat-templates.py).
struct ChatTemplateGoldenTests {
    /// 2026-03-07 16:05:09 UTC, the script's clock.
    static let now = ChatTemplateTime(secondsSince1970: 1_772_899_509)

    @Test func outputsAreThePeers() throws {
        let golden = try OrderedJSON(TokenizerFixtures.bytes("templates/golden.json"))
        let cases = try #require(golden.array)
        #expect(cases.count > 100)
        for item in cases {
            let name = (item[key: "template"]?.string ?? "snippet") + ": " + (item[key: "name"]?.string ?? "")
            var source = item[key: "source"]?.string ?? ""
            if let file = item[key: "template"]?.string {
                source = String(decoding: try TokenizerFixtures.bytes("templates/\(file)"), as: UTF8.self)
            }
            let variables = try #require(item[key: "variables"]?.object)
            let expected = item[key: "output"]?.string
            do throws(ChatTemplateError) {
                let output = try Self.render(source, variables)
                #expect(output == expected, "\(name)")
                // String equality ignores how accents are composed.
                #expect(expected.map { Array($0.utf8) } == Array(output.utf8), "\(name)")
            } catch {
                #expect(expected == nil, "\(name): \(error)")
            }
        }
    }

    private static func render(
        _ source: String, _ variables: [OrderedJSON.Member]
    ) throws(ChatTemplateError) -> String {
        var messages: [ChatMessage] = []
        var extra: [String: ChatValue] = [:]
        var addsPrompt = true
        for variable in variables {
            switch variable.key {
            case "messages":
                for message in variable.value.array ?? [] {
                    let fields = (message.object ?? []).filter { $0.key != "role" && $0.key != "content" }
                    messages.append(
                        ChatMessage(
                            role: message[key: "role"]?.string ?? "", content: message[key: "content"]?.string ?? "",
                            fields: fields.map { ChatValue.Member(key: $0.key, value: ChatValue($0.value)) }))
                }
            case "add_generation_prompt": addsPrompt = variable.value.bool ?? true
            default: extra[variable.key] = ChatValue(variable.value)
            }
        }
        return try ChatTemplate(source).render(
            messages: messages, addGenerationPrompt: addsPrompt, bosToken: "<s>", eosToken: "</s>", extra: extra,
            now: now)
    }
}
