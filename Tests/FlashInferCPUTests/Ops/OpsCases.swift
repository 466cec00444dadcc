import FlashInferCPU
import FlashInferCore
import TestSupport
import Testing

/// The instruction sets to test: all that this machine has.
let instructionSets = InstructionSet.allCases.filter(\.isAvailable)

/// Operations with one instruction set's kernels, on two threads.
func makeOps(_ set: InstructionSet, threads: Int = 2) -> CPUOps {
    CPUOps(pool: ThreadPool(threads: threads), instructionSet: set)
}

/// Widths around every vector length, and odd ones.
let widths = [1, 7, 8, 64, 111, 576, 4096]

/// Types of two inputs and an output.
struct TypeCase: Sendable {
    var first: DType
    var second: DType
    var output: DType

    static let all: [TypeCase] = [
        TypeCase(first: .float32, second: .float32, output: .float32),
        TypeCase(first: .float16, second: .float16, output: .float16),
        TypeCase(first: .bfloat16, second: .bfloat16, output: .bfloat16),
        TypeCase(first: .bfloat16, second: .float32, output: .float16),
    ]
}

/// Calls `body` for every mix of types, widths and paddings.
func forEachCase(_ body: (_ types: TypeCase, _ width: Int, _ padding: Int) throws -> Void) rethrows {
    for types in TypeCase.all {
        for width in widths {
            for padding in [0, 3] { try body(types, width, padding) }
        }
    }
}
