/// A model's chat template: turns a conversation into the text that the model was trained to continue.
///
/// The language is the part of Jinja that chat templates use, with the settings that Hugging Face renders them with
/// (`trim_blocks`, `lstrip_blocks`, loop controls, `raise_exception`, `strftime_now`, its own `tojson`).
///
/// ```swift
/// let template = try ChatTemplate("{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}")
/// try template.render(messages: [ChatMessage(role: "user", content: "Hello")])
/// // "<|im_start|>user\nHello<|im_end|>\n"
/// ```
///
/// Templates come with models from strangers: steps, output, nesting and values are bounded, and nothing outside of
/// the given values can be reached.
public struct ChatTemplate: Sendable {
    private let statements: [TemplateStatement]

    /// Parses a template.
    ///
    /// - Throws: `ChatTemplateError.syntax` with the line, also for tags, filters and tests that are not supported.
    public init(_ source: String) throws(ChatTemplateError) {
        guard source.utf8.count <= ChatTemplateLimits.sourceBytes else {
            throw .limit(what: "bytes of template", limit: ChatTemplateLimits.sourceBytes)
        }
        var lexer = TemplateLexer(source)
        var parser = TemplateParser(try lexer.segments())
        statements = try parser.template()
    }

    /// The text of a conversation.
    ///
    /// - Parameters:
    ///   - messages: The conversation so far.
    ///   - addGenerationPrompt: Whether the beginning of the assistant's next message is written too.
    ///   - bosToken: The text of the token that begins a sequence. A template that writes it makes tokens that must
    ///     then not be added a second time: encode the result with `addSpecialTokens: false`.
    ///   - eosToken: The text of the token that ends a sequence.
    ///   - extra: Other variables, such as `tools` or `enable_thinking`.
    ///   - now: The time for `strftime_now`.
    /// - Throws: `ChatTemplateError.raised` when the template refuses the conversation, `evaluation` when an operation
    ///   fails, `limit` when a bound is exceeded.
    public func render(
        messages: [ChatMessage], addGenerationPrompt: Bool = true, bosToken: String = "", eosToken: String = "",
        extra: [String: ChatValue] = [:], now: ChatTemplateTime = .now
    ) throws(ChatTemplateError) -> String {
        var variables: [String: TemplateValue] = [
            "add_generation_prompt": .bool(addGenerationPrompt), "bos_token": .string(bosToken),
            "eos_token": .string(eosToken), "tools": .none, "documents": .none,
        ]
        for (name, value) in extra { variables[name] = try TemplateValue(value) }
        variables["messages"] = try TemplateValue(.list(messages.map(\.value)))
        return try TemplateRenderer(variables, now: now).render(statements)
    }
}
