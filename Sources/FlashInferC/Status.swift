// swift-format-ignore-file: AlwaysUseLowerCamelCase
// The functions of this file have the header's names.

public import CFlashInfer
internal import FlashInferCore

/// A struct of options whose size the library does not know.
struct ABIMismatch: Error {
    let message: String
}

/// Runs the body of a function of the ABI: what it throws becomes a status, and the thread's last message.
@inline(__always)
func perform(_ body: () throws -> Void) -> fi_status {
    do {
        try body()
        return fi_status(FI_OK)
    } catch {
        return report(error)
    }
}

@inline(never)
private func report(_ error: any Error) -> fi_status {
    switch error {
    case let error as FlashInferError:
        keep(error.description)
        return error.status
    case let error as ABIMismatch:
        keep(error.message)
        return fi_status(FI_ABI_MISMATCH)
    default:
        keep("\(error)")
        return fi_status(FI_DEVICE_FAILURE)
    }
}

/// Makes `message` the thread's last.
private func keep(_ message: String) {
    var message = message
    message.withUTF8 { utf8 in
        utf8.withMemoryRebound(to: CChar.self) { fi_set_last_error_text($0.baseAddress, $0.count) }
    }
}

extension FlashInferError {
    /// The kind of the error in the header's numbers.
    var status: fi_status {
        let status =
            switch self {
            case .invalidArgument: FI_INVALID_ARGUMENT
            case .invalidRequest: FI_INVALID_REQUEST
            case .indptrNotMonotone: FI_INDPTR_NOT_MONOTONE
            case .pageOutOfRange: FI_PAGE_OUT_OF_RANGE
            case .lastPageLengthOutOfRange: FI_LAST_PAGE_LENGTH_OUT_OF_RANGE
            case .headsNotDivisible: FI_HEADS_NOT_DIVISIBLE
            case .lengthMismatch: FI_LENGTH_MISMATCH
            case .overflow: FI_OVERFLOW
            case .unsupported: FI_UNSUPPORTED
            case .planMismatch: FI_PLAN_MISMATCH
            case .capacityExceeded: FI_CAPACITY_EXCEEDED
            case .outOfMemory: FI_OUT_OF_MEMORY
            case .rankMismatch: FI_RANK_MISMATCH
            case .rankFailure: FI_RANK_FAILURE
            case .deviceFailure: FI_DEVICE_FAILURE
            }
        return fi_status(status)
    }
}

/// What was wrong in this thread's last call that failed.
@c @implementation
public func fi_last_error_message() -> UnsafePointer<CChar>? { fi_last_error_text() }

/// The name of a status.
@c @implementation
public func fi_status_name(_ status: fi_status) -> UnsafePointer<CChar>? {
    let name: StaticString =
        switch Int(status) {
        case FI_OK: "FI_OK"
        case FI_INVALID_ARGUMENT: "FI_INVALID_ARGUMENT"
        case FI_INVALID_REQUEST: "FI_INVALID_REQUEST"
        case FI_INDPTR_NOT_MONOTONE: "FI_INDPTR_NOT_MONOTONE"
        case FI_PAGE_OUT_OF_RANGE: "FI_PAGE_OUT_OF_RANGE"
        case FI_LAST_PAGE_LENGTH_OUT_OF_RANGE: "FI_LAST_PAGE_LENGTH_OUT_OF_RANGE"
        case FI_HEADS_NOT_DIVISIBLE: "FI_HEADS_NOT_DIVISIBLE"
        case FI_LENGTH_MISMATCH: "FI_LENGTH_MISMATCH"
        case FI_OVERFLOW: "FI_OVERFLOW"
        case FI_UNSUPPORTED: "FI_UNSUPPORTED"
        case FI_PLAN_MISMATCH: "FI_PLAN_MISMATCH"
        case FI_CAPACITY_EXCEEDED: "FI_CAPACITY_EXCEEDED"
        case FI_OUT_OF_MEMORY: "FI_OUT_OF_MEMORY"
        case FI_DEVICE_FAILURE: "FI_DEVICE_FAILURE"
        case FI_RANK_MISMATCH: "FI_RANK_MISMATCH"
        case FI_RANK_FAILURE: "FI_RANK_FAILURE"
        case FI_ABI_MISMATCH: "FI_ABI_MISMATCH"
        default: "unknown"
        }
    return name.cString
}
