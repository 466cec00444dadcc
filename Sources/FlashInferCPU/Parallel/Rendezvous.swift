internal import CRanks
internal import FlashInferCore

/// How ranks find each other: rank 0 listens where everybody knows, gathers where the others listen, and tells all of them; then each
/// connects to those before it.
struct Rendezvous {
    private let environment: RankEnvironment
    private let deadline: Deadline
    /// A connection to every other rank; -1 for this one.
    private(set) var sockets: [Int32]

    /// "fi-ranks" and the version of what is said here.
    private static let magic: UInt64 = 0x6669_2d72_616e_6b73
    private static let version: UInt64 = 1
    /// Magic, version, rank, world size, port.
    private static let helloByteCount = 40
    /// Magic, what is wrong, rank, found.
    private static let answerByteCount = 32
    /// Address as text, port.
    private static let entryByteCount = 72

    /// What rank 0 answers.
    private enum Trouble: UInt64 {
        case none, worldSize, twice, missing, version
    }

    private var call: String { "rendezvous at \(environment.masterAddress):\(environment.masterPort)" }

    /// Meets the other ranks.
    ///
    /// - Throws: ``FlashInferError`` naming the variable or the rank; then nothing stays open.
    static func meet(_ environment: RankEnvironment, _ deadline: Deadline) throws(FlashInferError) -> [Int32] {
        var meeting = Rendezvous(
            environment: environment, deadline: deadline,
            sockets: [Int32](repeating: -1, count: environment.worldSize))
        do throws(FlashInferError) {
            if environment.rank == 0 { try meeting.lead() } else { try meeting.follow() }
        } catch {
            for socket in meeting.sockets where socket >= 0 { fi_socket_close(socket) }
            throw error
        }
        return meeting.sockets
    }

    // MARK: Rank 0

    private mutating func lead() throws(FlashInferError) {
        var bound: UInt16 = 0
        let listener = fi_socket_listen(environment.masterAddress, UInt16(environment.masterPort), &bound)
        guard listener >= 0 else {
            let reason = String(cString: fi_socket_error(listener))
            throw listener <= -1000
                ? .invalidArgument(
                    "MASTER_ADDR", found: "'\(environment.masterAddress)'",
                    expected: "a host's name or address (\(reason))")
                : .invalidArgument(
                    "MASTER_PORT", found: "\(environment.masterPort)",
                    expected: "a port that rank 0 can listen on (\(reason))")
        }
        defer { fi_socket_close(listener) }
        var places: [Int: UInt16] = [:]
        do throws(FlashInferError) {
            try gather(listener, expectsPort: true) { rank, port in places[rank] = port }
        } catch {
            tell(about: error)
            throw error
        }
        var table: [UInt8] = []
        for rank in 1..<environment.worldSize {
            var address = [CChar](repeating: 0, count: Self.entryByteCount - 8)
            let status = fi_socket_peer(sockets[rank], &address, address.count)
            guard status == 0 else {
                throw .rankFailure(rank: rank, call: call, message: String(cString: fi_socket_error(status)))
            }
            table += address.map { UInt8(bitPattern: $0) } + Wire([UInt64(places[rank]!)]).bytes
        }
        let answer = Wire([Self.magic, Trouble.none.rawValue, 0, 0]).bytes
        for rank in 1..<environment.worldSize {
            try SocketExchange.send(answer + table, to: rank, sockets[rank], call: call, deadline)
        }
    }

    /// Tells those who are here why there will be no meeting.
    private func tell(about error: FlashInferError) {
        let trouble: (Trouble, Int, Int)
        switch error {
        case .rankMismatch("WORLD_SIZE", let rank, let found, _): trouble = (.worldSize, rank, Int(found) ?? 0)
        case .rankMismatch("RANK", let rank, _, _): trouble = (.twice, rank, 0)
        case .rankMismatch(_, let rank, let found, _): trouble = (.version, rank, Int(found) ?? 0)
        case .rankFailure(let rank, _, _): trouble = (.missing, rank, 0)
        default: return
        }
        let answer = Wire([Self.magic, trouble.0.rawValue, UInt64(trouble.1), UInt64(trouble.2)]).bytes
        let soon = Deadline(after: .seconds(1))
        for rank in sockets.indices where sockets[rank] >= 0 {
            try? SocketExchange.send(answer, to: rank, sockets[rank], call: call, soon)
        }
    }

    // MARK: The others

    private mutating func follow() throws(FlashInferError) {
        let (own, worldSize) = (environment.rank, environment.worldSize)
        sockets[0] = try connect(environment.masterAddress, UInt16(environment.masterPort), rank: 0)
        var port: UInt16 = 0
        // Others reach this machine by the address that rank 0 sees it from.
        let listener = fi_socket_listen(environment.masterAddress, 0, &port)
        guard listener >= 0 else {
            throw .deviceFailure(call: "listening for ranks", message: String(cString: fi_socket_error(listener)))
        }
        defer { fi_socket_close(listener) }
        try SocketExchange.send(hello(port), to: 0, sockets[0], call: call, deadline)
        // Rank 0 knows who is missing, and says so at its own deadline.
        let answer = try SocketExchange.receive(
            Self.answerByteCount, from: 0, sockets[0], call: call, Deadline(after: .seconds(deadline.seconds + 2)))
        try check(answer)
        let table = try SocketExchange.receive(
            Self.entryByteCount * (worldSize - 1), from: 0, sockets[0], call: call, deadline)
        for rank in 1..<max(own, 1) {
            let entry = Array(table[Self.entryByteCount * (rank - 1)..<Self.entryByteCount * rank])
            let address = String(decoding: entry.prefix { $0 != 0 }, as: UTF8.self)
            let port = UInt16(truncatingIfNeeded: Wire.word(Self.entryByteCount / 8 - 1, of: entry))
            sockets[rank] = try connect(address, port, rank: rank)
            try SocketExchange.send(hello(0), to: rank, sockets[rank], call: call, deadline)
        }
        try gather(listener, expectsPort: false) { _, _ in }
    }

    private func hello(_ port: UInt16) -> [UInt8] {
        Wire([
            Self.magic, Self.version, UInt64(environment.rank), UInt64(environment.worldSize), UInt64(port),
        ]).bytes
    }

    private func check(_ answer: [UInt8]) throws(FlashInferError) {
        let (rank, found) = (Int(Wire.word(2, of: answer)), Int(Wire.word(3, of: answer)))
        guard Wire.word(0, of: answer) == Self.magic, let trouble = Trouble(rawValue: Wire.word(1, of: answer)) else {
            throw .invalidArgument(
                "MASTER_PORT", found: "\(environment.masterPort)",
                expected: "the port of rank 0; something else answers there")
        }
        switch trouble {
        case .none: return
        case .worldSize: throw worldSizeMismatch(rank, found)
        case .twice: throw rankTwice(rank)
        case .version: throw versionMismatch(rank, found)
        case .missing: throw .rankFailure(rank: rank, call: call, message: "rank 0 waited for it in vain")
        }
    }

    /// Connects, again and again while nobody listens yet.
    private func connect(_ host: String, _ port: UInt16, rank: Int) throws(FlashInferError) -> Int32 {
        while true {
            let socket = fi_socket_connect(host, port, max(deadline.milliseconds, 1))
            if socket >= 0 { return socket }
            let reason = String(cString: fi_socket_error(socket))
            if socket <= -1000 {
                throw .invalidArgument(
                    "MASTER_ADDR", found: "'\(host)'", expected: "a host's name or address (\(reason))")
            }
            if deadline.isOver {
                throw .rankFailure(
                    rank: rank, call: "connecting to \(host):\(port)", message: "\(reason), \(deadline.text)")
            }
            _ = fi_sockets_wait(nil, 0, min(50, deadline.milliseconds))
        }
    }

    // MARK: Arrivals

    private func worldSizeMismatch(_ rank: Int, _ found: Int) -> FlashInferError {
        .rankMismatch("WORLD_SIZE", rank: rank, found: "\(found)", expected: "as on rank 0")
    }

    private func rankTwice(_ rank: Int) -> FlashInferError {
        .rankMismatch("RANK", rank: rank, found: "that of two processes", expected: "another for each process")
    }

    private func versionMismatch(_ rank: Int, _ found: Int) -> FlashInferError {
        .rankMismatch("version", rank: rank, found: "\(found)", expected: "\(Self.version), as on rank 0")
    }

    /// Who has connected and not yet said which rank it is.
    private struct Arrival {
        var socket: Int32
        var bytes: [UInt8] = []
    }

    /// Accepts every rank that is after this one; connections that are no rank's are closed.
    private mutating func gather(
        _ listener: Int32, expectsPort: Bool, _ found: (Int, UInt16) -> Void
    ) throws(FlashInferError) {
        var arrivals: [Arrival] = []
        defer { for arrival in arrivals where arrival.socket >= 0 { fi_socket_close(arrival.socket) } }
        while let missing = sockets.indices.first(where: { $0 > environment.rank && sockets[$0] < 0 }) {
            var waits = [fi_socket_wait(socket: listener, events: 1)]
            waits += arrivals.map { fi_socket_wait(socket: $0.socket, events: 1) }
            let ready = fi_sockets_wait(&waits, waits.count, deadline.milliseconds)
            if ready < 0 { throw .deviceFailure(call: call, message: String(cString: fi_socket_error(ready))) }
            if ready == 0, deadline.isOver {
                let here = sockets.count { $0 >= 0 } + 1
                throw .rankFailure(
                    rank: missing, call: call,
                    message: "it did not come \(deadline.text); \(here) of \(environment.worldSize) ranks are here")
            }
            for index in arrivals.indices.reversed() where waits[index + 1].events & 1 != 0 {
                guard try hasArrived(&arrivals[index], found) else { continue }
                arrivals.remove(at: index)
            }
            if waits[0].events & 1 != 0 {
                let socket = fi_socket_accept(listener)
                if socket >= 0 { arrivals.append(Arrival(socket: socket)) }
            }
        }
    }

    /// Reads what somebody says.
    ///
    /// - Returns: whether the arrival is dealt with.
    private mutating func hasArrived(
        _ arrival: inout Arrival, _ found: (Int, UInt16) -> Void
    ) throws(FlashInferError) -> Bool {
        var piece = [UInt8](repeating: 0, count: Self.helloByteCount - arrival.bytes.count)
        let count = fi_socket_receive(arrival.socket, &piece, piece.count)
        guard count > 0 else {
            // Closed, or nothing yet after all.
            if count == Int(FI_SOCKET_LATER) { return false }
            fi_socket_close(arrival.socket)
            return true
        }
        arrival.bytes += piece[..<count]
        guard arrival.bytes.count == Self.helloByteCount else { return false }
        let words = (0..<5).map { Wire.word($0, of: arrival.bytes) }
        guard words[0] == Self.magic, words[2] < UInt64(Int32.max), words[3] < UInt64(Int32.max) else {
            fi_socket_close(arrival.socket)
            return true
        }
        let (rank, worldSize) = (Int(words[2]), Int(words[3]))
        let isKnown = rank < environment.worldSize && rank > environment.rank && sockets[rank] < 0
        // Kept even where something is wrong, if there is a place, so that it is told.
        let socket = arrival.socket
        arrival.socket = -1
        if isKnown { sockets[rank] = socket }
        var trouble: FlashInferError?
        if words[1] != Self.version {
            trouble = versionMismatch(rank, Int(truncatingIfNeeded: words[1]))
        } else if worldSize != environment.worldSize {
            trouble = .rankMismatch(
                "WORLD_SIZE", rank: rank, found: "\(worldSize)",
                expected: "\(environment.worldSize), as on rank \(environment.rank)")
        } else if !isKnown {
            trouble = rankTwice(rank)
        }
        if let trouble {
            if !isKnown {
                let code: Trouble = worldSize != environment.worldSize ? .worldSize : .twice
                let answer = Wire([Self.magic, code.rawValue, UInt64(rank), UInt64(worldSize)]).bytes
                try? SocketExchange.send(answer, to: rank, socket, call: call, Deadline(after: .seconds(1)))
                fi_socket_close(socket)
            }
            throw trouble
        }
        found(rank, UInt16(truncatingIfNeeded: words[4]))
        return true
    }
}
