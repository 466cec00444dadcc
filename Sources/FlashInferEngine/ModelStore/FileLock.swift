import Foundation

/// A lock that other processes see too, held until it is closed.
struct FileLock: ~Copyable {
    private let descriptor: Int32

    /// What became of an attempt to lock.
    enum Attempt: ~Copyable {
        case held(FileLock)
        case busy
    }

    /// Tries to lock the file at `path`, which is made when missing.
    ///
    /// On a file system without locks the attempt succeeds: what the lock guards is safe without it, only done twice.
    static func attempt(_ path: String) throws(ModelStoreError) -> Attempt {
        let descriptor = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0o644)
        guard descriptor >= 0 else { throw .cannotWrite(path: path, reason: String(cString: strerror(errno))) }
        if flock(descriptor, LOCK_EX | LOCK_NB) != 0, errno == EWOULDBLOCK {
            close(descriptor)
            return .busy
        }
        return .held(FileLock(descriptor: descriptor))
    }

    private init(descriptor: Int32) { self.descriptor = descriptor }

    deinit { close(descriptor) }
}
