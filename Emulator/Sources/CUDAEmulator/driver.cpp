// The CUDA driver's functions. Everything is done at once, in the calling thread, but for what a capture records.

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <map>
#include <mutex>
#include <shared_mutex>
#include <set>

#include "machine.h"
#include "tensor_map.h"

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace {

using namespace emulator;

enum Status {
    success = 0,
    invalid_value = 1,
    out_of_memory = 2,
    no_device = 100,
    invalid_context = 201,
    not_found = 500,
    not_ready = 600,
    illegal_address = 700,
    capture_unsupported = 900,
    capture_invalidated = 901,
    unknown = 999,
};

/// Few, so that kernels which stay on their processors have few blocks.
unsigned processors() {
    static const unsigned count = [] {
        const char *named = getenv("EMULATOR_PROCESSORS");
        return named ? (unsigned)std::max(1, atoi(named)) : 8u;
    }();
    return count;
}

constexpr size_t total_memory = 16ull << 30;

struct Allocations {
    std::shared_mutex mutex;
    std::map<uint64_t, uint64_t> sizes;
    size_t device_bytes = 0;

    static Allocations &all() {
        static Allocations own;
        return own;
    }

    /// Filled with NaNs: what nobody wrote shows.
    void *make(size_t bytes, bool is_device) {
        const size_t rounded = (bytes + 255) / 256 * 256;
        void *memory = aligned_alloc(256, rounded);
        if (!memory) return nullptr;
        memset(memory, 0xff, rounded);
        std::unique_lock lock(mutex);
        sizes[(uint64_t)(uintptr_t)memory] = bytes;
        if (is_device) device_bytes += bytes;
        return memory;
    }

    bool remove(uint64_t address, bool is_device) {
        {
            std::unique_lock lock(mutex);
            auto found = sizes.find(address);
            if (found == sizes.end()) return false;
            if (is_device) device_bytes -= found->second;
            sizes.erase(found);
        }
        free((void *)(uintptr_t)address);
        return true;
    }

    bool contains(uint64_t address, uint64_t bytes, uint64_t &start, uint64_t &end) {
        std::shared_lock lock(mutex);
        auto found = sizes.upper_bound(address);
        if (found == sizes.begin()) return false;
        --found;
        start = found->first;
        end = found->first + found->second;
        return address >= start && address + bytes <= end;
    }
};

/// Raised when memory is given back, as threads remember where they last looked.
std::atomic<uint64_t> generation{1};

struct Pool {
    std::atomic<uint64_t> used{0};
    std::mutex mutex;
    std::map<uint64_t, size_t> own;
    uint64_t threshold = 0;
};

using Action = std::function<int()>;

struct Graph {
    std::vector<Action> actions;
};

struct Stream {
    Graph *capturing = nullptr;
    /// What is submitted runs one after another, whichever threads submit it.
    std::recursive_mutex order;
};

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

std::atomic<int> sticky{0};
thread_local std::vector<uintptr_t> contexts;
constexpr uintptr_t the_context = 0x1000;
std::atomic<int> retained{0};
Stream default_stream;

Stream &stream_of(uintptr_t stream) { return stream > 2 ? *(Stream *)stream : default_stream; }

/// Does it now, or records it.
int submit(uintptr_t stream, Action action) {
    if (const int status = sticky.load()) return status;
    Stream &own = stream_of(stream);
    std::lock_guard lock(own.order);
    if (own.capturing) {
        own.capturing->actions.push_back(std::move(action));
        return success;
    }
    return action();
}

int fail(const std::string &why) {
    fprintf(stderr, "emulator: %s\n", why.c_str());
    sticky = illegal_address;
    return illegal_address;
}

}  // namespace

namespace emulator {

void check_device_memory(uint64_t address, uint64_t bytes, const char *what) {
    struct Range {
        uint64_t start = 1, end = 0, generation = 0;
    };
    static thread_local Range ranges[16];
    static thread_local unsigned oldest = 0;
    const uint64_t now = generation.load(std::memory_order_relaxed);
    for (const Range &range : ranges) {
        if (range.generation == now && address >= range.start && address + bytes <= range.end) return;
    }
    Range found;
    found.generation = now;
    if (!Allocations::all().contains(address, bytes, found.start, found.end)) {
        char text[200];
        snprintf(text, sizeof text, "%s of %llu bytes at 0x%llx, which is outside of all allocations", what,
                 (unsigned long long)bytes, (unsigned long long)address);
        throw Fault(text);
    }
    ranges[oldest++ % 16] = found;
}

}  // namespace emulator

EXPORT int cuInit(unsigned) { return success; }

EXPORT int cuDriverGetVersion(int *version) {
    *version = 13000;
    return success;
}

EXPORT int cuGetErrorName(int status, const char **name) {
    static const std::map<int, const char *> names = {
        {0, "CUDA_SUCCESS"}, {1, "CUDA_ERROR_INVALID_VALUE"}, {2, "CUDA_ERROR_OUT_OF_MEMORY"}, {100, "CUDA_ERROR_NO_DEVICE"},
        {201, "CUDA_ERROR_INVALID_CONTEXT"}, {500, "CUDA_ERROR_NOT_FOUND"}, {600, "CUDA_ERROR_NOT_READY"},
        {700, "CUDA_ERROR_ILLEGAL_ADDRESS"}, {900, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED"},
        {901, "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED"}};
    auto found = names.find(status);
    *name = found == names.end() ? "CUDA_ERROR_UNKNOWN" : found->second;
    return success;
}

EXPORT int cuGetErrorString(int status, const char **text) {
    static const std::map<int, const char *> texts = {
        {0, "no error"}, {1, "invalid argument"}, {2, "out of memory"}, {600, "device not ready"},
        {700, "an illegal memory access was encountered"}, {900, "operation not permitted when stream is capturing"}};
    auto found = texts.find(status);
    *text = found == texts.end() ? "an emulated driver's status" : found->second;
    return success;
}

EXPORT int cuDeviceGetCount(int *count) {
    *count = 1;
    return success;
}

EXPORT int cuDeviceGet(int *device, int ordinal) {
    if (ordinal != 0) return invalid_value;
    *device = 0;
    return success;
}

EXPORT int cuDeviceGetName(char *name, int capacity, int) {
    snprintf(name, (size_t)capacity, "Emulated GPU");
    return success;
}

EXPORT int cuDeviceTotalMem_v2(size_t *bytes, int) {
    *bytes = total_memory;
    return success;
}

EXPORT int cuDeviceGetAttribute(int *value, int attribute, int) {
    switch (attribute) {
    case 16: *value = (int)processors(); break;
    case 38: *value = 50 << 20; break;
    case 75: *value = 9; break;
    case 76: *value = 0; break;
    case 81: *value = 228 << 10; break;
    case 82: *value = 65536; break;
    case 97: *value = 227 << 10; break;
    case 115:
    case 120: *value = 1; break;
    default: return invalid_value;
    }
    return success;
}

EXPORT int cuDevicePrimaryCtxRetain(uintptr_t *context, int) {
    retained++;
    *context = the_context;
    return success;
}

EXPORT int cuDevicePrimaryCtxRelease_v2(int) {
    return retained.fetch_sub(1) > 0 ? success : invalid_context;
}

EXPORT int cuCtxGetCurrent(uintptr_t *context) {
    *context = contexts.empty() ? 0 : contexts.back();
    return success;
}

EXPORT int cuCtxPushCurrent_v2(uintptr_t context) {
    contexts.push_back(context);
    return success;
}

EXPORT int cuCtxPopCurrent_v2(uintptr_t *context) {
    if (contexts.empty()) return invalid_context;
    *context = contexts.back();
    contexts.pop_back();
    return success;
}

EXPORT int cuMemGetInfo_v2(size_t *available, size_t *total) {
    Allocations &all = Allocations::all();
    std::shared_lock lock(all.mutex);
    *total = total_memory;
    *available = total_memory - std::min(total_memory, all.device_bytes);
    return success;
}

EXPORT int cuMemAlloc_v2(uint64_t *address, size_t bytes) {
    if (bytes == 0) return invalid_value;
    if (bytes > total_memory) return out_of_memory;
    void *memory = Allocations::all().make(bytes, true);
    if (!memory) return out_of_memory;
    *address = (uint64_t)(uintptr_t)memory;
    return success;
}

EXPORT int cuMemFree_v2(uint64_t address) {
    generation++;
    return Allocations::all().remove(address, true) ? success : invalid_value;
}

EXPORT int cuMemPoolCreate(uintptr_t *pool, const void *) {
    *pool = (uintptr_t) new Pool;
    return success;
}

EXPORT int cuMemPoolDestroy(uintptr_t pool) {
    delete (Pool *)pool;
    return success;
}

EXPORT int cuMemPoolSetAttribute(uintptr_t pool, int attribute, void *value) {
    if (attribute == 4) ((Pool *)pool)->threshold = *(uint64_t *)value;
    return success;
}

EXPORT int cuMemPoolGetAttribute(uintptr_t pool, int attribute, void *value) {
    *(uint64_t *)value = attribute == 4 ? ((Pool *)pool)->threshold : ((Pool *)pool)->used.load();
    return success;
}

EXPORT int cuMemPoolTrimTo(uintptr_t, size_t) { return success; }

namespace {
std::mutex owners_mutex;
std::map<uint64_t, std::pair<Pool *, size_t>> owners;
}  // namespace

EXPORT int cuMemAllocFromPoolAsync(uint64_t *address, size_t bytes, uintptr_t pool, uintptr_t stream) {
    if (const int status = sticky.load()) return status;
    if (stream_of(stream).capturing) return capture_unsupported;
    const int status = cuMemAlloc_v2(address, bytes);
    if (status != success) return status;
    ((Pool *)pool)->used += bytes;
    std::lock_guard lock(owners_mutex);
    owners[*address] = {(Pool *)pool, bytes};
    return success;
}

EXPORT int cuMemFreeAsync(uint64_t address, uintptr_t stream) {
    if (stream_of(stream).capturing) return capture_unsupported;
    {
        std::lock_guard lock(owners_mutex);
        auto found = owners.find(address);
        if (found == owners.end()) return invalid_value;
        found->second.first->used -= found->second.second;
        owners.erase(found);
    }
    return cuMemFree_v2(address);
}

EXPORT int cuMemHostAlloc(void **memory, size_t bytes, unsigned) {
    *memory = Allocations::all().make(std::max<size_t>(bytes, 1), false);
    return *memory ? success : out_of_memory;
}

EXPORT int cuMemFreeHost(void *memory) {
    generation++;
    return Allocations::all().remove((uint64_t)(uintptr_t)memory, false) ? success : invalid_value;
}

namespace {
int checked(uint64_t address, size_t bytes, const char *what, const std::function<void()> &body) {
    try {
        if (bytes) check_device_memory(address, bytes, what);
    } catch (const Fault &fault) {
        return fail(fault.what());
    }
    if (bytes) body();
    return success;
}
}  // namespace

EXPORT int cuMemcpyHtoDAsync_v2(uint64_t to, const void *from, size_t bytes, uintptr_t stream) {
    return submit(stream, [=] { return checked(to, bytes, "copy to the device", [=] { memcpy((void *)to, from, bytes); }); });
}

EXPORT int cuMemcpyDtoHAsync_v2(void *to, uint64_t from, size_t bytes, uintptr_t stream) {
    return submit(stream, [=] { return checked(from, bytes, "copy from the device", [=] { memcpy(to, (void *)from, bytes); }); });
}

EXPORT int cuMemsetD8Async(uint64_t to, unsigned char byte, size_t bytes, uintptr_t stream) {
    return submit(stream, [=] { return checked(to, bytes, "fill", [=] { memset((void *)to, byte, bytes); }); });
}

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
