internal import CRanks
internal import FlashInferCore

/// Bytes to and from one rank.
struct SocketJob {
    var rank: Int
    var socket: Int32
    /// What is left to send.
    var outgoing: UnsafeRawBufferPointer
    /// What is left to receive.
    var incoming: UnsafeMutableRawBufferPointer

    var isDone: Bool { outgoing.isEmpty && incoming.isEmpty }
}

enum SocketExchange {
    /// Sends and receives side by side until all is done.
    ///
    /// - Throws: ``FlashInferError/rankFailure(rank:call:message:)`` for a rank that is gone, or late at the deadline.
    static func run(_ jobs: [SocketJob], call: String, _ deadline: Deadline) throws(FlashInferError) {
        var jobs = jobs
        while true {
            let open = jobs.indices.filter { !jobs[$0].isDone }
            guard let first = open.first else { return }
            var waits = open.map {
                fi_socket_wait(
                    socket: jobs[$0].socket,
                    events: (jobs[$0].incoming.isEmpty ? 0 : 1) | (jobs[$0].outgoing.isEmpty ? 0 : 2))
            }
            let ready = fi_sockets_wait(&waits, waits.count, deadline.milliseconds)
            if ready < 0 {
                throw .deviceFailure(call: call, message: String(cString: fi_socket_error(ready)))
            }
            if ready == 0, deadline.isOver {
                throw .rankFailure(
                    rank: jobs[first].rank, call: call,
                    message: "nothing came \(deadline.text); it is slow, has stopped, or makes other calls")
            }
            for (wait, index) in zip(waits, open) {
                if wait.events & 1 != 0, !jobs[index].incoming.isEmpty { try receive(&jobs[index], call) }
                if wait.events & 2 != 0, !jobs[index].outgoing.isEmpty { try send(&jobs[index], call) }
            }
        }
    }

    private static func receive(_ job: inout SocketJob, _ call: String) throws(FlashInferError) {
        let count = fi_socket_receive(job.socket, job.incoming.baseAddress!, job.incoming.count)
        if count > 0 {
            job.incoming = UnsafeMutableRawBufferPointer(rebasing: job.incoming[count...])
        } else if count == 0 {
            throw .rankFailure(
                rank: job.rank, call: call, message: "it has closed its connection: it has ended or failed")
        } else if count != Int(FI_SOCKET_LATER) {
            throw failure(job.rank, call, count)
        }
    }

    private static func send(_ job: inout SocketJob, _ call: String) throws(FlashInferError) {
        let count = fi_socket_send(job.socket, job.outgoing.baseAddress!, job.outgoing.count)
        if count >= 0 {
            job.outgoing = UnsafeRawBufferPointer(rebasing: job.outgoing[count...])
        } else if count != Int(FI_SOCKET_LATER) {
            throw failure(job.rank, call, count)
        }
    }

    private static func failure(_ rank: Int, _ call: String, _ status: Int) -> FlashInferError {
        .rankFailure(
            rank: rank, call: call,
            message:
                "its connection is lost (\(String(cString: fi_socket_error(Int32(status))))): it has ended or failed")
    }

    /// Whether a rank has closed its connection, or lost it; takes what is there, so only for connections that are given up.
    static func isGone(_ socket: Int32) -> Bool {
        withUnsafeTemporaryAllocation(byteCount: 1 << 16, alignment: 1) { bytes in
            // Whoever sends a whole collective's worth without an end is there.
            for _ in 0..<64 {
                let count = fi_socket_receive(socket, bytes.baseAddress!, bytes.count)
                if count <= 0 { return count != Int(FI_SOCKET_LATER) }
            }
            return false
        }
    }

    /// Sends bytes to one rank.
    static func send(
        _ bytes: [UInt8], to rank: Int, _ socket: Int32, call: String, _ deadline: Deadline
    ) throws(FlashInferError) {
        let result: Result<Void, FlashInferError> = bytes.withUnsafeBytes { bytes in
            Result { () throws(FlashInferError) in
                try run(
                    [SocketJob(rank: rank, socket: socket, outgoing: bytes, incoming: .init(start: nil, count: 0))],
                    call: call, deadline)
            }
        }
        try result.get()
    }

    /// Receives bytes from one rank.
    static func receive(
        _ count: Int, from rank: Int, _ socket: Int32, call: String, _ deadline: Deadline
    ) throws(FlashInferError) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: count)
        let result: Result<Void, FlashInferError> = bytes.withUnsafeMutableBytes { bytes in
            Result { () throws(FlashInferError) in
                try run(
                    [SocketJob(rank: rank, socket: socket, outgoing: .init(start: nil, count: 0), incoming: bytes)],
                    call: call, deadline)
            }
        }
        try result.get()
        return bytes
    }
}
