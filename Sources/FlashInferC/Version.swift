internal import CFlashInfer

/// What version of the ABI this is: the header's, which is compiled in.
@c @implementation
public func fi_version() -> UInt32 { UInt32(FI_VERSION_MAJOR * 10_000 + FI_VERSION_MINOR * 100 + FI_VERSION_PATCH) }

private let versionText = StaticString("0.1.0")

/// The version as text.
@c @implementation
public func fi_version_string() -> UnsafePointer<CChar>? {
    UnsafeRawPointer(versionText.utf8Start).assumingMemoryBound(to: CChar.self)
}
