internal import CFlashInferCPU
public import FlashInferCore

/// Planned attention on the CPU: flash-style online softmax over tiles (arXiv 2205.14135), on a thread pool.
///
/// Operations must have been validated. Each thread takes the items that the plan gave it, then helps the others; partial
/// states are merged in a fixed order afterwards, so a result depends on the plan alone and never on which thread ran what.
/// Memory is kept from run to run: after the first run of a given size, nothing is allocated.
public final class CPUAttention: @unchecked Sendable {
    // Unchecked because of the pointer to the kernel table, which is constant for the life of the process.

    /// The threads.
    public let pool: ThreadPool

    /// The instruction set whose kernels are used.
    public let instructionSet: InstructionSet

    let kernels: UnsafePointer<fi_attention_kernels>
    private let memory = Locked(AttentionMemory())

    /// Attention on `pool`, with the best kernels that this machine has.
    public convenience init(pool: ThreadPool) { self.init(pool: pool, isa: .detected) }

    /// Attention with the kernels of one instruction set.
    ///
    /// - Precondition: the machine and the build have it.
    public init(pool: ThreadPool, isa instructionSet: InstructionSet) {
        guard instructionSet.isAvailable, let table = fi_attention_table(instructionSet.cValue) else {
            preconditionFailure("\(instructionSet.name) is not available")
        }
        self.pool = pool
        self.instructionSet = instructionSet
        kernels = table
    }

    /// Runs a validated operation, and returns when it is done.
    ///
    /// - Complexity: about 4 · rows · keys · headDim floating-point operations; reads each visible key and value once per tile.
    public func execute(_ operation: AttentionOperation) {
        let plan = operation.plan
        if plan.size.itemCount == 0 { return }
        memory.withLock { memory in
            memory.prepare(operation, kernels.pointee, pool)
            let (scratch, cursors) = (memory.scratch, memory.cursors)
            memory.withRun(operation, kernels.pointee) { run in
                spread(plan.size.itemCount) { worker in run.work(worker, scratch[worker], cursors.items) }
                if let lists = plan.stateLists, plan.partialRowCount > 0 {
                    spread(lists.listCount) { worker in run.merge(lists, scratch[worker], cursors.merges) }
                }
                if plan.merges.isEmpty { return }
                spread(plan.merges.count) { worker in run.merge(scratch[worker], cursors.merges) }
            }
        }
    }

    /// On all threads, or on the caller's where there is nothing to share.
    private func spread(_ count: Int, _ body: (Int) -> Void) {
        if count == 1 { body(0) } else { pool.run(body) }
    }
}

/// What runs keep from one to the next.
private struct AttentionMemory: ~Copyable {
    var scratch: [AttentionScratch] = []
    let cursors = AttentionCursors()
    private var rope = AttentionRoPETable()
    /// Where each request's mask starts, in bytes.
    private var maskStarts: [Int] = []
    /// The slopes of the last run with ALiBi's own.
    private var slopes: [Float] = []
    /// The programs of the last run's variant, and what their parameters are loaded from.
    private var programs = VariantPrograms()
    private var programKey: (variant: AttentionVariant, hasRanges: Bool)?
    private var tables: [fi_expr_table] = []

    /// Makes room for a run.
    mutating func prepare(_ operation: AttentionOperation, _ kernels: fi_attention_kernels, _ pool: ThreadPool) {
        let (plan, problem) = (operation.plan, operation.plan.problem)
        while scratch.count < pool.threads { scratch.append(AttentionScratch()) }
        let size = AttentionScratchSize(plan)
        prepareProgram(problem)
        for each in scratch {
            each.reserve(size)
            each.reserve(programs, size)
        }
        cursors.reset(lists: plan.workerCount)
        if let parameters = problem.variant.rope { rope.prepare(parameters, problem, pool) }
        if problem.variant.form.readsSlopes, operation.alibiSlopes == nil,
            slopes.count != problem.shape.queryHeads
        {
            slopes = AttentionVariant.alibiSlopes(heads: problem.shape.queryHeads)
        }
        prepareMasks(problem)
        locateTables(operation)
    }

    /// Compiles what no kernel was written for, unless the last run's is the same.
    private mutating func prepareProgram(_ problem: AttentionProblem) {
        let hasRanges = problem.geometry.blocks.keyPositions == .sequential
        guard !problem.variant.form.isFused else {
            (programs, programKey) = (VariantPrograms(), nil)
            return
        }
        if let programKey, programKey.variant == problem.variant, programKey.hasRanges == hasRanges { return }
        programKey = (problem.variant, hasRanges)
        programs = VariantPrograms(problem.variant, hasRanges: hasRanges)
    }

    /// Where each of the programs' parameters lies.
    private mutating func locateTables(_ operation: AttentionOperation) {
        tables.removeAll(keepingCapacity: true)
        for parameter in programs.parameters {
            let view = parameter == .alibiSlopes ? operation.alibiSlopes : operation.parameters[parameter.name]
            var table = fi_expr_table(base: view?.pointer, rows: 1, columns: 1)
            if let view {
                table.columns = Int32(view.shape[-1])
                table.rows = Int32(view.rank == 2 ? view.shape[0] : 1)
            } else if parameter == .alibiSlopes {
                table.columns = Int32(slopes.count)
            }
            tables.append(table)
        }
    }

    private mutating func prepareMasks(_ problem: AttentionProblem) {
        maskStarts.removeAll(keepingCapacity: true)
        guard let mask = problem.variant.form.maskTensor else { return }
        let isPacked = mask.extent == .maskBits
        var sum = 0
        for request in 0..<problem.geometry.requestCount {
            maskStarts.append(sum)
            let elements = problem.geometry.queryLength(request) * problem.geometry.kvLength(request)
            sum += isPacked ? (elements + 7) / 8 : elements
        }
    }

    /// Calls `body` with the operation as plain pointers.
    func withRun(_ operation: AttentionOperation, _ kernels: fi_attention_kernels, _ body: (AttentionRun) -> Void) {
        let (plan, geometry) = (operation.plan, operation.plan.problem.geometry)
        plan.items.withUnsafeBufferPointer { items in
            plan.itemIndptr.withUnsafeBufferPointer { itemIndptr in
                plan.merges.withUnsafeBufferPointer { merges in
                    geometry.queryIndptr.withUnsafeBufferPointer { queryIndptr in
                        withTables(geometry.blocks, operation) { blocks in
                            slopes.withUnsafeBufferPointer { slopes in
                                maskStarts.withUnsafeBufferPointer { maskStarts in
                                    tables.withUnsafeBufferPointer { tables in
                                        body(
                                            AttentionRun(
                                                operation, kernels, items: items, itemIndptr: itemIndptr,
                                                merges: merges, queryIndptr: queryIndptr, blocks: blocks,
                                                slopes: slopes.baseAddress, maskStarts: maskStarts, rope: rope.rows,
                                                programs: programs, tables: tables))
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
    }

    private func withTables(_ table: KVBlockTable, _ operation: AttentionOperation, _ body: (KeyLocator) -> Void) {
        table.indptr.withUnsafeBufferPointer { indptr in
            table.indices.withUnsafeBufferPointer { indices in
                table.lengths.withUnsafeBufferPointer { lengths in
                    func entries(_ view: TensorView) -> UnsafeBufferPointer<Int32> {
                        let start = view.elements(as: Int32.self).map { UnsafePointer($0) }
                        return UnsafeBufferPointer(start: start, count: view.shape[0])
                    }
                    let indices = operation.pageIndices.map(entries) ?? indices
                    body(
                        KeyLocator(
                            blockSize: table.blockSize, indptr: indptr, indices: indices,
                            places: operation.pagePositions.map(entries) ?? indices, lengths: lengths,
                            headStride: table.headStride))
                }
            }
        }
    }
}
