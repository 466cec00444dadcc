/// The specialisations that ship: those that `flashinfer compile` makes.
package enum KernelCatalogue {
    /// Each family of kernels' `shipped()`, one a line.
    private static let families: [@Sendable () -> [KernelSpec]] = []

    /// Those of every family, each in its order.
    package static var shipped: [KernelSpec] { families.flatMap { $0() } }
}
