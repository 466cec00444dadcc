internal import FlashInferCore

struct CPUAttention {
    init(pool: ThreadPool, isa: InstructionSet) {}
    func kernelTraits(for problem: AttentionProblem) throws(FlashInferError) -> KernelTraits {
        KernelTraits(
            tiles: [.init(maximumRows: 1, queryRows: 1, kvHeads: 1, fixedCost: 1, keyCost: 1, pairCost: 1)],
            kvGranularity: 1, minimumSplit: 1)
    }
    func execute(_ o: AttentionOperation) {}
}
