// The kernels' texts, embedded, and the structs that they take as their one parameter.
//
// The params headers are plain C that both this module and the kernels include, so a launch cannot disagree with its kernel
// about where a field lies. Device pointers are 64-bit integers: TensorView addresses, as they are.
#ifndef FLASHINFER_CUDA_KERNELS_H
#define FLASHINFER_CUDA_KERNELS_H

#include "fi_attention_params.h"
#include "fi_cache_params.h"
#include "fi_division.h"
#include "fi_exchange_params.h"
#include "fi_hopper_attention_params.h"
#include "fi_merge_params.h"
#include "fi_rope_params.h"
#include "fi_rope_parts_params.h"
#include "fi_rows_params.h"
#include "fi_sample_params.h"
#include "fi_page_params.h"

/// One embedded text.
typedef struct {
    /// Its path below the module, as `#include` names it: "portable/attention.cuh".
    const char *_Null_unspecified name;
    /// NUL-terminated.
    const char *_Null_unspecified text;
} fi_kernel_text;

/// All texts, in order of their names; ends with a null name.
extern const fi_kernel_text fi_kernel_texts[];

/// The list, for Swift, which imports no array of unknown length.
static inline const fi_kernel_text *_Nonnull fi_kernel_text_list(void) { return fi_kernel_texts; }

/// What every shipped kernel takes, as text: resources.txt.
const char *_Nonnull fi_resource_table(void);

#endif
