#include "cuda_ceilings.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// The few functions of libcuda that are needed, by their public signatures.
typedef int status;
/// An attribute of a launch, of which the driver's union has 64 bytes.
typedef struct {
    int id;
    char padding[4];
    union {
        int is_early;
        char bytes[64];
    } value;
} launch_attribute;
typedef struct {
    unsigned grid[3], block[3], shared_bytes;
    void *stream;
    launch_attribute *attributes;
    unsigned attribute_count;
} launch_shape;
typedef struct {
    status (*init)(unsigned);
    status (*device_get)(int *, int);
    status (*device_count)(int *);
    status (*device_name)(char *, int, int);
    status (*device_attribute)(int *, int, int);
    status (*retain)(void **, int);
    status (*set_current)(void *);
    status (*memory_info)(size_t *, size_t *);
    status (*allocate)(uint64_t *, size_t);
    status (*release)(uint64_t);
    status (*fill)(uint64_t, unsigned, size_t);
    status (*copy)(uint64_t, uint64_t, size_t, void *);
    status (*event_create)(void **, unsigned);
    status (*event_record)(void *, void *);
    status (*event_wait)(void *);
    status (*event_elapsed)(float *, void *, void *);
    status (*event_destroy)(void *);
    status (*module_load)(void **, const void *);
    status (*module_function)(void **, void *, const char *);
    status (*launch)(void *, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void *, void **, void **);
    status (*launch_with)(const launch_shape *, void *, void **, void **);
    status (*stream_create)(void **, unsigned);
    status (*stream_destroy)(void *);
    status (*capture_begin)(void *, int);
    status (*capture_end)(void *, void **);
    status (*graph_instantiate)(void **, void *, uint64_t);
    status (*graph_launch)(void *, void *);
    status (*graph_destroy)(void *);
    status (*graph_exec_destroy)(void *);
    status (*module_unload)(void *);
} driver;

static driver cuda;
static void *context;
static char trouble[256];
static int device;

static bool load(void) {
    void *library = dlopen("libcuda.so.1", RTLD_NOW);
    if (!library) library = dlopen("/usr/local/nvidia/lib64/libcuda.so.1", RTLD_NOW);
    if (!library) {
        snprintf(trouble, sizeof trouble, "no NVIDIA driver: %s", dlerror());
        return false;
    }
    const struct {
        const char *name;
        void **place;
    } symbols[] = {
        {"cuInit", (void **)&cuda.init},
        {"cuDeviceGet", (void **)&cuda.device_get},
        {"cuDeviceGetCount", (void **)&cuda.device_count},
        {"cuDeviceGetName", (void **)&cuda.device_name},
        {"cuDeviceGetAttribute", (void **)&cuda.device_attribute},
        {"cuDevicePrimaryCtxRetain", (void **)&cuda.retain},
        {"cuCtxSetCurrent", (void **)&cuda.set_current},
        {"cuMemGetInfo_v2", (void **)&cuda.memory_info},
        {"cuMemAlloc_v2", (void **)&cuda.allocate},
        {"cuMemFree_v2", (void **)&cuda.release},
        {"cuMemsetD32_v2", (void **)&cuda.fill},
        {"cuMemcpyDtoDAsync_v2", (void **)&cuda.copy},
        {"cuEventCreate", (void **)&cuda.event_create},
        {"cuEventRecord", (void **)&cuda.event_record},
        {"cuEventSynchronize", (void **)&cuda.event_wait},
        {"cuEventElapsedTime", (void **)&cuda.event_elapsed},
        {"cuEventDestroy_v2", (void **)&cuda.event_destroy},
        {"cuModuleLoadData", (void **)&cuda.module_load},
        {"cuModuleGetFunction", (void **)&cuda.module_function},
        {"cuLaunchKernel", (void **)&cuda.launch},
        {"cuLaunchKernelEx", (void **)&cuda.launch_with},
        {"cuStreamCreate", (void **)&cuda.stream_create},
        {"cuStreamDestroy_v2", (void **)&cuda.stream_destroy},
        {"cuStreamBeginCapture_v2", (void **)&cuda.capture_begin},
        {"cuStreamEndCapture", (void **)&cuda.capture_end},
        {"cuGraphInstantiateWithFlags", (void **)&cuda.graph_instantiate},
        {"cuGraphLaunch", (void **)&cuda.graph_launch},
        {"cuGraphDestroy", (void **)&cuda.graph_destroy},
        {"cuGraphExecDestroy", (void **)&cuda.graph_exec_destroy},
        {"cuModuleUnload", (void **)&cuda.module_unload},
    };
    for (size_t i = 0; i < sizeof symbols / sizeof *symbols; i++) {
        if (!(*symbols[i].place = dlsym(library, symbols[i].name))) {
            snprintf(trouble, sizeof trouble, "the driver has no %s", symbols[i].name);
            return false;
        }
    }
    return true;
}

/// The context, made once and current on this thread.
static bool start(void) {
    if (!context) {
        if (!cuda.init && !load()) return false;
        int count = 0;
        status s = cuda.init(0);
        if (!s) s = cuda.device_count(&count);
        if (!s && count == 0) {
            snprintf(trouble, sizeof trouble, "the driver has no GPU for this process");
            return false;
        }
        if (!s) s = cuda.device_get(&device, 0);
        if (!s) s = cuda.retain(&context, device);
        if (s) {
            context = 0;
            snprintf(trouble, sizeof trouble, "the driver does not start: status %d", s);
            return false;
        }
    }
    return cuda.set_current(context) == 0;
}

ceiling_cuda_device ceiling_cuda_look(void) {
    ceiling_cuda_device found = {0};
    found.is_present = start();
    if (!found.is_present) {
        memcpy(found.message, trouble, sizeof found.message);
        return found;
    }
    // Attributes 16 and 38: multiprocessors and bytes of L2.
    cuda.device_name(found.name, sizeof found.name, device);
    cuda.device_attribute(&found.processors, 16, device);
    cuda.device_attribute(&found.l2_bytes, 38, device);
    cuda.memory_info(&found.free_bytes, &found.total_bytes);
    return found;
}

/// Reads 16 bytes a thread, four loads in flight, and folds them so that none can be left out.
static const char read_text[] =
    ".version 7.4\n"
    ".target sm_80\n"
    ".address_size 64\n"
    ".visible .entry read_all(.param .u64 source, .param .u64 units, .param .u64 sink)\n"
    "{\n"
    "    .reg .pred %p<3>;\n"
    "    .reg .b32 %a<24>;\n"
    "    .reg .b64 %d<12>;\n"
    "    ld.param.u64 %d0, [source];\n"
    "    ld.param.u64 %d1, [units];\n"
    "    ld.param.u64 %d2, [sink];\n"
    "    cvta.to.global.u64 %d0, %d0;\n"
    "    cvta.to.global.u64 %d2, %d2;\n"
    "    mov.u32 %a20, %ctaid.x;\n"
    "    mov.u32 %a21, %ntid.x;\n"
    "    mov.u32 %a22, %tid.x;\n"
    "    mov.u32 %a23, %nctaid.x;\n"
    "    mul.wide.u32 %d3, %a20, %a21;\n"
    "    cvt.u64.u32 %d4, %a22;\n"
    "    add.u64 %d3, %d3, %d4;\n"            // this thread's unit of 16 bytes
    "    mul.wide.u32 %d5, %a23, %a21;\n"     // units of all threads
    "    shl.b64 %d6, %d5, 4;\n"
    "    shl.b64 %d7, %d3, 4;\n"
    "    add.u64 %d7, %d0, %d7;\n"
    "    mul.lo.u64 %d8, %d5, 3;\n"
    "    add.u64 %d8, %d3, %d8;\n"            // the last of the four units
    "    shl.b64 %d9, %d5, 2;\n"
    "    mov.b32 %a0, 0;\n"
    "again:\n"
    "    setp.ge.u64 %p0, %d8, %d1;\n"
    "    @%p0 bra done;\n"
    "    ld.global.nc.L1::no_allocate.v4.b32 {%a1, %a2, %a3, %a4}, [%d7];\n"
    "    add.u64 %d7, %d7, %d6;\n"
    "    ld.global.nc.L1::no_allocate.v4.b32 {%a5, %a6, %a7, %a8}, [%d7];\n"
    "    add.u64 %d7, %d7, %d6;\n"
    "    ld.global.nc.L1::no_allocate.v4.b32 {%a9, %a10, %a11, %a12}, [%d7];\n"
    "    add.u64 %d7, %d7, %d6;\n"
    "    ld.global.nc.L1::no_allocate.v4.b32 {%a13, %a14, %a15, %a16}, [%d7];\n"
    "    add.u64 %d7, %d7, %d6;\n"
    "    xor.b32 %a1, %a1, %a2;\n    xor.b32 %a3, %a3, %a4;\n"
    "    xor.b32 %a5, %a5, %a6;\n    xor.b32 %a7, %a7, %a8;\n"
    "    xor.b32 %a9, %a9, %a10;\n    xor.b32 %a11, %a11, %a12;\n"
    "    xor.b32 %a13, %a13, %a14;\n    xor.b32 %a15, %a15, %a16;\n"
    "    xor.b32 %a1, %a1, %a3;\n    xor.b32 %a5, %a5, %a7;\n"
    "    xor.b32 %a9, %a9, %a11;\n    xor.b32 %a13, %a13, %a15;\n"
    "    xor.b32 %a1, %a1, %a5;\n    xor.b32 %a9, %a9, %a13;\n"
    "    xor.b32 %a0, %a0, %a1;\n    xor.b32 %a0, %a0, %a9;\n"
    "    add.u64 %d8, %d8, %d9;\n"
    "    bra again;\n"
    "done:\n"
    "    setp.ne.u32 %p1, %a0, 0x5bd1e995;\n" // never equal: memory holds one repeated word
    "    @%p1 bra end;\n"
    "    st.global.b32 [%d2], %a0;\n"
    "end:\n"
    "    ret;\n"
    "}\n";

/// The best rate of `tries` runs of `body`, which moves `bytes`.
#define BEST(rate, bytes, body)                                                              \
    for (int i = 0; i <= tries; i++) {                                                       \
        float milliseconds = 0;                                                              \
        cuda.event_record(from, 0);                                                          \
        const status s = (body);                                                             \
        cuda.event_record(to, 0);                                                            \
        if (s || cuda.event_wait(to) || cuda.event_elapsed(&milliseconds, from, to)) break;  \
        const double found = (double)(bytes) / (milliseconds * 1e6);                         \
        if (i > 0 && found > rate) rate = found;                                             \
    }

ceiling_cuda_rates ceiling_cuda_measure(int64_t byte_count, int tries) {
    ceiling_cuda_rates rates = {0};
    if (!start()) return rates;
    uint64_t source = 0, target = 0;
    void *from = 0, *to = 0, *module = 0, *function = 0;
    if (!cuda.allocate(&source, byte_count) && !cuda.allocate(&target, byte_count) && !cuda.event_create(&from, 0) &&
        !cuda.event_create(&to, 0)) {
        cuda.fill(source, 0x3f9d2b17, byte_count / 4);
        BEST(rates.copy, 2 * byte_count, cuda.copy(target, source, byte_count, 0))
        if (!cuda.module_load(&module, read_text) && !cuda.module_function(&function, module, "read_all")) {
            uint64_t units = byte_count / 16;
            void *parameters[] = {&source, &units, &target};
            const int blocks = 8 * ceiling_cuda_look().processors;
            BEST(rates.read, byte_count, cuda.launch(function, blocks, 1, 1, 256, 1, 1, 0, 0, parameters, 0))
        }
    }
    if (from) cuda.event_destroy(from);
    if (to) cuda.event_destroy(to);
    if (source) cuda.release(source);
    if (target) cuda.release(target);
    return rates;
}

/// Copies 16 bytes a thread, of which nothing needs to be under way before the kernels ahead are done.
static const char copy_text[] =
    ".version 7.8\n"
    ".target sm_90\n"
    ".address_size 64\n"
    ".visible .entry copy_all(.param .u64 target, .param .u64 source, .param .u32 units)\n"
    ".maxntid 256, 1, 1\n"
    "{\n"
    "    .reg .pred %p0;\n"
    "    .reg .b32 %a<8>;\n"
    "    .reg .b64 %d<3>;\n"
    "    griddepcontrol.launch_dependents;\n"
    "    ld.param.u64 %d0, [target];\n"
    "    ld.param.u64 %d1, [source];\n"
    "    ld.param.u32 %a6, [units];\n"
    "    cvta.to.global.u64 %d0, %d0;\n"
    "    cvta.to.global.u64 %d1, %d1;\n"
    "    mov.u32 %a4, %ctaid.x;\n"
    "    mov.u32 %a5, %tid.x;\n"
    "    mad.lo.u32 %a4, %a4, 256, %a5;\n"
    "    mul.wide.u32 %d2, %a4, 16;\n"
    "    add.u64 %d0, %d0, %d2;\n"
    "    add.u64 %d1, %d1, %d2;\n"
    "    setp.ge.u32 %p0, %a4, %a6;\n"
    "    griddepcontrol.wait;\n"
    "    @%p0 bra end;\n"
    "    ld.global.v4.b32 {%a0, %a1, %a2, %a3}, [%d1];\n"
    "    st.global.v4.b32 [%d0], {%a0, %a1, %a2, %a3};\n"
    "end:\n"
    "    ret;\n"
    "}\n";

static int compare(const void *left, const void *right) {
    const float a = *(const float *)left, b = *(const float *)right;
    return (a > b) - (a < b);
}

double ceiling_cuda_copy(int64_t byte_count, int sets, int launches, int tries) {
    float times[64] = {0};
    if (byte_count < 32 || sets < 1 || launches < 1 || tries < 1 || tries > 64 || !start()) return 0;
    const uint64_t bytes = ((uint64_t)byte_count / 2 + 15) / 16 * 16, step = (bytes + 255) / 256 * 256;
    unsigned units = (unsigned)(bytes / 16);
    uint64_t source = 0, target = 0;
    void *from = 0, *to = 0, *module = 0, *function = 0, *stream = 0, *graph = 0, *replay = 0;
    status s = cuda.allocate(&source, sets * step);
    if (!s) s = cuda.allocate(&target, sets * step);
    if (!s) s = cuda.fill(source, 0x3f9d2b17, sets * step / 4);
    if (!s) s = cuda.module_load(&module, copy_text);
    if (!s) s = cuda.module_function(&function, module, "copy_all");
    if (!s) s = cuda.event_create(&from, 0);
    if (!s) s = cuda.event_create(&to, 0);
    // A stream that does not wait for the default one; a capture of this thread's calls alone.
    if (!s) s = cuda.stream_create(&stream, 1);
    if (!s) s = cuda.capture_begin(stream, 1);
    if (!s) {
        for (int i = 0; i < launches && !s; i++) {
            uint64_t a = target + i % sets * step, b = source + i % sets * step;
            void *parameters[] = {&a, &b, &units};
            // Attribute 6: the kernel may start before those ahead are done.
            launch_attribute early = {.id = 6, .value.is_early = 1};
            const launch_shape shape = {{(units + 255) / 256, 1, 1}, {256, 1, 1}, 0, stream, &early, 1};
            s = cuda.launch_with(&shape, function, parameters, 0);
        }
        const status ended = cuda.capture_end(stream, &graph);
        if (!s) s = ended;
    }
    if (!s) s = cuda.graph_instantiate(&replay, graph, 0);
    for (int i = -2; i < tries && !s; i++) {
        cuda.event_record(from, stream);
        s = cuda.graph_launch(replay, stream);
        cuda.event_record(to, stream);
        if (!s) s = cuda.event_wait(to);
        if (!s && i >= 0) s = cuda.event_elapsed(&times[i], from, to);
    }
    if (replay) cuda.graph_exec_destroy(replay);
    if (graph) cuda.graph_destroy(graph);
    if (stream) cuda.stream_destroy(stream);
    if (from) cuda.event_destroy(from);
    if (to) cuda.event_destroy(to);
    if (module) cuda.module_unload(module);
    if (source) cuda.release(source);
    if (target) cuda.release(target);
    if (s) return 0;
    qsort(times, tries, sizeof *times, compare);
    return times[tries / 2] * 1e-3 / launches;
}
