import ArgumentParser
import FlashInferEngine

/// Refuses a number of the command line that is too small or too large.
func require(_ flag: String, _ value: Int, atLeast least: Int, atMost most: Int = .max) throws {
    guard value >= least else { throw ValidationError("\(flag) is \(value), but must be at least \(least).") }
    guard value <= most else { throw ValidationError("\(flag) is \(value), but must be at most \(most).") }
}

/// What flags may say at most: more than any machine or model has, and little enough that sums and threads do not run out.
enum Most {
    static let tokens = 1 << 24
    static let threads = 4096
}

// Values are taken unconditionally, so that one that begins with a dash is a value: "-1" is a number that is too small, and not a flag that
// leaves the option without one.

/// How tokens are chosen and when a text ends.
struct SamplingFlags: ParsableArguments {
    @Option(
        name: [.customShort("n"), .long], parsing: .unconditional, help: "The most tokens to generate for a prompt.")
    var maxTokens = 256

    @Option(parsing: .unconditional, help: "0 takes the most likely token; higher is more varied.")
    var temperature: Float = 0

    @Option(name: .customLong("top-k"), parsing: .unconditional, help: "Keep the K most likely tokens; 0 keeps all.")
    var topK = 0

    @Option(
        name: .customLong("top-p"), parsing: .unconditional,
        help: "Keep the most likely tokens that have this probability; 0 is greedy.")
    var topP: Float = 1

    @Option(
        name: .customLong("min-p"), parsing: .unconditional,
        help: "Drop tokens less likely than this times the most likely one.")
    var minP: Float = 0

    @Option(parsing: .unconditional, help: "Make tokens already in the text less likely; 1 changes nothing.")
    var repetitionPenalty: Float = 1

    @Option(parsing: .unconditional, help: "Repeat a run with temperature exactly; drawn at random if absent.")
    var seed: UInt64?

    @Option(
        parsing: .unconditionalSingleValue,
        help: "End the text before this string; \\n and \\t are understood. May be given many times.")
    var stop: [String] = []

    /// The flags as the engine takes them.
    var options: GenerationOptions {
        GenerationOptions(
            maxTokens: maxTokens,
            sampling: SamplingParameters(
                temperature: temperature, topK: topK, topP: topP, minP: minP, repetitionPenalty: repetitionPenalty,
                seed: seed),
            stopStrings: stop.map(Self.unescape))
    }

    func validate() throws {
        try require("--max-tokens", maxTokens, atLeast: 1, atMost: Most.tokens)
        guard !stop.contains("") else { throw ValidationError("--stop needs at least one character.") }
        do throws(FlashInferError) {
            try options.sampling.validate()
        } catch {
            guard case .invalidArgument(let name, let found, let expected) = error else {
                throw ValidationError("\(error).")
            }
            throw ValidationError("\(Self.flag(name)) is \(found), but must be \(expected).")
        }
    }

    /// "--top-p" for "topP".
    private static func flag(_ name: String) -> String {
        "--" + name.map { $0.isUppercase ? "-\($0.lowercased())" : "\($0)" }.joined()
    }

    private static func unescape(_ text: String) -> String {
        var result = ""
        var isEscaped = false
        for character in text {
            switch (isEscaped, character) {
            case (false, "\\"):
                isEscaped = true
                continue
            case (true, "n"): result.append("\n")
            case (true, "t"): result.append("\t")
            case (true, "\\"): result.append("\\")
            case (true, _): result += "\\" + String(character)
            case (false, _): result.append(character)
            }
            isEscaped = false
        }
        return isEscaped ? result + "\\" : result
    }
}

/// How the model runs.
struct EngineFlags: ParsableArguments {
    @Option(
        help:
            "Where the model runs: auto (a GPU if one can be used, else the CPU), cpu, cuda or cuda:N; auto if absent.",
        transform: { name in
            guard let choice = DeviceChoice(name) else {
                throw ValidationError("There is no device \(name): say auto, cpu, cuda or cuda:N.")
            }
            return choice
        })
    var device = DeviceChoice.automatic

    @Option(parsing: .unconditional, help: "Processor threads, on the CPU; all cores if absent.")
    var threads: Int?

    @Option(
        name: .customLong("kv-cache-dtype"),
        help: """
            The type of cached keys and values: float32, float16, bfloat16, float8-e4m3, float8-e5m2 or int8; float16 if absent.
            """,
        transform: { name in
            guard let type = DType(name), type.isCacheType else {
                throw ValidationError(
                    "There is no cache of \(name): say float32, float16, bfloat16, float8-e4m3, float8-e5m2 or int8.")
            }
            return type
        })
    var kvCacheType = DType.float16

    @Option(
        name: .customLong("kv-cache-scale"), parsing: .unconditional,
        help: """
            What a cached float8 or int8 number is multiplied by: 1 if absent for float8; for int8 a 127th of the model's largest keys \
            and values.
            """)
    var kvCacheScale: Float?

    @Option(
        parsing: .unconditional, help: "Tokens of a cache page; 16 if absent, 64 where several ranks share the keys.")
    var pageSize: Int?

    @Option(
        parsing: .unconditional, help: "Pages of the cache, on each rank; as many as the prompts can use if absent.")
    var cachePages: Int?

    @Option(
        parsing: .unconditional,
        help: "The most tokens of a text, prompt included; at most what the model was made for.")
    var maxContext: Int?

    @Option(
        parsing: .unconditional,
        help: "The most tokens computed in one step; 512 on the CPU and 2048 on a GPU if absent.")
    var batchTokens: Int?

    @Option(
        help:
            "What carries data between ranks, if there are several: automatic (NCCL, peer memory), nccl or host; automatic if absent.",
        transform: { name in
            guard let transport = Communicators.Transport(rawValue: name) else {
                throw ValidationError("There is no transport \(name): say automatic, nccl or host.")
            }
            return transport
        })
    var rankTransport = Communicators.Transport.automatic

    func validate() throws {
        for (name, value, least, most) in [
            ("--threads", threads, 1, Most.threads), ("--page-size", pageSize, 1, Most.tokens),
            ("--cache-pages", cachePages, 1, Most.tokens), ("--batch-tokens", batchTokens, 1, Most.tokens),
            ("--max-context", maxContext, 2, .max),
        ] {
            if let value { try require(name, value, atLeast: least, atMost: most) }
        }
        if let kvCacheScale {
            guard kvCacheScale > 0, kvCacheScale.isFinite else {
                throw ValidationError("--kv-cache-scale is \(kvCacheScale), but must be finite and above 0.")
            }
            guard kvCacheType.byteCount == 1 else {
                throw ValidationError("--kv-cache-scale has no place with a cache of \(kvCacheType).")
            }
        } else if kvCacheType == .int8 {
            // A scale of 1 would leave a few of 256 numbers in use, and answers without a meaning.
            throw ValidationError(
                """
                --kv-cache-dtype int8 needs --kv-cache-scale: a 127th of the model's largest keys and values, 0.2 for smollm2.
                """)
        }
    }
}

/// How much is printed besides the answers.
struct OutputFlags: ParsableArguments {
    @Flag(name: [.short, .long], help: "Print answers and errors only: no progress, no statistics.")
    var quiet = false
}
