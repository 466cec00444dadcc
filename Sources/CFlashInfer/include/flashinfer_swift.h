/*
 * flashinfer_swift.h: attention, KV cache and sampling kernels for LLM inference, on NVIDIA GPUs and CPUs, for callers in C.
 *
 * Library: libflashinfer_swift.so. Depends on libc, libm, libstdc++ and libgcc_s only; CUDA is found at run time.
 *
 * Its parts, by topic, are in flashinfer_swift/; include this one.
 *
 * Rules that hold for every function
 *   Status    Every function that can fail returns fi_status: FI_OK, or the kind of the error. fi_last_error_message() then says,
 *             for the calling thread, what was wrong: the argument, its value and what it must be. A call that fails because of
 *             its arguments has run and changed nothing.
 *   Tensors   `fi_tensor` is laid out as DLPack's DLTensor (versions 0.2 to 1.x); a `DLTensor *` can be passed as it is. Nothing
 *             is copied: data, shape and strides need to live as long as the call (on a GPU, data as long as the work). Strides
 *             are in elements; a NULL `strides` means row-major. Sizes are checked against each other; that the memory is as
 *             large as shape and strides say is the caller's word. "Last stride 1" below: elements of the innermost dimension
 *             lie next to each other. "Rows" are tensors of rank 1 to 3 [..., width] with last stride 1.
 *   Types     "Floating" below means float32, float16 or bfloat16. Index tensors are int32; an int64 tensor is an error that
 *             says so, never a misreading. "Cache types" are the floating ones, float8 e4m3fn, float8 e5m2, and int8.
 *   Devices   All tensors of a call lie on the call's device, but those marked "host or device": they are read on the host; where
 *             they are on the GPU the call copies them and WAITS for the stream, and it fails during a stream capture. Pinned and
 *             managed host memory counts as host memory.
 *   Streams   `stream` is the caller's CUstream / cudaStream_t as a pointer; NULL is the legacy default stream. Work is enqueued
 *             there and the call returns, unless noted. On the CPU `stream` is not looked at, and a call returns when its work
 *             is done. Before a stream is destroyed that was used here, call fi_device_forget_stream.
 *   Threads   Every function may be called from any thread at any time. Calls on one fi_attention take turns. Handles are
 *             destroyed once, when no other call uses them.
 *   Options   Structs of options begin with `struct_size`: set it to sizeof of the struct, and everything not wanted to 0 or NULL
 *             (= {0} in C, = {} in C++), which always means the default. A smaller size, of a caller built against an older
 *             header, means defaults for the rest; a size of 0, or above the library's, is FI_ABI_MISMATCH.
 *   LSE       Log-sum-exps are float32 and base 2 (log2 of the sum of 2^(score * log2 e)) unless asked for otherwise. A row that
 *             sees no key has output 0 and LSE -inf.
 *   Versions  Within a major version functions, fields at the ends of structs, and enumerators are added, never changed.
 */
#ifndef FLASHINFER_SWIFT_H
#define FLASHINFER_SWIFT_H

#include "flashinfer_swift/attention.h"
#include "flashinfer_swift/base.h"
#include "flashinfer_swift/bits.h"
#include "flashinfer_swift/cache.h"
#include "flashinfer_swift/logits.h"
#include "flashinfer_swift/pages.h"
#include "flashinfer_swift/parallel.h"
#include "flashinfer_swift/rows.h"

#endif /* FLASHINFER_SWIFT_H */
