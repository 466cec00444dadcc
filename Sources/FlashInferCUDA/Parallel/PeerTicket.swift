/// What a rank tells the others of its window of peer memory.
package struct PeerTicket: Sendable, Equatable {
    /// Bytes of what names memory to other processes.
    package static let handleByteCount = 64

    /// The machine, as long as it is up; empty where it cannot be told.
    package var machine: [UInt8]
    /// The process: no other has the same two numbers.
    package var process: [UInt64]
    /// The GPU's number in its process.
    package var ordinal: Int
    /// Where the window lies in its process; 0 where the rank has none.
    package var address: UInt
    /// Its name for other processes; empty where the system has none.
    package var handle: [UInt8]

    /// A ticket of these parts.
    package init(machine: [UInt8], process: [UInt64], ordinal: Int, address: UInt, handle: [UInt8]) {
        (self.machine, self.process, self.ordinal) = (machine, process, ordinal)
        (self.address, self.handle) = (address, handle)
    }

    /// As a message: numbers of 8 bytes, lowest first, then handle and machine.
    package var message: [UInt8] {
        var bytes: [UInt8] = []
        for number in process + [UInt64(ordinal), UInt64(address), UInt64(handle.count)] {
            for index in UInt64(0)..<8 { bytes.append(UInt8(truncatingIfNeeded: number >> (8 * index))) }
        }
        return bytes + handle + machine
    }

    /// What a rank has sent; `nil` where it is no ticket.
    package init?(message: [UInt8]) {
        guard message.count >= 40 else { return nil }
        var numbers: [UInt64] = []
        for start in stride(from: 0, to: 40, by: 8) {
            var number: UInt64 = 0
            for byte in message[start..<start + 8].reversed() { number = number << 8 | UInt64(byte) }
            numbers.append(number)
        }
        let rest = message[40...]
        guard let ordinal = Int(exactly: numbers[2]), let address = UInt(exactly: numbers[3]),
            numbers[4] == 0 || numbers[4] == UInt64(Self.handleByteCount), rest.count >= Int(numbers[4])
        else { return nil }
        let count = Int(numbers[4])
        self.init(
            machine: Array(rest.dropFirst(count)), process: Array(numbers[0..<2]), ordinal: ordinal, address: address,
            handle: Array(rest.prefix(count)))
    }

    /// How another rank reaches the window.
    package enum Way: Equatable {
        /// By its address, once the GPU may reach that one's memory.
        case sameProcess
        /// By its name.
        case sameMachine
        /// Not at all, and why.
        case none(String)
    }

    /// How the rank of `other` reaches this one's window.
    package func way(from other: PeerTicket) -> Way {
        if address == 0 { return .none("it has no window") }
        if process == other.process { return .sameProcess }
        if machine.isEmpty || machine != other.machine { return .none("it is on another machine") }
        return handle.isEmpty ? .none("its memory has no name for other processes") : .sameMachine
    }
}
