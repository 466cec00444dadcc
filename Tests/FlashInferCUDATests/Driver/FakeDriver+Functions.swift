import CCUDA
import Foundation

extension FakeDriver {
    /// The fake's functions as the driver's table.
    static func table() -> fi_driver_table {
        var table = fi_driver_table()
        addDevices(&table)
        addMemory(&table)
        addStreams(&table)
        addGraphs(&table)
        addModules(&table)
        return table
    }

    private static func addDevices(_ table: inout fi_driver_table) {
        table.cuInit = { _ in fakeCall("cuInit") }
        table.cuDriverGetVersion = { version in
            fakeCall("cuDriverGetVersion") { state in
                version.pointee = state.version
                return 0
            }
        }
        table.cuGetErrorName = { status, name in
            name.pointee = UnsafePointer(strdup(status == 700 ? "CUDA_ERROR_ILLEGAL_ADDRESS" : "CUDA_ERROR_FAKE"))
            return 0
        }
        table.cuGetErrorString = { status, text in
            text.pointee = UnsafePointer(strdup(status == 1 ? "invalid argument" : "words for \(status)"))
            return 0
        }
        table.cuDeviceGetCount = { count in
            fakeCall("cuDeviceGetCount") { state in
                count.pointee = state.deviceCount
                return state.deviceCount == 0 ? 100 : 0
            }
        }
        table.cuDeviceGet = { device, ordinal in
            device.pointee = ordinal
            return fakeCall("cuDeviceGet")
        }
        table.cuDeviceGetName = { name, capacity, _ in
            strncpy(name, "Fake GPU", Int(capacity))
            return fakeCall("cuDeviceGetName")
        }
        table.cuDeviceTotalMem = { bytes, _ in
            bytes.pointee = 1 << 36
            return fakeCall("cuDeviceTotalMem")
        }
        table.cuDeviceGetAttribute = { value, attribute, _ in
            fakeCall("cuDeviceGetAttribute") { state in
                switch Int(attribute) {
                case FI_CU_ATTRIBUTE_MAJOR: value.pointee = state.capability.0
                case FI_CU_ATTRIBUTE_MINOR: value.pointee = state.capability.1
                case FI_CU_ATTRIBUTE_PROCESSORS: value.pointee = 132
                case FI_CU_ATTRIBUTE_L2_BYTES: value.pointee = 50 << 20
                case FI_CU_ATTRIBUTE_SHARED_BYTES_PER_BLOCK_OPT_IN: value.pointee = 232_448
                case FI_CU_ATTRIBUTE_SHARED_BYTES_PER_PROCESSOR: value.pointee = 233_472
                case FI_CU_ATTRIBUTE_REGISTERS_PER_PROCESSOR: value.pointee = 65536
                case FI_CU_ATTRIBUTE_MEMORY_POOLS: value.pointee = 1
                default: return 1
                }
                return 0
            }
        }
        table.cuDevicePrimaryCtxRetain = { context, _ in
            fakeCall("cuDevicePrimaryCtxRetain") { state in
                context.pointee = FakeDriver.context
                state.live["context", default: []].insert(FakeDriver.context)
                return 0
            }
        }
        table.cuDevicePrimaryCtxRelease = { _ in
            fakeCall("cuDevicePrimaryCtxRelease") { $0.destroy("context", FakeDriver.context) }
        }
        table.cuCtxGetCurrent = { context in
            fakeCall("cuCtxGetCurrent") { state in
                context.pointee = state.currentContext
                return 0
            }
        }
        table.cuCtxPushCurrent = { context in
            fakeCall("cuCtxPushCurrent") { state in
                state.push(context)
                return 0
            }
        }
        table.cuCtxPopCurrent = { _ in fakeCall("cuCtxPopCurrent") { $0.pop() } }
        table.cuMemGetInfo = { free, total in
            free.pointee = 1 << 30
            total.pointee = 1 << 36
            return fakeCall("cuMemGetInfo") { $0.requireContext() }
        }
    }

    private static func addMemory(_ table: inout fi_driver_table) {
        table.cuMemAlloc = { address, bytes in fakeCall("cuMemAlloc") { $0.allocate(bytes, address) } }
        table.cuMemFree = { address in fakeCall("cuMemFree") { $0.enqueue(.free(address)) } }
        table.cuMemPoolCreate = { pool, properties in
            let location = properties.pointee.location_type
            return fakeCall("cuMemPoolCreate") { state in
                if state.isCaptureUnsafe { return 900 }
                return location == 1 ? state.make("pool", pool) : 1
            }
        }
        table.cuMemPoolDestroy = { pool in fakeCall("cuMemPoolDestroy") { $0.destroy("pool", pool) } }
        table.cuMemPoolSetAttribute = { _, _, _ in fakeCall("cuMemPoolSetAttribute") }
        table.cuMemPoolGetAttribute = { _, _, value in
            fakeCall("cuMemPoolGetAttribute") { state in
                value.storeBytes(of: UInt64(state.deviceBytes.values.reduce(0, +)), as: UInt64.self)
                return 0
            }
        }
        table.cuMemPoolTrimTo = { _, _ in fakeCall("cuMemPoolTrimTo") }
        table.cuMemAllocFromPoolAsync = { address, bytes, _, _ in
            fakeCall("cuMemAllocFromPoolAsync") { state in
                let status = state.requireContext()
                return status == 0 ? state.allocate(bytes, address) : status
            }
        }
        table.cuMemFreeAsync = { address, _ in fakeCall("cuMemFreeAsync") { $0.enqueue(.free(address)) } }
        table.cuMemHostAlloc = { memory, bytes, _ in
            fakeCall("cuMemHostAlloc") { state in
                if state.isCaptureUnsafe { return 900 }
                let pointer = malloc(bytes)!
                memory.pointee = pointer
                state.live["pinned", default: []].insert(UInt(bitPattern: pointer))
                return state.requireContext()
            }
        }
        table.cuMemFreeHost = { memory in
            fakeCall("cuMemFreeHost") { state in
                free(memory)
                return state.destroy("pinned", UInt(bitPattern: memory))
            }
        }
        table.cuMemcpyHtoDAsync = { address, source, bytes, _ in
            fakeCall("cuMemcpyHtoDAsync") { $0.enqueue(.copy(from: source, to: address, byteCount: bytes)) }
        }
        table.cuMemcpyDtoHAsync = { destination, address, bytes, _ in
            fakeCall("cuMemcpyDtoHAsync") { state in
                state.runAll()
                destination.copyMemory(from: UnsafeRawPointer(bitPattern: UInt(address))!, byteCount: bytes)
                return 0
            }
        }
        table.cuMemsetD8Async = { address, byte, bytes, _ in
            fakeCall("cuMemsetD8Async") { $0.enqueue(.set(address, byte, bytes)) }
        }
    }

    private static func addStreams(_ table: inout fi_driver_table) {
        table.cuStreamCreate = { stream, _ in fakeCall("cuStreamCreate") { $0.make("stream", stream) } }
        table.cuStreamDestroy = { stream in
            fakeCall("cuStreamDestroy") { state in
                state.runAll()
                return state.destroy("stream", stream)
            }
        }
        table.cuStreamGetCtx = { _, context in
            fakeCall("cuStreamGetCtx") { state in
                context.pointee = state.streamContext ?? FakeDriver.context
                return 0
            }
        }
        table.cuStreamSynchronize = { _ in
            fakeCall("cuStreamSynchronize") { state in
                state.runAll()
                return state.requireContext()
            }
        }
        table.cuStreamIsCapturing = { _, status in
            fakeCall("cuStreamIsCapturing") { state in
                status.pointee = state.capture == nil ? 0 : 1
                return 0
            }
        }
        table.cuEventCreate = { event, _ in fakeCall("cuEventCreate") { $0.make("event", event) } }
        table.cuEventDestroy = { event in fakeCall("cuEventDestroy") { $0.destroy("event", event) } }
        table.cuEventRecord = { event, _ in
            fakeCall("cuEventRecord") { state in
                state.passedEvents.remove(event)
                state.recordedEvents.insert(event)
                return state.enqueue(.event(event))
            }
        }
        table.cuEventQuery = { event in
            fakeCall("cuEventQuery") { state in
                if state.isCaptureUnsafe { return 900 }
                return state.recordedEvents.contains(event) && !state.passedEvents.contains(event) ? 600 : 0
            }
        }
        table.cuEventSynchronize = { event in
            fakeCall("cuEventSynchronize") { state in
                if !state.passedEvents.contains(event) { state.runAll(until: event) }
                return 0
            }
        }
        table.cuEventElapsedTime = { time, _, _ in
            time.pointee = 1
            return fakeCall("cuEventElapsedTime")
        }
    }

    private static func addGraphs(_ table: inout fi_driver_table) {
        table.cuStreamBeginCapture = { _, mode in
            fakeCall("cuStreamBeginCapture") { state in
                guard state.capture == nil, mode == 1 else { return 901 }
                state.capture = []
                return 0
            }
        }
        table.cuStreamEndCapture = { _, graph in
            fakeCall("cuStreamEndCapture") { state in
                guard let work = state.capture else { return 901 }
                state.capture = nil
                let status = state.make("graph", graph)
                state.graphs[graph.pointee] = work
                return status
            }
        }
        table.cuThreadExchangeStreamCaptureMode = { mode in
            fakeCall("cuThreadExchangeStreamCaptureMode") { state in
                swap(&mode.pointee, &state.captureMode)
                return 0
            }
        }
        table.cuGraphInstantiate = { executable, graph, _ in
            fakeCall("cuGraphInstantiate") { state in
                let status = state.make("executable", executable)
                state.graphs[executable.pointee] = state.graphs[graph]
                return status
            }
        }
        table.cuGraphLaunch = { executable, _ in fakeCall("cuGraphLaunch") { $0.enqueue(.graph(executable)) } }
        table.cuGraphDestroy = { graph in fakeCall("cuGraphDestroy") { $0.destroy("graph", graph) } }
        table.cuGraphExecDestroy = { executable in
            fakeCall("cuGraphExecDestroy") { $0.destroy("executable", executable) }
        }
    }

    private static func addModules(_ table: inout fi_driver_table) {
        table.cuModuleLoadData = { module, _ in
            fakeCall("cuModuleLoadData") { state in
                if state.isCaptureUnsafe { return 900 }
                state.imageCount += 1
                let status = state.requireContext()
                return status == 0 ? state.make("module", module) : status
            }
        }
        table.cuModuleUnload = { module in fakeCall("cuModuleUnload") { $0.destroy("module", module) } }
        table.cuModuleGetFunction = { function, module, _ in
            fakeCall("cuModuleGetFunction") { _ in
                function.pointee = module
                return 0
            }
        }
        table.cuFuncGetAttribute = { value, attribute, _ in
            value.pointee = Int(attribute) == FI_CU_FUNCTION_SHARED_BYTES ? 1024 : 40
            return fakeCall("cuFuncGetAttribute")
        }
        table.cuFuncSetAttribute = { _, _, _ in fakeCall("cuFuncSetAttribute") }
        table.cuFuncGetParamInfo = { _, index, offset, bytes in
            fakeCall("cuFuncGetParamInfo") { state in
                offset.pointee = 0
                bytes.pointee = state.parameterByteCount
                return index == 0 ? 0 : 1
            }
        }
        table.cuOccupancyMaxActiveBlocksPerMultiprocessor = { blocks, _, _, _ in
            blocks.pointee = 2
            return fakeCall("cuOccupancyMaxActiveBlocksPerMultiprocessor")
        }
        table.cuTensorMapEncodeTiled = { map, _, rank, address, extents, strides, box, _, _, _, _, _ in
            fakeCall("cuTensorMapEncodeTiled") { state in
                // What the driver checks of them: alignment, and that nothing is empty.
                let rank = Int(rank)
                guard UInt(bitPattern: map) & 63 == 0, 1...5 ~= rank, UInt(bitPattern: address) & 15 == 0,
                    (0..<rank).allSatisfy({ extents[$0] > 0 && box[$0] > 0 && box[$0] <= 256 }),
                    (0..<rank - 1).allSatisfy({ strides[$0] & 15 == 0 && strides[$0] < 1 << 40 })
                else { return 1 }
                memset(map, 0, 128)
                state.maps.append(
                    FakeDriver.Map(
                        extents: (0..<rank).map { extents[$0] }, strides: (0..<rank - 1).map { strides[$0] },
                        box: (0..<rank).map { box[$0] }))
                return state.requireContext()
            }
        }
        table.cuLaunchKernelEx = { config, function, parameters, _ in
            let config = config.pointee
            let attributes = UnsafeBufferPointer(start: config.attributes, count: Int(config.attribute_count))
            return fakeCall("cuLaunchKernelEx") { state in
                guard config.block_y == 1, config.block_z == 1, let parameter = parameters[0] else { return 1 }
                let bytes = UnsafeRawBufferPointer(
                    start: parameter,
                    count: state.parameterByteCounts[config.block_x] ?? state.parameterByteCount)
                let status = state.requireContext()
                guard status == 0 else { return status }
                return state.enqueue(
                    .launch(
                        FakeDriver.Launch(
                            function: function, grid: [config.grid_x, config.grid_y, config.grid_z],
                            threads: config.block_x, sharedByteCount: config.shared_bytes, stream: config.stream,
                            parameter: Array(bytes),
                            startsEarly: attributes.contains {
                                $0.id == Int32(FI_CU_LAUNCH_PROGRAMMATIC_STREAM_SERIALIZATION) && $0.value == 1
                            })))
            }
        }
        table.cuLaunchKernel = { function, gx, gy, gz, bx, by, bz, shared, stream, parameters, _ in
            fakeCall("cuLaunchKernel") { state in
                guard by == 1, bz == 1, let parameter = parameters[0] else { return 1 }
                let bytes = UnsafeRawBufferPointer(start: parameter, count: state.parameterByteCount)
                let status = state.requireContext()
                guard status == 0 else { return status }
                return state.enqueue(
                    .launch(
                        FakeDriver.Launch(
                            function: function, grid: [gx, gy, gz], threads: bx, sharedByteCount: shared,
                            stream: stream, parameter: Array(bytes))))
            }
        }
    }
}
