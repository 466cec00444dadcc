"""The C header's structs and functions, for ctypes. `tests/test_abi.py` compares them with `flashinfer_swift.h`, line by line."""

from __future__ import annotations

import ctypes
from ctypes import POINTER, c_char_p, c_float, c_int32, c_int64, c_uint8, c_uint16, c_uint32, c_uint64, c_void_p

# Statuses.
(
    OK, INVALID_ARGUMENT, INVALID_REQUEST, INDPTR_NOT_MONOTONE, PAGE_OUT_OF_RANGE, LAST_PAGE_LENGTH_OUT_OF_RANGE,
    HEADS_NOT_DIVISIBLE, LENGTH_MISMATCH, OVERFLOW, UNSUPPORTED, PLAN_MISMATCH, CAPACITY_EXCEEDED, OUT_OF_MEMORY,
    DEVICE_FAILURE, ABI_MISMATCH, RANK_MISMATCH, RANK_FAILURE,
) = range(17)

DEVICE_CPU, DEVICE_CUDA = 1, 2
NHD, HND = 0, 1
ROPE_UNSCALED, ROPE_LINEAR, ROPE_LLAMA3, ROPE_PER_PAIR = range(4)
MASK_NONE, MASK_CAUSAL, MASK_CUSTOM, MASK_CUSTOM_PACKED = range(4)
POSITION_NONE, POSITION_ROPE, POSITION_ALIBI = range(3)
SPLIT_BALANCED, SPLIT_FIXED, SPLIT_NONE = range(3)
SILU, GELU, GELU_TANH = range(3)
TOP_K_FIRST, JOINT = range(2)
LOGITS, PROBABILITIES = range(2)
SHARE_CHUNKS, SHARE_INTERLEAVED, SHARE_ZIGZAG = range(3)
TRANSPORT_AUTOMATIC, TRANSPORT_HOST = range(2)
ROW_OK = 0

#: What a draw's seed moves by from one row to the next where all rows share their parameters.
ROW_SEED_STEP = 0x9E3779B97F4A7C15

#: (code, bits) of each type.
DTYPES: dict[str, tuple[int, int]] = {
    "int8": (0, 8), "int16": (0, 16), "int32": (0, 32), "int64": (0, 64), "uint8": (1, 8), "uint16": (1, 16),
    "uint32": (1, 32), "uint64": (1, 64), "float16": (2, 16), "float32": (2, 32), "float64": (2, 64), "bfloat16": (4, 16),
    "bool": (6, 8), "float8_e4m3fn": (10, 8), "float8_e5m2": (12, 8),
}


class DType(ctypes.Structure):
    _fields_ = [("code", c_uint8), ("bits", c_uint8), ("lanes", c_uint16)]

    @classmethod
    def named(cls, name: str) -> "DType":
        code, bits = DTYPES[name]
        return cls(code, bits, 1)


class DeviceOptions(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_uint64), ("device_type", c_int32), ("device_id", c_int32), ("threads", c_int32),
        ("reserved", c_int32),
    ]


class DeviceInfo(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_uint64), ("device_type", c_int32), ("device_id", c_int32), ("processors", c_int32),
        ("reserved", c_int32), ("memory_bytes", c_uint64),
    ]


class RopeOptions(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_uint64), ("theta", c_float), ("rotary_dim", c_int32), ("interleave", c_int32),
        ("scaling", c_int32), ("factor", c_float), ("low_freq_factor", c_float), ("high_freq_factor", c_float),
        ("original_context", c_int32), ("factors", POINTER(c_float)), ("factor_count", c_uint64),
        ("cos_sin_cache", c_void_p), ("q_norm_weight", c_void_p), ("k_norm_weight", c_void_p), ("norm_eps", c_float),
        ("norm_weight_offset", c_float),
    ]


class AttentionOptions(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_uint64), ("num_qo_heads", c_int32), ("num_kv_heads", c_int32), ("head_dim_qk", c_int32),
        ("head_dim_vo", c_int32), ("q_dtype", DType), ("kv_dtype", DType), ("o_dtype", DType), ("kv_layout", c_int32),
        ("mask_mode", c_int32), ("window", c_int32), ("logits_soft_cap", c_float), ("sm_scale", c_float),
        ("position_encoding", c_int32), ("has_sinks", c_int32), ("rope", POINTER(RopeOptions)), ("split_mode", c_int32),
        ("split_size", c_int32), ("max_requests", c_int64), ("max_queries", c_int64), ("max_request_queries", c_int64),
        ("max_keys", c_int64), ("max_pages", c_int64), ("variant", c_char_p), ("max_levels", c_int64),
        ("latent_rope_dim", c_int32), ("reserved", c_int32),
    ]


class RunArgs(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_uint64), ("q", c_void_p), ("k", c_void_p), ("v", c_void_p), ("kv", c_void_p), ("out", c_void_p),
        ("lse", c_void_p), ("mask", c_void_p), ("alibi_slopes", c_void_p), ("sinks", c_void_p), ("k_scales", c_void_p),
        ("v_scales", c_void_p), ("q_scale", c_float), ("k_scale", c_float), ("v_scale", c_float), ("o_scale", c_float),
        ("sm_scale", c_float), ("lse_natural", c_int32), ("parameters", c_void_p), ("parameter_count", c_uint64),
        ("q_scales", c_void_p), ("page_indices", c_void_p), ("page_positions", c_void_p),
    ]


class SelectedPagesOptions(ctypes.Structure):
    _fields_ = [("struct_size", c_uint64), ("has_positions", c_int32), ("per_head", c_int32)]


class CascadeLevel(ctypes.Structure):
    _fields_ = [("qo_indptr", c_void_p), ("kv_indptr", c_void_p), ("kv_indices", c_void_p), ("last_page_len", c_void_p)]


class MLARunArgs(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_uint64), ("q_nope", c_void_p), ("q_pe", c_void_p), ("ckv", c_void_p), ("kpe", c_void_p),
        ("out", c_void_p), ("lse", c_void_p), ("ckv_scale", c_float), ("kpe_scale", c_float), ("lse_natural", c_int32),
        ("reserved", c_int32),
    ]


class Parameter(ctypes.Structure):
    _fields_ = [("name", c_char_p), ("tensor", c_void_p)]


class PlanInfo(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_uint64), ("queries", c_int64), ("requests", c_int64), ("work_items", c_int64),
        ("merge_items", c_int64), ("workspace_bytes", c_int64), ("mask_bytes", c_int64), ("levels", c_int64),
    ]


class AppendArgs(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_uint64), ("k", c_void_p), ("v", c_void_p), ("k_cache", c_void_p), ("v_cache", c_void_p),
        ("kv_cache", c_void_p), ("kv_layout", c_int32), ("reserved", c_int32), ("k_scale", c_float), ("v_scale", c_float),
        ("k_scales", c_void_p), ("v_scales", c_void_p), ("kv_indptr", c_void_p), ("kv_indices", c_void_p),
        ("last_page_len", c_void_p), ("batch_indices", c_void_p), ("positions", c_void_p), ("append_indptr", c_void_p),
        ("slot_mapping", c_void_p), ("slot_table", c_void_p),
    ]


class QuantizeOptions(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_uint64), ("scale", c_float), ("reserved", c_int32), ("scale_tensor", c_void_p),
        ("row_scales", c_void_p), ("group_scales", c_void_p), ("group_size", c_int32), ("reserved_too", c_int32),
    ]


class SplitRopeArgs(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_uint64), ("q_rope", c_void_p), ("q_nope", c_void_p), ("k_rope", c_void_p), ("k_nope", c_void_p),
        ("v", c_void_p), ("q_rope_out", c_void_p), ("q_nope_out", c_void_p), ("k_rope_out", c_void_p), ("k_nope_out", c_void_p),
        ("q_factor", c_float), ("kv_factor", c_float), ("positions", c_void_p), ("rope", POINTER(RopeOptions)),
        ("append", POINTER(AppendArgs)),
    ]


class SamplingParameters(ctypes.Structure):
    _fields_ = [
        ("temperature", c_float), ("top_k", c_int32), ("top_p", c_float), ("min_p", c_float), ("seed", c_uint64),
        ("step", c_uint64),
    ]


class LogitChanges(ctypes.Structure):
    _fields_ = [
        ("repetition", c_float), ("presence", c_float), ("frequency", c_float), ("prompt_begin", c_int32),
        ("prompt_end", c_int32), ("output_begin", c_int32), ("output_end", c_int32), ("bias_begin", c_int32),
        ("bias_end", c_int32),
    ]


class KVShare(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_uint64), ("split", c_int32), ("rank", c_int32), ("world_size", c_int32), ("reserved", c_int32),
        ("page_size", c_int64), ("run_pages", c_int64),
    ]


class CommunicatorOptions(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_uint64), ("rank", c_int32), ("world_size", c_int32), ("address", c_char_p), ("port", c_int32),
        ("transport", c_int32), ("timeout_ms", c_int64),
    ]


class RequestDraw(ctypes.Structure):
    _fields_ = [("seed", c_uint64), ("step", c_uint64)]


#: Structs by the header's names.
STRUCTS: dict[str, type[ctypes.Structure]] = {
    "fi_device_options": DeviceOptions, "fi_device_info": DeviceInfo, "fi_rope_options": RopeOptions,
    "fi_attention_options": AttentionOptions, "fi_attention_run_args": RunArgs, "fi_attention_plan_info": PlanInfo,
    "fi_mla_run_args": MLARunArgs, "fi_selected_pages_options": SelectedPagesOptions,
    "fi_append_args": AppendArgs, "fi_quantize_options": QuantizeOptions, "fi_split_rope_args": SplitRopeArgs,
    "fi_sampling_parameters": SamplingParameters, "fi_request_draw": RequestDraw, "fi_logit_changes": LogitChanges,
    "fi_kv_share": KVShare, "fi_communicator_options": CommunicatorOptions,
}

# Tensors, handles and streams are plain addresses.
_T = _H = _S = c_void_p
_F, _I32, _I64 = c_float, c_int32, c_int64

#: name: arguments of every function that returns a status.
FUNCTIONS: dict[str, list] = {
    "fi_device_count": [_I32, POINTER(c_int32)],
    "fi_device_create": [c_void_p, POINTER(c_void_p)],
    "fi_device_get_info": [_H, c_void_p],
    "fi_device_synchronize": [_H, _S],
    "fi_device_forget_stream": [_H, _S],
    "fi_attention_create": [_H, c_void_p, POINTER(c_void_p)],
    "fi_attention_configure": [_H, c_void_p],
    "fi_attention_plan_paged": [_H, _S, _T, _T, _T, _T, _I64, _I64],
    "fi_attention_plan_selected_pages": [_H, _S, _T, _T, _I64, _I64, _I64],
    "fi_attention_plan_selected_pages_with_options": [_H, _S, _T, _T, _I64, _I64, _I64, c_void_p],
    "fi_attention_plan_cascade": [_H, _S, c_void_p, c_uint64, _I64, _I64],
    "fi_attention_plan_shared_prefixes": [_H, _S, _T, _T, _T, _T, _I64, _I64, _I64],
    "fi_kv_share_key_count": [c_void_p, _I64, POINTER(c_int64)],
    "fi_kv_share_owner": [c_void_p, _I64, POINTER(c_int32), POINTER(c_int64)],
    "fi_kv_share_page": [c_void_p, _I64, POINTER(c_int64)],
    "fi_attention_plan_kv_share": [_H, _S, c_void_p, c_uint64, _T, _T, _T, _T, _I64],
    "fi_head_share": [_I64, _I64, _I32, _I32, POINTER(c_int64), POINTER(c_int64)],
    "fi_communicator_create": [_H, _S, c_void_p, POINTER(c_void_p)],
    "fi_communicator_get_rank": [_H, POINTER(c_int32), POINTER(c_int32)],
    "fi_communicator_barrier": [_H],
    "fi_communicator_all_gather": [_H, _T, _T],
    "fi_merge_states_across_ranks": [_H, _T, _T, _T, _T],
    "fi_attention_plan_block_tables": [_H, _S, _T, _T, _T, _I64, _I64],
    "fi_attention_plan_ragged": [_H, _S, _T, _T],
    "fi_attention_plan_single": [_H, _S, _I64, _I64],
    "fi_attention_plan_block_sparse": [_H, _S, _I64, _I64, _I64, _I64, _T, _T],
    "fi_attention_run": [_H, _S, c_void_p],
    "fi_mla_plan": [_H, _S, _T, _T, _T, _T, _I64, _I64],
    "fi_mla_run": [_H, _S, c_void_p],
    "fi_attention_get_plan_info": [_H, c_void_p],
    "fi_merge_state": [_H, _S, _T, _T, _T, _T, _T, _T],
    "fi_merge_state_in_place": [_H, _S, _T, _T, _T, _T, _T],
    "fi_merge_states": [_H, _S, _T, _T, _T, _T],
    "fi_append_paged_kv": [_H, _S, c_void_p],
    "fi_rope_append": [_H, _S, _T, _T, _F, _T, c_void_p, c_void_p],
    "fi_batch_indices_positions": [_H, _S, _T, _T, _T, _T],
    "fi_seq_lens": [_H, _S, _T, _T, _I64, _T],
    "fi_slot_table": [_H, _S, _T, _T, _T, _I64, _T, _T, _T],
    "fi_copy_pages": [_H, _S, _T, _T, _T, _I32, _T, _T],
    "fi_rmsnorm": [_H, _S, _T, _T, _T, _F, _F],
    "fi_fused_add_rmsnorm": [_H, _S, _T, _T, _T, _T, _F, _F],
    "fi_rmsnorm_quantize": [_H, _S, _T, _T, _T, _F, _F, c_void_p],
    "fi_fused_add_rmsnorm_quantize": [_H, _S, _T, _T, _T, _T, _F, _F, c_void_p],
    "fi_layernorm": [_H, _S, _T, _T, _T, _T, _T, _F, c_void_p],
    "fi_quantize": [_H, _S, _T, _T, c_void_p],
    "fi_act_and_mul": [_H, _S, _I32, _T, _T],
    "fi_gated_activation": [_H, _S, _I32, _T, _T, _T],
    "fi_act_and_mul_quantize": [_H, _S, _I32, _T, _T, c_void_p],
    "fi_gated_activation_quantize": [_H, _S, _I32, _T, _T, _T, c_void_p],
    "fi_rope": [_H, _S, _T, _T, _T, _T, _T, c_void_p],
    "fi_split_rope": [_H, _S, c_void_p],
    "fi_rope_positions": [_H, _S, _T, _T, _T],
    "fi_add": [_H, _S, _T, _T, _T, _F, _F],
    "fi_convert": [_H, _S, _T, _T, _F],
    "fi_embedding": [_H, _S, _T, _T, _T, _F],
    "fi_softmax": [_H, _S, _T, _T, _T, _T],
    "fi_argmax": [_H, _S, _T, _T, _T],
    "fi_log_probability": [_H, _S, _T, _T, _T, _T, _T],
    "fi_sample": [_H, _S, _T, c_void_p, _I64, _I32, _T, _T],
    "fi_sample_probabilities": [_H, _S, _T, c_void_p, _I64, _I32, _T, _T],
    "fi_filter": [_H, _S, _T, _I32, c_void_p, _I64, _I32, _T, _T],
    "fi_sample_packed": [_H, _S, _T, _I32, _T, _I32, _T, _T],
    "fi_filter_packed": [_H, _S, _T, _I32, _T, _I32, _T, _T],
    "fi_top_k": [_H, _S, _T, _I32, _T, _T],
    "fi_select_pages": [_H, _S, _T, _T, _T, _T, _T, _I32, _I32, _T],
    "fi_select_pages_with_positions": [_H, _S, _T, _T, _T, _T, _T, _I32, _I32, _T, _T],
    "fi_update_page_bounds": [_H, _S, _T, _I32, _T, _T, _T, _T, _I64],
    "fi_score_pages": [_H, _S, _T, _T, _T, _T, _I32, _T],
    "fi_top_log_probabilities": [_H, _S, _T, _F, _T, _T, _T],
    "fi_adjust_logits": [_H, _S, _T, c_void_p, _I64, _T, _T, _T, _T],
    "fi_verify_drafts": [_H, _S, _T, _T, _T, _T, _T, c_void_p, _I64, _T, _T, _T, _T, _T],
    "fi_verify_drafts_packed": [_H, _S, _T, _T, _T, _T, _T, _T, _T, _T, _T, _T, _T],
    "fi_packbits": [_T, _I32, _T],
    "fi_segment_packbits": [_T, _T, _I32, _T, _T],
    "fi_pack_bits": [_H, _S, _T, _I32, _T],
    "fi_segment_pack_bits": [_H, _S, _T, _T, _T, _I32, _T],
}

#: name: (result, arguments) of the others.
OTHER_FUNCTIONS: dict[str, tuple] = {
    "fi_version": (c_uint32, []),
    "fi_version_string": (c_char_p, []),
    "fi_last_error_message": (c_char_p, []),
    "fi_status_name": (c_char_p, [c_int32]),
    "fi_device_destroy": (None, [_H]),
    "fi_device_name": (c_char_p, [_H]),
    "fi_attention_destroy": (None, [_H]),
    "fi_communicator_destroy": (None, [_H]),
}
