import Foundation

extension MappedFile {
    /// A file that exists only in memory, its last byte right before a page that may not be touched.
    ///
    /// A reader that goes even one byte too far is killed at once, so a fuzz test cannot miss it.
    package static func guarded(_ contents: [UInt8], path: String = "memory") throws(ModelFileError) -> MappedFile {
        let page = sysconf(Int32(_SC_PAGESIZE))
        let body = (contents.count + page - 1) / page * page
        let flags = MAP_PRIVATE | Int32(MAP_ANONYMOUS)
        guard let base = mmap(nil, body + page, PROT_READ | PROT_WRITE, flags, -1, 0), base != MAP_FAILED else {
            throw ModelFileError(file: path, problem: .cannotOpen(reason: String(cString: strerror(errno))))
        }
        mprotect(base + body, page, PROT_NONE)
        let start = base + (body - contents.count)
        start.copyMemory(from: contents, byteCount: contents.count)
        return MappedFile(
            path: path, mapping: UnsafeMutableRawBufferPointer(start: base, count: body + page),
            bytes: UnsafeRawBufferPointer(start: start, count: contents.count))
    }
}
