// The parameter of the attention kernels for Hopper.
#ifndef FLASHINFER_HOPPER_ATTENTION_PARAMS_H
#define FLASHINFER_HOPPER_ATTENTION_PARAMS_H

#include "fi_attention_params.h"
#include "fi_tensor_map.h"

/// Attention whose keys and values the copy engine brings: their dimensions are element, head, row of a block, block.
typedef struct {
    fi_tensor_map keys, values;
    fi_attention_params attention;
    /// Rows of a box: a whole block's, or a power of two that divides a block's and a stage's.
    int box_rows;
    /// Where boxes have whole rows: how many heads' places a block is from the next, in keys and in values. Their dimensions are then element
    /// of 64, row of 8, 64 elements of a row, 8 rows of a block, and head and block in one.
    int keys_apart, values_apart;
    /// Where lists run beside the queue: how many there are, and their tile.
    int lists, list_tile;
    /// To a multiple of 64 bytes, the maps' alignment.
    int unused[9];
} fi_hopper_attention_params;

#ifdef __cplusplus
static_assert(sizeof(fi_hopper_attention_params) % 64 == 0, "the kernel's parameter is as long as the host's");
#else
_Static_assert(sizeof(fi_hopper_attention_params) % 64 == 0, "the kernel's parameter is as long as the host's");
#endif

#endif
