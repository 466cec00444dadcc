internal import FlashInferCore

/// The specs of one family of kernels by a small number, each made when it is first asked for: a launch makes no strings.
final class SpecTable: Sendable {
    private let specs: Locked<[KernelSpec?]>

    /// A table for numbers below `count`.
    init(count: Int) { specs = Locked(Array(repeating: nil, count: count)) }

    /// The spec with a number, which `make` makes.
    func spec(_ number: Int, _ make: () -> KernelSpec) -> KernelSpec {
        specs.withLock { specs in
            if let spec = specs[number] { return spec }
            let spec = make()
            specs[number] = spec
            return spec
        }
    }
}
