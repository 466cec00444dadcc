package import CCUDA
package import FlashInferCore

/// Recorded work, ready to run again and again on the queue it was recorded on.
package final class CUDAGraph: DeviceGraph {
    /// Locked, as the driver lets one thread at a time launch an executable.
    private let executable: Locked<Executable>
    private let queue: CUDAQueue
    private let owner: (any AnyObject & Sendable)?

    /// CUgraphExec, owned.
    private struct Executable: ~Copyable, Sendable {
        let handle: fi_cu_graph_exec
        let context: CUDAContext

        init(_ graph: fi_cu_graph, in context: CUDAContext) throws(FlashInferError) {
            var handle: fi_cu_graph_exec = 0
            try context.call("cuGraphInstantiate") { $0.cuGraphInstantiate(&handle, graph, 0) }
            self.handle = handle
            self.context = context
        }

        deinit {
            let handle = handle
            context.release { $0.cuGraphExecDestroy(handle) }
        }
    }

    /// Makes a recorded graph ready to run; the graph itself is no longer needed then, but what owns its kernels is.
    package init(
        _ graph: fi_cu_graph, on queue: CUDAQueue, keeping owner: (any AnyObject & Sendable)?
    ) throws(FlashInferError) {
        executable = Locked(try Executable(graph, in: queue.context))
        self.queue = queue
        self.owner = owner
    }

    /// Enqueues all of the work: one call of the driver, whatever the number of kernels.
    ///
    /// Any thread may call; while another one captures on the same device, it waits.
    package func replay() throws(FlashInferError) {
        try queue.gate.inside { () throws(FlashInferError) in
            try executable.withLock { (executable) throws(FlashInferError) in
                let handle = executable.handle
                try queue.context.call("cuGraphLaunch") { $0.cuGraphLaunch(handle, queue.stream.handle) }
            }
        }
    }
}
