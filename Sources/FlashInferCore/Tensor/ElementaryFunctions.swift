#if canImport(Glibc)
    internal import Glibc
#elseif canImport(Musl)
    internal import Musl
#elseif canImport(Darwin)
    internal import Darwin
#endif

/// The C library's mathematics, in one place, so that nothing here needs Foundation.
package enum ElementaryFunctions {
    /// `base` to the power `exponent`.
    package static func pow(_ base: Double, _ exponent: Double) -> Double { _pow(base, exponent) }

    /// The sine of `angle`, in radians, accurate for large angles.
    package static func sin(_ angle: Double) -> Double { _sin(angle) }

    /// The cosine of `angle`, in radians, accurate for large angles.
    package static func cos(_ angle: Double) -> Double { _cos(angle) }

    /// e to the power `value`.
    package static func exp(_ value: Double) -> Double { _exp(value) }

    /// The natural logarithm of `value`.
    package static func log(_ value: Double) -> Double { _log(value) }

    /// The base-2 logarithm of `value`.
    package static func log2(_ value: Double) -> Double { _log2(value) }

    /// The hyperbolic tangent of `value`.
    package static func tanh(_ value: Double) -> Double { _tanh(value) }

    /// The error function of `value`.
    package static func erf(_ value: Double) -> Double { _erf(value) }
}

// Free functions of the same names are shadowed inside the enum, so they are bound here.
private func _pow(_ base: Double, _ exponent: Double) -> Double { pow(base, exponent) }
private func _sin(_ angle: Double) -> Double { sin(angle) }
private func _cos(_ angle: Double) -> Double { cos(angle) }
private func _exp(_ value: Double) -> Double { exp(value) }
private func _log(_ value: Double) -> Double { log(value) }
private func _log2(_ value: Double) -> Double { log2(value) }
private func _tanh(_ value: Double) -> Double { tanh(value) }
private func _erf(_ value: Double) -> Double { erf(value) }
