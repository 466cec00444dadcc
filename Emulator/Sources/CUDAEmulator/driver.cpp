// The CUDA driver's functions: devices, contexts, memory. Everything is done at once, in the calling thread, but for what a capture
// records.

#include <algorithm>
#include <cstdio>

#include "driver.h"

using namespace emulator;

namespace {

constexpr size_t total_memory = 16ull << 30;
thread_local std::vector<uintptr_t> contexts;
std::atomic<int> retained{0};
Stream default_stream;

struct Pool {
    std::atomic<uint64_t> used{0};
    uint64_t threshold = 0;
};

}  // namespace

namespace emulator {

/// Few, so that kernels which stay on their processors have few blocks.
unsigned processors() {
    static const unsigned count = [] {
        const char *named = getenv("EMULATOR_PROCESSORS");
        return named ? (unsigned)std::max(1, atoi(named)) : 8u;
    }();
    return count;
}

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
        // `found` is the nearest allocation below, if there is any.
        snprintf(text, sizeof text, "%s of %llu bytes at 0x%llx, which is outside of all allocations: byte %lld of one of %llu", what,
                 (unsigned long long)bytes, (unsigned long long)address, (long long)(address - found.start),
                 (unsigned long long)(found.end - found.start));
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

