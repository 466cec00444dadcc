// The CUDA driver's functions: streams, graphs, events, modules, launches.

#include <algorithm>
#include <chrono>
#include <cstdio>

#include "driver.h"
#include "tensor_map.h"

using namespace emulator;

namespace {

struct Event {
    std::chrono::steady_clock::time_point time;
};

struct Function {
    Kernel *kernel;
    int dynamic_limit = 48 * 1024;
};

struct LoadedModule {
    std::unique_ptr<Module> module;
    std::map<std::string, std::unique_ptr<Function>> functions;
    std::mutex mutex;
};

}  // namespace

EXPORT int cuStreamCreate(uintptr_t *stream, unsigned) {
    *stream = (uintptr_t) new Stream;
    return success;
}

EXPORT int cuStreamDestroy_v2(uintptr_t stream) {
    delete (Stream *)stream;
    return success;
}

EXPORT int cuStreamGetCtx(uintptr_t, uintptr_t *context) {
    *context = the_context;
    return success;
}

EXPORT int cuStreamSynchronize(uintptr_t stream) {
    if (stream_of(stream).capturing) return capture_unsupported;
    return sticky.load();
}

EXPORT int cuStreamIsCapturing(uintptr_t stream, int *status) {
    *status = stream_of(stream).capturing ? 1 : 0;
    return success;
}

EXPORT int cuStreamBeginCapture_v2(uintptr_t stream, int) {
    if (stream <= 2) return capture_unsupported;
    Stream &own = stream_of(stream);
    if (own.capturing) return invalid_value;
    own.capturing = new Graph;
    return success;
}

EXPORT int cuStreamEndCapture(uintptr_t stream, uintptr_t *graph) {
    Stream &own = stream_of(stream);
    if (!own.capturing) return invalid_value;
    *graph = (uintptr_t)own.capturing;
    own.capturing = nullptr;
    return success;
}

EXPORT int cuThreadExchangeStreamCaptureMode(int *mode) {
    static thread_local int current = 0;
    std::swap(*mode, current);
    return success;
}

EXPORT int cuGraphInstantiateWithFlags(uintptr_t *executable, uintptr_t graph, unsigned long long) {
    *executable = (uintptr_t) new Graph(*(Graph *)graph);
    return success;
}

EXPORT int cuGraphLaunch(uintptr_t executable, uintptr_t stream) {
    Graph *graph = (Graph *)executable;
    return submit(stream, [=] {
        for (const Action &action : graph->actions) {
            if (const int status = action()) return status;
        }
        return (int)success;
    });
}

EXPORT int cuGraphDestroy(uintptr_t graph) {
    delete (Graph *)graph;
    return success;
}

EXPORT int cuGraphExecDestroy(uintptr_t executable) {
    delete (Graph *)executable;
    return success;
}

EXPORT int cuEventCreate(uintptr_t *event, unsigned) {
    *event = (uintptr_t) new Event;
    return success;
}

EXPORT int cuEventDestroy_v2(uintptr_t event) {
    delete (Event *)event;
    return success;
}

EXPORT int cuEventRecord(uintptr_t event, uintptr_t stream) {
    return submit(stream, [=] {
        ((Event *)event)->time = std::chrono::steady_clock::now();
        return (int)success;
    });
}

EXPORT int cuEventQuery(uintptr_t) { return sticky.load(); }

EXPORT int cuEventSynchronize(uintptr_t) { return sticky.load(); }

EXPORT int cuEventElapsedTime(float *milliseconds, uintptr_t start, uintptr_t end) {
    *milliseconds = std::chrono::duration<float, std::milli>(((Event *)end)->time - ((Event *)start)->time).count();
    return success;
}

EXPORT int cuModuleLoadData(uintptr_t *module, const void *image) {
    try {
        auto loaded = std::make_unique<LoadedModule>();
        loaded->module = load_module((const char *)image);
        {
            Allocations &all = Allocations::all();
            std::unique_lock lock(all.mutex);
            for (auto &[name, bytes] : loaded->module->globals) all.sizes[(uint64_t)(uintptr_t)bytes->data()] = bytes->size();
        }
        *module = (uintptr_t)loaded.release();
        return success;
    } catch (const std::exception &error) {
        fprintf(stderr, "emulator: %s\n", error.what());
        return 218;
    }
}

EXPORT int cuModuleUnload(uintptr_t module) {
    LoadedModule *own = (LoadedModule *)module;
    generation++;
    {
        Allocations &all = Allocations::all();
        std::unique_lock lock(all.mutex);
        for (auto &[name, bytes] : own->module->globals) all.sizes.erase((uint64_t)(uintptr_t)bytes->data());
    }
    delete own;
    return success;
}

EXPORT int cuModuleGetFunction(uintptr_t *function, uintptr_t module, const char *name) {
    LoadedModule &own = *(LoadedModule *)module;
    auto kernel = own.module->kernels.find(name);
    if (kernel == own.module->kernels.end()) return not_found;
    std::lock_guard lock(own.mutex);
    auto &made = own.functions[name];
    if (!made) made = std::make_unique<Function>(Function{kernel->second.get()});
    *function = (uintptr_t)made.get();
    return success;
}

EXPORT int cuFuncGetAttribute(int *value, int attribute, uintptr_t function) {
    const Function &own = *(Function *)function;
    switch (attribute) {
    case 0: *value = (int)own.kernel->maximum_threads; break;
    case 1: *value = (int)(own.kernel->static_shared_bytes - reserved_shared_bytes); break;
    case 3: *value = 0; break;
    case 4: *value = 64; break;
    case 8: *value = own.dynamic_limit; break;
    default: return invalid_value;
    }
    return success;
}

EXPORT int cuFuncSetAttribute(uintptr_t function, int attribute, int value) {
    if (attribute == 8) ((Function *)function)->dynamic_limit = value;
    return success;
}

EXPORT int cuFuncGetParamInfo(uintptr_t function, size_t index, size_t *offset, size_t *bytes) {
    const auto &all = ((Function *)function)->kernel->parameters;
    if (index >= all.size()) return invalid_value;
    *offset = all[index].first;
    if (bytes) *bytes = all[index].second;
    return success;
}

EXPORT int cuOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks, uintptr_t function, int threads, size_t dynamic) {
    const Function &own = *(Function *)function;
    const size_t shared = own.kernel->static_shared_bytes + dynamic;
    *blocks = (int)std::min<size_t>(
        {own.kernel->blocks_a_processor, (228u << 10) / shared, 2048u / (unsigned)std::max(threads, 1)});
    return success;
}

EXPORT int cuTensorMapEncodeTiled(
    void *map, int data_type, unsigned rank, void *address, const uint64_t *dimensions, const uint64_t *strides,
    const uint32_t *box, const uint32_t *element_strides, int interleave, int swizzle, int, int fill) {
    static const uint8_t sizes[] = {1, 2, 4, 4, 8, 8, 2, 4, 8, 2};
    if (rank < 1 || rank > 5 || data_type < 0 || data_type > 9 || interleave || swizzle < 0 || swizzle > 3) return invalid_value;
    TensorMap own = {};
    own.magic = TensorMap::mark;
    own.rank = (uint8_t)rank;
    own.element_bytes = sizes[data_type];
    own.swizzle = (uint8_t)swizzle;
    own.fill = (uint8_t)fill;
    own.address = (uint64_t)(uintptr_t)address;
    if (own.address % 16) return invalid_value;
    for (unsigned n = 0; n < rank; n++) {
        if (dimensions[n] == 0 || dimensions[n] > 1ull << 32 || box[n] == 0 || box[n] > 256 || element_strides[n] != 1) {
            return invalid_value;
        }
        own.dimensions[n] = (uint32_t)std::min<uint64_t>(dimensions[n], 0xffffffffu);
        own.box[n] = box[n];
        if (n > 0) {
            own.strides[n - 1] = strides[n - 1];
            if (strides[n - 1] % 16 || strides[n - 1] >= 1ull << 40) return invalid_value;
        }
    }
    static const uint32_t widths[] = {1u << 30, 32, 64, 128};
    if (box[0] * own.element_bytes % 16 || box[0] * own.element_bytes > widths[swizzle]) return invalid_value;
    memset(map, 0, 128);
    memcpy(map, &own, sizeof own);
    return success;
}

EXPORT int cuLaunchKernel(
    uintptr_t function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x, unsigned block_y,
    unsigned block_z, unsigned shared_bytes, uintptr_t stream, void **parameters, void **) {
    const Function &own = *(Function *)function;
    Launch launch;
    launch.kernel = own.kernel;
    launch.grid = {grid_x, grid_y, grid_z};
    launch.block = {block_x, block_y, block_z};
    launch.dynamic_shared_bytes = shared_bytes;
    if (launch.grid.count() == 0 || launch.block.count() == 0 || launch.block.count() > own.kernel->maximum_threads ||
        (int)shared_bytes > own.dynamic_limit || grid_y > 65535 || grid_z > 65535 || grid_x > 0x7fffffffu ||
        grid_x % own.kernel->cluster ||
        own.kernel->static_shared_bytes + shared_bytes > 228u << 10) {
        return invalid_value;
    }
    launch.parameters.assign(own.kernel->parameter_bytes, 0);
    for (size_t n = 0; n < own.kernel->parameters.size(); n++) {
        const auto [offset, bytes] = own.kernel->parameters[n];
        memcpy(launch.parameters.data() + offset, parameters[n], bytes);
    }
    return submit(stream, [launch = std::move(launch)] {
        // What goes wrong in a kernel is told by the calls after it.
        try {
            run(launch, processors());
        } catch (const std::exception &error) {
            fail(error.what());
        }
        return (int)success;
    });
}

namespace {

/// CUlaunchAttribute and CUlaunchConfig.
struct LaunchAttribute {
    int id, padding;
    long long value[8];
};
struct LaunchConfig {
    unsigned grid[3], block[3], shared_bytes;
    uintptr_t stream;
    const LaunchAttribute *attributes;
    unsigned attribute_count;
};
static_assert(sizeof(LaunchAttribute) == 72 && sizeof(LaunchConfig) == 56);

}  // namespace

EXPORT int cuLaunchKernelEx(const LaunchConfig *config, uintptr_t function, void **parameters, void **extra) {
    constexpr int programmatic_stream_serialization = 6;
    for (unsigned n = 0; n < config->attribute_count; n++) {
        if (config->attributes[n].id != programmatic_stream_serialization) return invalid_value;
    }
    return cuLaunchKernel(
        function, config->grid[0], config->grid[1], config->grid[2], config->block[0], config->block[1], config->block[2],
        config->shared_bytes, config->stream, parameters, extra);
}
