/* Versions, errors, tensors, devices, and the parameters of rotary embedding. Include flashinfer_swift.h, which says what holds for every function. */
#ifndef FLASHINFER_SWIFT_BASE_H
#define FLASHINFER_SWIFT_BASE_H

#include <stddef.h>
#include <stdint.h>

#if defined(__cplusplus)
extern "C" {
#endif

/* ---- Version ------------------------------------------------------------------------------------------------------------- */

#define FI_VERSION_MAJOR 0
#define FI_VERSION_MINOR 1
#define FI_VERSION_PATCH 0
/* The version of this header as one number: major * 10000 + minor * 100 + patch. */
#define FI_VERSION (FI_VERSION_MAJOR * 10000 + FI_VERSION_MINOR * 100 + FI_VERSION_PATCH)

/* The version of the library, as FI_VERSION. A program works with a library whose major version is the header's and whose version
 * is not below the header's; while the major version is 0, the minor versions must be equal. */
uint32_t fi_version(void);

/* The version of the library as text, "0.1.0". Static memory. */
const char *fi_version_string(void);

/* ---- Errors -------------------------------------------------------------------------------------------------------------- */

typedef int32_t fi_status;

enum {
    FI_OK = 0,
    /* A tensor or scalar is wrong: type, shape, strides, device, or value. NULL where something is needed. */
    FI_INVALID_ARGUMENT = 1,
    /* A value of one request of a batch is wrong. */
    FI_INVALID_REQUEST = 2,
    /* An index pointer array decreases. */
    FI_INDPTR_NOT_MONOTONE = 3,
    /* A page id is outside the cache. */
    FI_PAGE_OUT_OF_RANGE = 4,
    /* A last-page length is outside 1 ... page size. */
    FI_LAST_PAGE_LENGTH_OUT_OF_RANGE = 5,
    /* Query heads are not a positive multiple of key/value heads. */
    FI_HEADS_NOT_DIVISIBLE = 6,
    /* Two lengths that must agree do not. */
    FI_LENGTH_MISMATCH = 7,
    /* A size does not fit in 64 bits, or in the 32 of a kernel's index. */
    FI_OVERFLOW = 8,
    /* The device has no kernel for a valid combination; the message names the nearest it has. */
    FI_UNSUPPORTED = 9,
    /* Run with something else than was planned, or not planned at all. */
    FI_PLAN_MISMATCH = 10,
    /* A plan exceeds the capacity it was bounded to. */
    FI_CAPACITY_EXCEEDED = 11,
    /* No memory. */
    FI_OUT_OF_MEMORY = 12,
    /* The driver or the operating system failed, or there is none. */
    FI_DEVICE_FAILURE = 13,
    /* A struct's struct_size is 0 or larger than this library knows. */
    FI_ABI_MISMATCH = 14,
    /* Ranks that work together were given different things; the message names the first that differs. */
    FI_RANK_MISMATCH = 15,
    /* A rank is gone, or was not there in time. */
    FI_RANK_FAILURE = 16
};

/* What was wrong in this thread's last call that failed; "" before the first. Valid until the next call of this thread that
 * fails. Calls that succeed do not change it. UTF-8. */
const char *fi_last_error_message(void);

/* The name of a status, "FI_INVALID_ARGUMENT"; "unknown" for others. Static memory. */
const char *fi_status_name(fi_status status);

/* ---- Tensors ------------------------------------------------------------------------------------------------------------- */

/* DLPack's DLDeviceType. Others are refused. */
enum {
    FI_CPU = 1,
    FI_CUDA = 2,
    FI_CUDA_HOST = 3,    /* pinned host memory: counts as FI_CPU */
    FI_CUDA_MANAGED = 13 /* counts as the device of the call */
};

/* DLPack's DLDevice. */
typedef struct fi_dl_device {
    int32_t device_type; /* FI_CPU, ... */
    int32_t device_id;   /* the GPU's ordinal */
} fi_dl_device;

/* DLPack's DLDataTypeCode. */
enum {
    FI_INT = 0,
    FI_UINT = 1,
    FI_FLOAT = 2,
    FI_BFLOAT = 4,
    FI_BOOL = 6,
    FI_FLOAT8_E4M3FN = 10,
    FI_FLOAT8_E5M2 = 12
};

/* DLPack's DLDataType: float32 is {FI_FLOAT, 32, 1}, bfloat16 {FI_BFLOAT, 16, 1}, e4m3 {FI_FLOAT8_E4M3FN, 8, 1}. Lanes are 1. */
typedef struct fi_data_type {
    uint8_t code;
    uint8_t bits;
    uint16_t lanes;
} fi_data_type;

/* DLPack's DLTensor, field by field. At most five dimensions; no negative strides. Never changed through a const pointer's shape
 * or strides; outputs are written through `data`. */
typedef struct fi_tensor {
    void *data;
    fi_dl_device device;
    int32_t ndim;
    fi_data_type dtype;
    int64_t *shape;
    int64_t *strides; /* NULL: row-major */
    uint64_t byte_offset;
} fi_tensor;

/* The order of tokens and heads in keys and values. */
enum {
    FI_NHD = 0, /* pages [pages, page_size, heads, dim], ragged [tokens, heads, dim] */
    FI_HND = 1  /* pages [pages, heads, page_size, dim], ragged [heads, tokens, dim] */
};

/* ---- Devices ------------------------------------------------------------------------------------------------------------- */

/* The CPU with its threads, or one GPU with its loaded kernels. */
typedef struct fi_device fi_device;

typedef struct fi_device_options {
    uint64_t struct_size;
    int32_t device_type; /* FI_CPU (also 0) or FI_CUDA */
    int32_t device_id;   /* the GPU's ordinal */
    int32_t threads;     /* CPU: threads, the caller included; 0 for all processors this process may use */
    int32_t reserved;    /* 0 */
} fi_device_options;

/* What fi_device_get_info tells. */
typedef struct fi_device_info {
    uint64_t struct_size;
    int32_t device_type;
    int32_t device_id;
    int32_t processors;    /* threads, or streaming multiprocessors */
    int32_t reserved;
    uint64_t memory_bytes; /* in all; 0 where unknown */
} fi_device_info;

/* GPUs (FI_CUDA) that this process sees, 0 where there is no driver; 1 for FI_CPU. Fails for other types. */
fi_status fi_device_count(int32_t device_type, int32_t *count);

/* Makes a device. `options` NULL is the CPU with all processors. A GPU shares the primary context with everybody else in the
 * process (a framework, another device). Several devices of one GPU may exist, but kernels are loaded once a device: keep one.
 * Fails where there is no such GPU, its driver is too old (CUDA 12.0), its compute capability is below 8.0, or no kernels can be
 * had (no bundle and no NVRTC). */
fi_status fi_device_create(const fi_device_options *options, fi_device **device);

/* Frees a device; NULL is nothing. Every fi_attention of it must be destroyed before. Streams used must still exist or be
 * forgotten. Waits for the work enqueued. */
void fi_device_destroy(fi_device *device);

/* A name for people: "cpu (avx512-bf16, 4 threads)", "cuda:0 (NVIDIA H200)". Lives as long as the device. */
const char *fi_device_name(const fi_device *device);

/* Fills the first struct_size bytes of *info. */
fi_status fi_device_get_info(const fi_device *device, fi_device_info *info);

/* Waits for the work enqueued on a stream. Nothing to do on the CPU. */
fi_status fi_device_synchronize(fi_device *device, void *stream);

/* Drops what is kept for a stream (a few buffers), after waiting for its work. To be called before a stream is destroyed that was
 * used here; plans made on it stay usable on other streams. */
fi_status fi_device_forget_stream(fi_device *device, void *stream);

/* ---- RoPE parameters ----------------------------------------------------------------------------------------------------- */

/* How the frequencies are changed for contexts longer than those of training. */
enum {
    FI_ROPE_UNSCALED = 0,
    FI_ROPE_LINEAR = 1,  /* divided by `factor` (FlashInfer's rope_scale) */
    FI_ROPE_LLAMA3 = 2,  /* Llama 3.1's ramp by wavelength */
    FI_ROPE_PER_PAIR = 3 /* pair i divided by factors[i] */
};

/* Rotary position embedding: pair i of rotary_dim / 2 turns by position * theta^(-2i / rotary_dim), changed by `scaling`. */
typedef struct fi_rope_options {
    uint64_t struct_size;
    float theta;              /* 0: 10000 */
    int32_t rotary_dim;       /* leading elements of a head that turn, even; 0: all */
    int32_t interleave;       /* 0: pairs (i, i + rotary_dim / 2) (NeoX, Llama); 1: pairs (2i, 2i + 1) (GPT-J) */
    int32_t scaling;          /* FI_ROPE_... */
    float factor;             /* LINEAR, LLAMA3 (0: 8) */
    float low_freq_factor;    /* LLAMA3; 0: 1 */
    float high_freq_factor;   /* LLAMA3; 0: 4 */
    int32_t original_context; /* LLAMA3; 0: 8192 */
    const float *factors;     /* PER_PAIR: rotary_dim / 2 numbers of host memory, copied */
    uint64_t factor_count;    /* PER_PAIR: how many */
    /* The rest is not for attention. [positions, rotary_dim] float32, on the call's device, last stride 1: of each position the
     * cosines, then the sines. They are read instead of computed, so theta and scaling do not count. On a GPU a position outside
     * gives NaN. NULL: computed. */
    const fi_tensor *cos_sin_cache;
    /* [head_dim], floating, contiguous: each head of q (and of k) is divided by the root of its mean square and multiplied by
     * norm_weight_offset + weight before it turns, in float32 (QK-norm). At most 1024 elements a head. NULL: not. */
    const fi_tensor *q_norm_weight;
    const fi_tensor *k_norm_weight; /* the type of q_norm_weight; NULL exactly where that is, or without k */
    float norm_eps;                 /* added to the mean square; 0: 1e-6 */
    float norm_weight_offset;       /* 0, or 1 for Gemma */
} fi_rope_options;

#if defined(__cplusplus)
}
#endif

#endif /* FLASHINFER_SWIFT_BASE_H */
