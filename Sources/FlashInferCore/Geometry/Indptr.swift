/// Checks on index pointer arrays.
enum Indptr {
    /// Throws unless `values` starts at 0, never decreases, and has one entry more than there are requests.
    static func validate(_ values: [Int32], _ argument: String, requests: Int? = nil) throws(FlashInferError) {
        guard let first = values.first else {
            throw .lengthMismatch(argument, found: 0, expected: (requests ?? 0) + 1)
        }
        if let requests, values.count != requests + 1 {
            throw .lengthMismatch(argument, found: values.count, expected: requests + 1)
        }
        guard first == 0 else {
            throw .invalidArgument("\(argument)[0]", found: "\(first)", expected: "0")
        }
        var previous = first
        for index in values.indices.dropFirst() {
            let next = values[index]
            if next < previous {
                throw .indptrNotMonotone(argument, request: index - 1, value: Int(previous), next: Int(next))
            }
            previous = next
        }
    }

    /// The running sum of `lengths`, from 0.
    ///
    /// - Throws: ``FlashInferError/overflow(_:)`` past 2³¹ − 1, ``FlashInferError/invalidRequest(_:argument:found:expected:)`` for a
    ///   negative length.
    static func runningSum(_ lengths: [Int], _ argument: String) throws(FlashInferError) -> [Int32] {
        var sums: [Int32] = [0]
        sums.reserveCapacity(lengths.count + 1)
        var sum = 0
        for (request, length) in lengths.enumerated() {
            guard length >= 0 else {
                throw .invalidRequest(request, argument: argument, found: length, expected: "0 or more")
            }
            let (next, overflow) = sum.addingReportingOverflow(length)
            guard !overflow, let narrow = Int32(exactly: next) else { throw .overflow(argument) }
            sum = next
            sums.append(narrow)
        }
        return sums
    }
}
