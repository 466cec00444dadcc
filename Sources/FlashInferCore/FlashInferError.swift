/// Everything that can go wrong at or below the `FlashInfer` module, as one typed error.
///
/// Every case that stands for bad input names the argument, where it applies the request, the value found and
/// the limit it broke; its `description` is a sentence that says what to change.
public enum FlashInferError: Error, Hashable, Sendable {
    /// A tensor or scalar argument is wrong: `argument` is its name, `found` its value, `expected` what it must be.
    case invalidArgument(_ argument: String, found: String, expected: String)

    /// A value that belongs to one request of a batch is wrong.
    case invalidRequest(_ request: Int, argument: String, found: Int, expected: String)

    /// An index pointer array decreases: `values[position + 1] < values[position]`.
    case indptrNotMonotone(_ argument: String, request: Int, value: Int, next: Int)

    /// A page id (or block id) is outside the cache.
    case pageOutOfRange(request: Int, position: Int, page: Int, pageCount: Int)

    /// A last-page length is outside `1 ... pageSize`.
    case lastPageLengthOutOfRange(request: Int, length: Int, pageSize: Int)

    /// The number of query heads is not a positive multiple of the number of key/value heads.
    case headsNotDivisible(queryHeads: Int, kvHeads: Int)

    /// Two lengths that must agree do not.
    case lengthMismatch(_ argument: String, found: Int, expected: Int)

    /// A product or sum of sizes does not fit: in 64 bits, or in the 32 bits of an index handed to a kernel.
    case overflow(_ argument: String)

    /// A valid combination that this device has no kernel for, and the nearest that it has.
    case unsupported(_ feature: String, device: String, nearest: String)

    /// A plan was made for something else than what it is run with.
    case planMismatch(_ what: String, planned: String, found: String)

    /// A plan needs more than the capacity it was bounded to.
    case capacityExceeded(_ what: String, required: Int, capacity: Int)

    /// The device has no room for an allocation of `byteCount` bytes.
    case outOfMemory(byteCount: Int, device: String)

    /// Ranks that work together were given different things: `rank` is the first that differs.
    case rankMismatch(_ argument: String, rank: Int, found: String, expected: String)

    /// A rank is gone, or was not there in time: `rank` is the one that was waited for.
    case rankFailure(rank: Int, call: String, message: String)

    /// A call into the device's driver or the operating system failed.
    case deviceFailure(call: String, message: String)
}

extension FlashInferError: CustomStringConvertible {
    /// The text shown to people.
    public var description: String {
        switch self {
        case .invalidArgument(let argument, let found, let expected):
            "\(argument) is \(found), but must be \(expected)"
        case .invalidRequest(let request, let argument, let found, let expected):
            "request \(request): \(argument) is \(found), but must be \(expected)"
        case .indptrNotMonotone(let argument, let request, let value, let next):
            "request \(request): \(argument) decreases from \(value) to \(next); an indptr is a running sum of lengths"
        case .pageOutOfRange(let request, let position, let page, let pageCount):
            "request \(request): page table entry \(position) is page \(page), but the cache has pages 0 ..< \(pageCount)"
        case .lastPageLengthOutOfRange(let request, let length, let pageSize):
            "request \(request): last-page length is \(length), but must be in 1 ... \(pageSize) (the page size)"
        case .headsNotDivisible(let queryHeads, let kvHeads):
            "\(queryHeads) query heads cannot share \(kvHeads) key/value heads; the first must be a positive multiple of the second"
        case .lengthMismatch(let argument, let found, let expected):
            "\(argument) has length \(found), but must have \(expected)"
        case .overflow(let argument):
            "\(argument) overflows; the sizes given cannot be addressed"
        case .unsupported(let feature, let device, let nearest):
            "\(device) has no kernel for \(feature); the nearest it has is \(nearest)"
        case .planMismatch(let what, let planned, let found):
            "the plan was made for \(what) \(planned), but is run with \(found); plan again for these inputs"
        case .capacityExceeded(let what, let required, let capacity):
            "\(what) needs \(required), but the plan's capacity is \(capacity); raise the capacity or send fewer requests"
        case .outOfMemory(let byteCount, let device):
            "\(device) has no room for \(byteCount) bytes"
        case .rankMismatch(let argument, let rank, let found, let expected):
            "rank \(rank): \(argument) is \(found), but must be \(expected)"
        case .rankFailure(let rank, let call, let message):
            "rank \(rank): \(call) failed: \(message)"
        case .deviceFailure(let call, let message):
            "\(call) failed: \(message)"
        }
    }
}
