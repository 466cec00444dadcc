// swift-format-ignore-file: AlwaysUseLowerCamelCase
// The functions of this file have the header's names.

internal import CFlashInfer

/// The version of the library, which is that of the header it was compiled with.
@c @implementation
public func fi_version() -> UInt32 { UInt32(FI_VERSION_MAJOR * 10_000 + FI_VERSION_MINOR * 100 + FI_VERSION_PATCH) }

private let versionText: StaticString = "0.1.0"

/// The version of the library as text.
@c @implementation
public func fi_version_string() -> UnsafePointer<CChar>? { versionText.cString }

extension StaticString {
    /// The text with its terminating zero, which lives as long as the program.
    var cString: UnsafePointer<CChar> { UnsafeRawPointer(utf8Start).assumingMemoryBound(to: CChar.self) }
}
