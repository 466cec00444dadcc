public import FlashInfer
internal import Foundation

/// A model's files, opened: its settings, its tokenizer and its chat template in memory, its weights where they lie.
///
/// ```swift
/// let model = try LanguageModel(named: "smollm2")
/// let engine = try model.makeEngine(on: Devices.makeDefault())
/// let prompt = try model.tokens(of: [ChatMessage(role: "user", content: "What is the capital of France?")])
/// for try await event in try await engine.submit(prompt) {
///     if case .token(let token) = event { print(token.text, terminator: "") }
/// }
/// ```
///
/// Opening takes tens of milliseconds; ``makeEngine(_:contextLength:reusesPrefixes:on:across:progress:)`` packs the weights and allocates
/// the cache.
public struct LanguageModel: Sendable {
    /// What the files call it: the last part of the path, without `.gguf`.
    public let name: String
    /// The settings.
    public let config: ModelConfig
    /// Text to token ids and back.
    public let tokenizer: Tokenizer
    /// The tokens that end a text.
    public let endTokens: Set<Int32>

    private let weights: ModelWeights
    /// How a conversation is written out. A template that cannot be read does not keep the model from other uses.
    private let chatTemplate: Result<ChatTemplate, ChatTemplateError>?

    /// Opens a GGUF file or a Hugging Face folder.
    ///
    /// - Throws: ``ModelFileError``, ``ModelConfigError``, ``ModelWeightsError`` or ``TokenizerError``, whichever part of
    ///   the files is at fault.
    public init(path: String) throws {
        let source = try ModelSource.open(path)
        config = try source.config()
        weights = try source.weights(config)
        tokenizer = try Tokenizer(TokenizerDefinition(source))
        chatTemplate = tokenizer.chatTemplate.map { source in
            Result { () throws(ChatTemplateError) in try ChatTemplate(source) }
        }
        endTokens = tokenizer.endIDs.union(config.eosIDs.compactMap { Int32(exactly: $0) })
        let last = path.split(separator: "/").last.map(String.init) ?? path
        name = last.hasSuffix(".gguf") ? String(last.dropLast(5)) : last
    }

    /// Opens a model that is on this machine: by a name of the catalogue, by path, or by its name in `store`.
    ///
    /// - Throws: ``ModelStoreError`` where there is none, and what ``init(path:)`` throws.
    public init(named name: String, in store: ModelStore = ModelStore()) throws {
        try self.init(path: store.locate(name).path)
    }

    /// Whether the files say how a conversation is written out.
    public var hasChatTemplate: Bool { chatTemplate != nil }

    /// The ids of a conversation, up to where the assistant's answer begins.
    ///
    /// Contents are rendered as the template has it, so a content can forge special tokens: check it before, if it
    /// comes from strangers.
    ///
    /// - Throws: ``ChatTemplateError`` where the template cannot be read or refuses the conversation;
    ///   ``LanguageModelError/noChatTemplate(model:)``.
    public func tokens(of messages: [ChatMessage]) throws -> [Int32] {
        guard let chatTemplate else { throw LanguageModelError.noChatTemplate(model: name) }
        let text = try chatTemplate.get().render(
            messages: messages, bosToken: text(of: tokenizer.bosID), eosToken: text(of: tokenizer.eosID))
        return try tokenizer.encode(text, addSpecialTokens: false)
    }

    /// The bytes of keys and values that a token takes, all layers together.
    public func cacheByteCount(perTokenOf type: DType) -> Int {
        2 * config.layerCount * config.kvWidth * type.byteCount
    }

    /// Packs the weights, allocates a cache and makes an engine over both.
    ///
    /// - Parameters:
    ///   - options: the cache, of this rank, and the largest step.
    ///   - contextLength: the longest text; nil for what the model was made for.
    ///   - reusesPrefixes: whether pages are shared between requests with a common start.
    ///   - device: where the model runs.
    ///   - ranks: other processes with a device each that hold a part of every text's keys, this one being rank 0: the cache then has room
    ///     for as many times the tokens. The others ``follow(_:on:across:progress:)``; end with ``Engine/finish()``.
    ///   - progress: called with the fraction of the weights that are packed.
    /// - Throws: ``FlashInferError`` for options out of range, lack of memory, and ranks that have something else, ``EngineError`` for a
    ///   context length below 2, ``LanguageModelError`` for one beyond the model's.
    public func makeEngine(
        _ options: DecoderOptions = DecoderOptions(), contextLength: Int? = nil, reusesPrefixes: Bool = true,
        on device: any Device, across ranks: (any Communicator)? = nil, progress: (Double) -> Void = { _ in }
    ) throws -> Engine {
        let contextLength = contextLength ?? config.contextLength
        guard contextLength <= config.contextLength else {
            throw LanguageModelError.contextTooLong(requested: contextLength, limit: config.contextLength)
        }
        if let ranks, ranks.rank > 0 {
            throw FlashInferError.invalidArgument("rank", found: "\(ranks.rank)", expected: "0; the others follow")
        }
        let runner = try DecoderRunner(weights, options: options, on: device, across: ranks, progress: progress)
        let scheduling = SchedulerConfiguration(
            contextLength: contextLength, maxBatchTokens: options.maximumBatchTokens,
            maxSequences: min(options.maximumSequences, options.maximumBatchTokens),
            prefillChunk: options.maximumBatchTokens,
            reusesPrefixes: reusesPrefixes)
        return try Engine(
            runner: runner,
            configuration: EngineConfiguration(
                scheduling: scheduling, pageCount: options.pageCount, pageSize: runner.positionsPerPage,
                endOfSequenceTokens: endTokens),
            makeDecoder: { [tokenizer] in AnswerDecoder(decoder: StreamingDecoder(tokenizer)) })
    }

    /// Computes this rank's part of what rank 0's engine generates; returns when that is finished.
    ///
    /// ```swift
    /// let ranks = try Communicators.join(.current, on: device)
    /// if ranks.rank > 0 { return try model.follow(options, on: device, across: ranks) }
    /// let engine = try model.makeEngine(options, on: device, across: ranks)
    /// ```
    /// - Parameters:
    ///   - options: those of rank 0.
    ///   - device: where this rank computes.
    ///   - ranks: all ranks, this one being another than rank 0.
    ///   - progress: called with the fraction of the weights that are packed.
    /// - Throws: ``FlashInferError``, as ``DecoderRunner/follow()`` does.
    public func follow(
        _ options: DecoderOptions = DecoderOptions(), on device: any Device, across ranks: any Communicator,
        progress: (Double) -> Void = { _ in }
    ) throws {
        guard ranks.rank > 0 else {
            throw FlashInferError.invalidArgument("rank", found: "0", expected: "1 or more; rank 0 has the engine")
        }
        try DecoderRunner(weights, options: options, on: device, across: ranks, progress: progress).follow()
    }

    private func text(of token: Int32?) -> String {
        token.map { String(decoding: tokenizer.bytes(of: $0), as: UTF8.self) } ?? ""
    }
}

/// Why a model cannot be used as asked.
public enum LanguageModelError: Error, Hashable {
    /// The model's files have no chat template, so there is no form to write a conversation in.
    case noChatTemplate(model: String)
    /// The context asked for is longer than what the model was made for.
    case contextTooLong(requested: Int, limit: Int)
}

extension LanguageModelError: CustomStringConvertible {
    /// What is wrong, with the limit.
    public var description: String {
        switch self {
        case .noChatTemplate(let model): "\(model) has no chat template; give it plain text to continue"
        case .contextTooLong(let requested, let limit):
            "a context of \(requested) tokens was asked for, but the model was made for at most \(limit)"
        }
    }
}

/// The tokenizer's streaming decoder as the engine wants it.
private struct AnswerDecoder: TextDecoder {
    var decoder: StreamingDecoder

    mutating func append(_ token: Int32) -> String { decoder.push(token) }

    mutating func finish() -> String { decoder.finish() }
}
