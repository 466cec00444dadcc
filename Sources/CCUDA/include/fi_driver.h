// The CUDA driver's functions that are used, by their names without the ABI's version suffix.
#ifndef FLASHINFER_DRIVER_H
#define FLASHINFER_DRIVER_H

#include <stddef.h>
#include <stdint.h>

#include "fi_symbols.h"

/// CUresult; 0 is success.
typedef int fi_cu_status;
/// CUdevice
typedef int fi_cu_device;
/// CUdeviceptr
typedef unsigned long long fi_cu_address;
/// CUcontext, CUstream, CUevent, CUmodule, CUfunction, CUgraph, CUgraphExec, CUmemoryPool
typedef uintptr_t fi_cu_context, fi_cu_stream, fi_cu_event, fi_cu_module, fi_cu_function, fi_cu_graph, fi_cu_graph_exec,
    fi_cu_pool;

/// CUmemPoolProps
typedef struct {
    int allocation_type, handle_types, location_type, location;
    void *_Nullable security_attributes;
    size_t maximum_size;
    unsigned short usage;
    unsigned char reserved[54];
} fi_cu_pool_properties;

/// CUipcMemHandle: names memory to other processes of the machine; handed over by value.
typedef struct {
    char bytes[64];
} fi_cu_memory_handle;

/// CUlaunchAttribute, where its value is a number.
typedef struct {
    int id, padding;
    long long value, rest[7];
} fi_cu_launch_attribute;

/// CUlaunchConfig
typedef struct {
    unsigned int grid_x, grid_y, grid_z, block_x, block_y, block_z, shared_bytes;
    fi_cu_stream stream;
    fi_cu_launch_attribute *_Nullable attributes;
    unsigned int attribute_count;
} fi_cu_launch_config;

/// CUlaunchAttributeID
enum { FI_CU_LAUNCH_PROGRAMMATIC_STREAM_SERIALIZATION = 6 };

enum {
    FI_CU_SUCCESS = 0,
    FI_CU_INVALID_VALUE = 1,
    FI_CU_OUT_OF_MEMORY = 2,
    FI_CU_DEINITIALIZED = 4,
    FI_CU_NO_DEVICE = 100,
    FI_CU_INVALID_CONTEXT = 201,
    FI_CU_ECC_UNCORRECTABLE = 214,
    FI_CU_NVLINK_UNCORRECTABLE = 220,
    FI_CU_CONTAINED = 226,
    FI_CU_NOT_READY = 600,
    FI_CU_ILLEGAL_ADDRESS = 700,
    FI_CU_LAUNCH_TIMEOUT = 702,
    FI_CU_PEER_ACCESS_ALREADY_ENABLED = 704,
    FI_CU_CONTEXT_IS_DESTROYED = 709,
    FI_CU_ASSERT = 710,
    FI_CU_HARDWARE_STACK_ERROR = 714,
    FI_CU_ILLEGAL_INSTRUCTION = 715,
    FI_CU_MISALIGNED_ADDRESS = 716,
    FI_CU_INVALID_ADDRESS_SPACE = 717,
    FI_CU_INVALID_PC = 718,
    FI_CU_LAUNCH_FAILED = 719,
    FI_CU_TENSOR_MEMORY_LEAK = 721,
    FI_CU_SYSTEM_DRIVER_MISMATCH = 803,
};

/// CUdevice_attribute
enum {
    FI_CU_ATTRIBUTE_PROCESSORS = 16,
    FI_CU_ATTRIBUTE_L2_BYTES = 38,
    FI_CU_ATTRIBUTE_MAJOR = 75,
    FI_CU_ATTRIBUTE_MINOR = 76,
    FI_CU_ATTRIBUTE_SHARED_BYTES_PER_PROCESSOR = 81,
    FI_CU_ATTRIBUTE_REGISTERS_PER_PROCESSOR = 82,
    FI_CU_ATTRIBUTE_SHARED_BYTES_PER_BLOCK_OPT_IN = 97,
    FI_CU_ATTRIBUTE_MEMORY_POOLS = 115,
    FI_CU_ATTRIBUTE_CLUSTER_LAUNCH = 120,
};

enum {
    /// CU_STREAM_NON_BLOCKING
    FI_CU_STREAM_NON_BLOCKING = 1,
    /// CU_EVENT_DISABLE_TIMING
    FI_CU_EVENT_NO_TIMING = 2,
    /// CU_STREAM_CAPTURE_MODE_THREAD_LOCAL, _RELAXED
    FI_CU_CAPTURE_THREAD_LOCAL = 1,
    FI_CU_CAPTURE_RELAXED = 2,
    /// CU_MEM_ALLOCATION_TYPE_PINNED, CU_MEM_LOCATION_TYPE_DEVICE
    FI_CU_ALLOCATION_PINNED = 1,
    FI_CU_LOCATION_DEVICE = 1,
    /// CU_MEMPOOL_ATTR_*
    FI_CU_POOL_RELEASE_THRESHOLD = 4,
    FI_CU_POOL_RESERVED_BYTES = 5,
    FI_CU_POOL_USED_BYTES = 7,
    /// CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS
    FI_CU_OPEN_WITH_PEER_ACCESS = 1,
    /// CU_FUNC_ATTRIBUTE_*
    FI_CU_FUNCTION_SHARED_BYTES = 1,
    FI_CU_FUNCTION_LOCAL_BYTES = 3,
    FI_CU_FUNCTION_REGISTERS = 4,
    FI_CU_FUNCTION_MAXIMUM_DYNAMIC_SHARED_BYTES = 8,
};

// name, exported symbol, whether required, parameters; all return a status.
#define FI_DRIVER_FUNCTIONS(X) \
    X(cuInit, "cuInit", 1, (unsigned int flags)) \
    X(cuDriverGetVersion, "cuDriverGetVersion", 1, (int *_Nonnull version)) \
    X(cuGetErrorName, "cuGetErrorName", 1, (fi_cu_status status, const char *_Nullable *_Nonnull name)) \
    X(cuGetErrorString, "cuGetErrorString", 1, (fi_cu_status status, const char *_Nullable *_Nonnull text)) \
    X(cuDeviceGetCount, "cuDeviceGetCount", 1, (int *_Nonnull count)) \
    X(cuDeviceGet, "cuDeviceGet", 1, (fi_cu_device *_Nonnull device, int ordinal)) \
    X(cuDeviceGetName, "cuDeviceGetName", 1, (char *_Nonnull name, int capacity, fi_cu_device device)) \
    X(cuDeviceTotalMem, "cuDeviceTotalMem_v2", 1, (size_t *_Nonnull bytes, fi_cu_device device)) \
    X(cuDeviceGetAttribute, "cuDeviceGetAttribute", 1, (int *_Nonnull value, int attribute, fi_cu_device device)) \
    X(cuDevicePrimaryCtxRetain, "cuDevicePrimaryCtxRetain", 1, (fi_cu_context *_Nonnull context, fi_cu_device device)) \
    X(cuDevicePrimaryCtxRelease, "cuDevicePrimaryCtxRelease_v2", 1, (fi_cu_device device)) \
    X(cuCtxGetCurrent, "cuCtxGetCurrent", 1, (fi_cu_context *_Nonnull context)) \
    X(cuCtxPushCurrent, "cuCtxPushCurrent_v2", 1, (fi_cu_context context)) \
    X(cuCtxPopCurrent, "cuCtxPopCurrent_v2", 1, (fi_cu_context *_Nonnull context)) \
    X(cuMemGetInfo, "cuMemGetInfo_v2", 1, (size_t *_Nonnull free, size_t *_Nonnull total)) \
    X(cuMemAlloc, "cuMemAlloc_v2", 1, (fi_cu_address *_Nonnull address, size_t bytes)) \
    X(cuMemFree, "cuMemFree_v2", 1, (fi_cu_address address)) \
    X(cuDeviceCanAccessPeer, "cuDeviceCanAccessPeer", 0, \
      (int *_Nonnull can, fi_cu_device device, fi_cu_device peer)) \
    X(cuCtxEnablePeerAccess, "cuCtxEnablePeerAccess", 0, (fi_cu_context peer, unsigned int flags)) \
    X(cuIpcGetMemHandle, "cuIpcGetMemHandle", 0, (fi_cu_memory_handle *_Nonnull handle, fi_cu_address address)) \
    X(cuIpcOpenMemHandle, "cuIpcOpenMemHandle_v2", 0, \
      (fi_cu_address *_Nonnull address, fi_cu_memory_handle handle, unsigned int flags)) \
    X(cuIpcCloseMemHandle, "cuIpcCloseMemHandle", 0, (fi_cu_address address)) \
    X(cuMemPoolCreate, "cuMemPoolCreate", 1, (fi_cu_pool *_Nonnull pool, const fi_cu_pool_properties *_Nonnull properties)) \
    X(cuMemPoolDestroy, "cuMemPoolDestroy", 1, (fi_cu_pool pool)) \
    X(cuMemPoolSetAttribute, "cuMemPoolSetAttribute", 1, (fi_cu_pool pool, int attribute, void *_Nonnull value)) \
    X(cuMemPoolGetAttribute, "cuMemPoolGetAttribute", 1, (fi_cu_pool pool, int attribute, void *_Nonnull value)) \
    X(cuMemPoolTrimTo, "cuMemPoolTrimTo", 1, (fi_cu_pool pool, size_t bytes_to_keep)) \
    X(cuMemAllocFromPoolAsync, "cuMemAllocFromPoolAsync", 1, \
      (fi_cu_address *_Nonnull address, size_t bytes, fi_cu_pool pool, fi_cu_stream stream)) \
    X(cuMemFreeAsync, "cuMemFreeAsync", 1, (fi_cu_address address, fi_cu_stream stream)) \
    X(cuMemHostAlloc, "cuMemHostAlloc", 1, (void *_Nullable *_Nonnull memory, size_t bytes, unsigned int flags)) \
    X(cuMemFreeHost, "cuMemFreeHost", 1, (void *_Nonnull memory)) \
    X(cuMemcpyHtoDAsync, "cuMemcpyHtoDAsync_v2", 1, \
      (fi_cu_address destination, const void *_Nonnull source, size_t bytes, fi_cu_stream stream)) \
    X(cuMemcpyDtoHAsync, "cuMemcpyDtoHAsync_v2", 1, \
      (void *_Nonnull destination, fi_cu_address source, size_t bytes, fi_cu_stream stream)) \
    X(cuMemsetD8Async, "cuMemsetD8Async", 1, \
      (fi_cu_address destination, unsigned char byte, size_t bytes, fi_cu_stream stream)) \
    X(cuStreamCreate, "cuStreamCreate", 1, (fi_cu_stream *_Nonnull stream, unsigned int flags)) \
    X(cuStreamDestroy, "cuStreamDestroy_v2", 1, (fi_cu_stream stream)) \
    X(cuStreamGetCtx, "cuStreamGetCtx", 1, (fi_cu_stream stream, fi_cu_context *_Nonnull context)) \
    X(cuStreamSynchronize, "cuStreamSynchronize", 1, (fi_cu_stream stream)) \
    X(cuStreamIsCapturing, "cuStreamIsCapturing", 1, (fi_cu_stream stream, int *_Nonnull status)) \
    X(cuStreamBeginCapture, "cuStreamBeginCapture_v2", 1, (fi_cu_stream stream, int mode)) \
    X(cuStreamEndCapture, "cuStreamEndCapture", 1, (fi_cu_stream stream, fi_cu_graph *_Nonnull graph)) \
    X(cuThreadExchangeStreamCaptureMode, "cuThreadExchangeStreamCaptureMode", 1, (int *_Nonnull mode)) \
    X(cuGraphInstantiate, "cuGraphInstantiateWithFlags", 1, \
      (fi_cu_graph_exec *_Nonnull executable, fi_cu_graph graph, unsigned long long flags)) \
    X(cuGraphLaunch, "cuGraphLaunch", 1, (fi_cu_graph_exec executable, fi_cu_stream stream)) \
    X(cuGraphDestroy, "cuGraphDestroy", 1, (fi_cu_graph graph)) \
    X(cuGraphExecDestroy, "cuGraphExecDestroy", 1, (fi_cu_graph_exec executable)) \
    X(cuEventCreate, "cuEventCreate", 1, (fi_cu_event *_Nonnull event, unsigned int flags)) \
    X(cuEventDestroy, "cuEventDestroy_v2", 1, (fi_cu_event event)) \
    X(cuEventRecord, "cuEventRecord", 1, (fi_cu_event event, fi_cu_stream stream)) \
    X(cuEventQuery, "cuEventQuery", 1, (fi_cu_event event)) \
    X(cuEventSynchronize, "cuEventSynchronize", 1, (fi_cu_event event)) \
    X(cuEventElapsedTime, "cuEventElapsedTime", 1, \
      (float *_Nonnull milliseconds, fi_cu_event start, fi_cu_event end)) \
    X(cuModuleLoadData, "cuModuleLoadData", 1, (fi_cu_module *_Nonnull module, const void *_Nonnull image)) \
    X(cuModuleUnload, "cuModuleUnload", 1, (fi_cu_module module)) \
    X(cuModuleGetFunction, "cuModuleGetFunction", 1, \
      (fi_cu_function *_Nonnull function, fi_cu_module module, const char *_Nonnull name)) \
    X(cuFuncGetAttribute, "cuFuncGetAttribute", 1, (int *_Nonnull value, int attribute, fi_cu_function function)) \
    X(cuFuncSetAttribute, "cuFuncSetAttribute", 1, (fi_cu_function function, int attribute, int value)) \
    X(cuFuncGetParamInfo, "cuFuncGetParamInfo", 0, \
      (fi_cu_function function, size_t index, size_t *_Nonnull offset, size_t *_Nonnull bytes)) \
    X(cuOccupancyMaxActiveBlocksPerMultiprocessor, "cuOccupancyMaxActiveBlocksPerMultiprocessor", 1, \
      (int *_Nonnull blocks, fi_cu_function function, int threads, size_t dynamic_shared_bytes)) \
    X(cuTensorMapEncodeTiled, "cuTensorMapEncodeTiled", 1, \
      (void *_Nonnull map, int data_type, unsigned int rank, void *_Nonnull address, const uint64_t *_Nonnull dimensions, \
       const uint64_t *_Nonnull strides, const uint32_t *_Nonnull box, const uint32_t *_Nonnull element_strides, \
       int interleave, int swizzle, int l2_promotion, int out_of_bounds_fill)) \
    X(cuLaunchKernel, "cuLaunchKernel", 1, \
      (fi_cu_function function, unsigned int grid_x, unsigned int grid_y, unsigned int grid_z, unsigned int block_x, \
       unsigned int block_y, unsigned int block_z, unsigned int shared_bytes, fi_cu_stream stream, \
       void *_Nullable *_Nonnull parameters, void *_Nullable *_Nullable extra)) \
    X(cuLaunchKernelEx, "cuLaunchKernelEx", 0, \
      (const fi_cu_launch_config *_Nonnull config, fi_cu_function function, void *_Nullable *_Nonnull parameters, \
       void *_Nullable *_Nullable extra))

/// The driver's functions. A field is null only where its function is optional and the driver is older than it.
typedef struct {
#define X(name, symbol, required, parameters) fi_cu_status (*_Null_unspecified name) parameters;
    FI_DRIVER_FUNCTIONS(X)
#undef X
} fi_driver_table;

/// The symbols of ``fi_driver_table``, as `fi_fill_table` takes them.
const fi_symbol *_Nonnull fi_driver_symbols(void);

#endif
