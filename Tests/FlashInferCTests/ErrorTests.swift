import CFlashInfer
import FlashInfer
import FlashInferCore
import TestSupport
import Testing

/// Every kind of error, told in words; what a caller gets wrong never traps.
@Suite struct ErrorTests {
    let device: CDevice

    init() throws { device = try .cpu() }

    private func tensor(_ dtype: DType = .float32, _ shape: [Int] = [2, 4, 16]) throws -> UnsafeMutablePointer<
        fi_tensor
    > {
        try OpsTensor(dtype, shape, values: [Double](repeating: 0, count: shape.reduce(1, *))).c
    }

    @Test func names() {
        let names = (FI_OK...FI_ABI_MISMATCH).map { String(cString: fi_status_name(fi_status($0))) }
        #expect(Set(names).count == 15 && names.allSatisfy { $0.hasPrefix("FI_") })
        #expect(String(cString: fi_status_name(99)) == "unknown" && String(cString: fi_status_name(-1)) == "unknown")
    }

    @Test func handlesAndPointersMayBeNull() throws {
        let x = try tensor()
        expect(fi_rmsnorm(nil, nil, x, x, x, 0, 0), FI_INVALID_ARGUMENT, "device is NULL")
        expect(fi_rmsnorm(device.handle, nil, nil, x, x, 0, 0), FI_INVALID_ARGUMENT, "in is NULL")
        expect(fi_device_create(nil, nil), FI_INVALID_ARGUMENT, "device is NULL")
        expect(fi_device_count(1, nil), FI_INVALID_ARGUMENT, "count is NULL")
        expect(fi_device_get_info(device.handle, nil), FI_INVALID_ARGUMENT, "info is NULL")
        expect(fi_attention_run(nil, nil, nil), FI_INVALID_ARGUMENT, "attention is NULL")
        expect(fi_attention_create(device.handle, nil, nil), FI_INVALID_ARGUMENT)
        expect(fi_append_paged_kv(device.handle, nil, nil), FI_INVALID_ARGUMENT, "args is NULL")
        fi_device_destroy(nil)
        fi_attention_destroy(nil)
        #expect(fi_device_name(nil) == nil)
    }

    @Test func tensorsAreCheckedBeforeAnythingRuns() throws {
        func expectRefused(
            _ change: (inout fi_tensor) -> Void, _ parts: String..., status: Int = FI_INVALID_ARGUMENT,
            sourceLocation: SourceLocation = #_sourceLocation
        ) throws {
            let (x, weight, out) = try (tensor(), tensor(.float32, [16]), OpsTensor(.float32, [2, 4, 16]))
            change(&x.pointee)
            let found = fi_rmsnorm(device.handle, nil, x, weight, out.c, 0, 0)
            #expect(Int(found) == status, "\(lastMessage)", sourceLocation: sourceLocation)
            for part in parts { #expect(lastMessage.contains(part), "\(lastMessage)", sourceLocation: sourceLocation) }
            #expect(out.values.allSatisfy { $0.isNaN }, sourceLocation: sourceLocation)
        }
        try expectRefused({ $0.dtype = fi_data_type(code: 2, bits: 64, lanes: 1) }, "in is float64", "float32")
        try expectRefused({ $0.dtype = fi_data_type(code: 2, bits: 32, lanes: 4) }, "float32 x 4")
        try expectRefused({ $0.dtype = fi_data_type(code: 0, bits: 64, lanes: 1) }, "int64")
        try expectRefused({ $0.dtype = fi_data_type(code: 99, bits: 7, lanes: 1) }, "code 99")
        try expectRefused({ $0.dtype = fi_data_type(code: 6, bits: 8, lanes: 1) }, "bool")
        try expectRefused({ $0.dtype = DType.int32.dl }, "int32")
        try expectRefused({ $0.device.device_type = 2 }, "in is on cuda:0, but must be on cpu")
        try expectRefused({ $0.device.device_type = 7 }, "DLPack's type 7")
        try expectRefused({ $0.ndim = 6 }, "in dimensions is 6", "5")
        try expectRefused({ $0.ndim = -1 }, "-1")
        try expectRefused({ $0.ndim = 0 }, "rank")
        try expectRefused({ $0.shape[1] = -4 }, "in shape[1] is -4")
        try expectRefused({ $0.shape = nil }, "in shape is NULL")
        try expectRefused({ $0.strides[0] = -64 }, "in strides[0] is -64")
        try expectRefused({ $0.strides[2] = 2 }, "strides", "1 in the last dimension")
        try expectRefused({ $0.shape[1] = 3 }, "of shape")
        try expectRefused({ $0.data = nil }, "in data is NULL")
        try expectRefused({ $0.byte_offset += 2 }, "in address", "multiple of 4")
        try expectRefused({ $0.shape[0] = .max }, status: FI_OVERFLOW)
        try expectRefused({ $0.strides[0] = .max }, status: FI_OVERFLOW)
    }

    @Test func stridesMayBeLeftOut() throws {
        let (x, weight) = try (tensor(), tensor(.float32, [16]))
        let (first, second) = try (OpsTensor(.float32, [2, 4, 16]), OpsTensor(.float32, [2, 4, 16]))
        try ok(fi_rmsnorm(device.handle, nil, x, weight, first.c, 1, 0))
        x.pointee.strides = nil
        try ok(fi_rmsnorm(device.handle, nil, x, weight, second.c, 1, 0))
        #expect(first.values == second.values)
        // A dimension of one takes no steps: frameworks leave any stride there.
        let row = try OpsTensor(.float32, [1, 16], values: [Double](repeating: 1, count: 16)).c
        row.pointee.strides[0] = -5
        try ok(fi_rmsnorm(device.handle, nil, row, weight, try OpsTensor(.float32, [1, 16]).c, 1, 0))
    }

    @Test func indicesMustBeInt32() throws {
        let attention = try CAttention(AttentionTests.plain, on: device)
        let good = [Int32](arrayLiteral: 0, 1).c
        for (bits, code, name) in [
            (64, FI_INT, "int64"), (32, FI_UINT, "uint32"), (16, FI_INT, "int16"), (32, FI_FLOAT, "float32"),
        ] {
            let wrong = [Int32](arrayLiteral: 0, 1, 0, 0).c
            wrong.pointee.dtype = fi_data_type(code: UInt8(code), bits: UInt8(bits), lanes: 1)
            wrong.pointee.shape[0] = 2
            expect(
                fi_attention_plan_paged(attention.handle, nil, nil, wrong, good, good, 4, 0), FI_INVALID_ARGUMENT,
                "kv_indptr is \(name), but must be int32")
        }
        let x = try tensor()
        let positions = [Int32](arrayLiteral: 0, 0, 1, 0).c
        positions.pointee.dtype.bits = 64
        positions.pointee.shape[0] = 2
        expect(
            fi_rope(device.handle, nil, x, nil, positions, nil, nil, nil), FI_INVALID_ARGUMENT,
            "positions is int64, but must be int32")
    }

    @Test func everyKind() throws {
        let attention = try CAttention(AttentionTests.plain, on: device)
        func plan(_ qo: [Int32]?, _ indptr: [Int32], _ indices: [Int32], _ last: [Int32], pages: Int64 = 4) -> fi_status
        {
            fi_attention_plan_paged(attention.handle, nil, qo?.c, indptr.c, indices.c, last.c, 4, pages)
        }
        expect(plan(nil, [0, 2, 1], [0, 1], [1, 1]), FI_INDPTR_NOT_MONOTONE, "request 1", "2", "1")
        expect(plan(nil, [0, 1, 2], [0, 4], [1, 1]), FI_PAGE_OUT_OF_RANGE, "request 1", "page 4")
        expect(plan(nil, [0, 1, 2], [0, -1], [1, 1], pages: 0), FI_PAGE_OUT_OF_RANGE, "page -1")
        expect(plan(nil, [0, 1, 2], [0, 1], [1, 5]), FI_LAST_PAGE_LENGTH_OUT_OF_RANGE, "request 1", "5")
        expect(plan(nil, [0, 1, 3], [0, 1], [1, 1]), FI_LENGTH_MISMATCH, "page indices")
        expect(plan([0, 1], [0, 1, 2], [0, 1], [1, 1]), FI_LENGTH_MISMATCH, "query indptr")
        expect(plan([1, 2, 3], [0, 1, 2], [0, 1], [1, 1]), FI_INVALID_ARGUMENT, "query indptr[0]")
        expect(plan(nil, [], [], []), FI_LENGTH_MISMATCH, "page indptr")
        var options = AttentionTests.plain
        options.struct_size = UInt64(MemoryLayout<fi_attention_options>.size)
        options.num_kv_heads = 3
        expect(fi_attention_configure(attention.handle, &options), FI_HEADS_NOT_DIVISIBLE, "4 query heads")
        options.num_kv_heads = 2
        options.head_dim_qk = 4096
        expect(fi_attention_configure(attention.handle, &options), FI_UNSUPPORTED, "4096")
        options.head_dim_qk = 16
        for (change, part) in [
            ({ $0.mask_mode = 9 }, "mask_mode"), ({ $0.window = -1 }, "window"), ({ $0.kv_layout = 2 }, "kv_layout"),
            ({ $0.q_dtype = fi_data_type() }, "q_dtype"), ({ $0.position_encoding = 3 }, "position_encoding"),
            ({ $0.split_mode = -1 }, "split_mode"), ({ $0.has_sinks = 2 }, "has_sinks"),
            ({ $0.max_queries = 5 }, "max_requests"), ({ $0.sm_scale = .nan }, "scale"),
            ({ $0.logits_soft_cap = -1 }, "logitsSoftCap"), ({ $0.kv_dtype = DType.uint8.dl }, "cache type"),
        ] as [((inout fi_attention_options) -> Void, String)] {
            var wrong = options
            change(&wrong)
            expect(fi_attention_configure(attention.handle, &wrong), FI_INVALID_ARGUMENT, part)
        }
        // int32's range is the indices' and the sizes'.
        expect(fi_attention_plan_single(attention.handle, nil, 1, 1 << 40), FI_INVALID_ARGUMENT, "kv_len")
        expect(fi_attention_plan_single(attention.handle, nil, -1, 1), FI_INVALID_ARGUMENT, "qo_len is -1")
        var gpu = fi_device_options.sized
        (gpu.device_type, gpu.device_id) = (Int32(FI_CUDA), 1 << 20)
        var handle: OpaquePointer?
        let status = fi_device_create(&gpu, &handle)
        #expect(status == FI_DEVICE_FAILURE || status == FI_INVALID_ARGUMENT)
        #expect(handle == nil)
        gpu.device_type = 5
        expect(fi_device_create(&gpu, &handle), FI_INVALID_ARGUMENT, "device_type is 5")
        (gpu.device_type, gpu.threads) = (Int32(FI_CPU), -1)
        expect(fi_device_create(&gpu, &handle), FI_INVALID_ARGUMENT, "threads is -1")
    }

    @Test func runsAreCheckedAgainstThePlan() throws {
        let attention = try CAttention(AttentionTests.plain, on: device)
        try ok(
            fi_attention_plan_paged(
                attention.handle, nil, nil, [Int32](arrayLiteral: 0, 1, 2).c, [Int32](arrayLiteral: 0, 3).c,
                [Int32](arrayLiteral: 4, 4).c, 4, 0))
        var args = fi_attention_run_args()
        (args.q, args.out) = (UnsafePointer(try tensor()), UnsafePointer(try OpsTensor(.float32, [2, 4, 16]).c))
        func cache(_ dtype: DType, _ shape: [Int]) throws -> UnsafePointer<fi_tensor> {
            UnsafePointer(try tensor(dtype, shape))
        }
        for (dtype, shape, status, part) in [
            (DType.bfloat16, [4, 4, 2, 16], FI_PLAN_MISMATCH, "cache type"),
            (.float32, [4, 4, 1, 16], FI_PLAN_MISMATCH, "kv heads"),
            (.float32, [4, 4, 2, 32], FI_PLAN_MISMATCH, "head dims"),
            (.float32, [4, 8, 2, 16], FI_PLAN_MISMATCH, "page size"),
            // The largest page id is 3, so a cache of three pages is too small.
            (.float32, [3, 4, 2, 16], FI_PLAN_MISMATCH, "pages"),
            (.float32, [4, 4, 32], FI_INVALID_ARGUMENT, "rank 4"),
        ] {
            (args.k, args.v) = (try cache(dtype, shape), try cache(dtype, shape))
            expect(attention.run(args), status, part)
        }
        (args.k, args.v) = (try cache(.float32, [4, 4, 2, 16]), try cache(.float32, [4, 4, 2, 16]))
        args.sinks = UnsafePointer(try tensor(.float32, [4]))
        expect(attention.run(args), FI_PLAN_MISMATCH, "sinks")
        args.sinks = nil
        args.q_scales = UnsafePointer(try tensor(.float32, [1]))
        expect(attention.run(args), FI_INVALID_ARGUMENT, "q_scales")
        args.q_scales = nil
        args.k_scales = UnsafePointer(try tensor(.float32, [3]))
        expect(attention.run(args), FI_INVALID_ARGUMENT, "k_scales")
        args.k_scales = nil
        args.k_scale = .infinity
        expect(attention.run(args), FI_INVALID_ARGUMENT, "k_scale")
        args.k_scale = 0
        args.lse = UnsafePointer(try tensor(.bfloat16, [2, 4]))
        expect(attention.run(args), FI_INVALID_ARGUMENT, "logSumExp")
        args.lse = nil
        try ok(attention.run(args))
    }

    @Test func structsMayBeOlderButNotNewer() throws {
        var options = fi_device_options()
        var handle: OpaquePointer?
        for size in [0, 4, 7, UInt64(MemoryLayout<fi_device_options>.size) + 8, .max] {
            options.struct_size = size
            expect(fi_device_create(&options, &handle), FI_ABI_MISMATCH, "struct_size is \(size)")
            #expect(handle == nil)
        }
        // A caller that knows nothing but the size gets the defaults, whatever lies behind its struct.
        options.struct_size = 8
        (options.device_type, options.threads) = (77, -5)
        try ok(fi_device_create(&options, &handle))
        fi_device_destroy(handle)

        // One that knows no sm_scale of a run gets the options'.
        let batch = try CBatch(AttentionBuffers(AttentionFixture(AttentionCase()), on: CPUDevice(threads: 1)))
        let attention = try CAttention(batch.options, on: device)
        let expected = try batch.run(attention)
        var args = batch.args
        (args.sm_scale, args.lse_natural) = (100, 77)
        args.struct_size = UInt64(MemoryLayout<fi_attention_run_args>.offset(of: \.sm_scale)!)
        try batch.buffers.poisonResults()
        try ok(fi_attention_run(attention.handle, nil, &args))
        #expect(try batch.buffers.results() == expected)
        args.struct_size += 4
        _ = fi_attention_run(attention.handle, nil, &args)
        #expect(try batch.buffers.results() != expected)
        args.struct_size += 4
        expect(fi_attention_run(attention.handle, nil, &args), FI_INVALID_ARGUMENT, "lse_natural is 77")

        // What is told fits in the caller's struct.
        var info = fi_device_info()
        info.memory_bytes = 12_345
        info.struct_size = UInt64(MemoryLayout<fi_device_info>.offset(of: \.memory_bytes)!)
        try ok(fi_device_get_info(device.handle, &info))
        #expect(info.device_type == FI_CPU && info.processors == 2 && info.memory_bytes == 12_345)
        info.struct_size = UInt64(MemoryLayout<fi_device_info>.size)
        try ok(fi_device_get_info(device.handle, &info))
        #expect(info.memory_bytes != 12_345)
    }

    @Test func dlpackLayouts() {
        // The numbers of dlpack.h on a 64-bit machine.
        #expect(MemoryLayout<fi_tensor>.size == 48)
        #expect(MemoryLayout<fi_tensor>.offset(of: \.data) == 0)
        #expect(MemoryLayout<fi_tensor>.offset(of: \.device) == 8)
        #expect(MemoryLayout<fi_tensor>.offset(of: \.ndim) == 16)
        #expect(MemoryLayout<fi_tensor>.offset(of: \.dtype) == 20)
        #expect(MemoryLayout<fi_tensor>.offset(of: \.shape) == 24)
        #expect(MemoryLayout<fi_tensor>.offset(of: \.strides) == 32)
        #expect(MemoryLayout<fi_tensor>.offset(of: \.byte_offset) == 40)
    }
}
