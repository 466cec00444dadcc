/// The paged cache of multi-head latent attention: of each token a compressed vector, which is its value and most of its key, and a
/// rotated part of the key, both without heads.
public struct LatentCacheView: Sendable, Equatable {
    /// The compressed vectors: `[pages, pageSize, latentDim]`.
    public let latent: KVTensor

    /// The rotated parts: `[pages, pageSize, ropeDim]`, of the same type.
    public let rope: KVTensor

    /// Multiplies every stored number of `latent`.
    public var latentScale: Float

    /// Multiplies every stored number of `rope`.
    public var ropeScale: Float

    /// A cache in two tensors, which may be the columns of one; stride 1 in the last dimension.
    ///
    /// - Throws: ``FlashInferError`` where their pages, types or devices differ, or a scale is not finite and above 0.
    public static func paged(
        latent: TensorView, rope: TensorView, latentScale: Float = 1, ropeScale: Float = 1
    ) throws(FlashInferError) -> LatentCacheView {
        let (latent, rope) = (try KVTensor.headless(latent, name: "ckv"), try KVTensor.headless(rope, name: "kpe"))
        guard latent.blockCount == rope.blockCount else {
            throw .lengthMismatch("kpe pages", found: rope.blockCount, expected: latent.blockCount)
        }
        guard latent.blockSize == rope.blockSize else {
            throw .lengthMismatch("kpe page size", found: rope.blockSize ?? 1, expected: latent.blockSize ?? 1)
        }
        guard latent.dtype == rope.dtype else {
            throw .invalidArgument("kpe", found: "\(rope.dtype)", expected: "\(latent.dtype), as ckv")
        }
        guard latent.view.device == rope.view.device else {
            throw .invalidArgument("kpe", found: "on \(rope.view.device)", expected: "on \(latent.view.device), as ckv")
        }
        for (name, scale) in [("ckv scale", latentScale), ("kpe scale", ropeScale)] {
            guard scale.isFinite, scale > 0 else {
                throw .invalidArgument(name, found: "\(scale)", expected: "finite and above 0")
            }
        }
        return LatentCacheView(latent: latent, rope: rope, latentScale: latentScale, ropeScale: ropeScale)
    }
}
