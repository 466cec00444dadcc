"""Attention, KV cache and sampling kernels for LLM inference, on NVIDIA GPUs and CPUs.

The names, arguments and results are FlashInfer's, for torch, NumPy and CuPy tensors and for any object with DLPack, read where
they lie. Importing this package imports no array library and looks for no GPU.
"""

from __future__ import annotations

from . import torch_ops as torch_ops
from .activation import gelu_and_mul as gelu_and_mul
from .activation import gelu_tanh_and_mul as gelu_tanh_and_mul
from .activation import silu_and_mul as silu_and_mul
from .attention import BatchAttention as BatchAttention
from .attention import BatchAttentionWithAttentionSinkWrapper as BatchAttentionWithAttentionSinkWrapper
from .cascade import BatchDecodeWithSharedPrefixPagedKVCacheWrapper as BatchDecodeWithSharedPrefixPagedKVCacheWrapper
from .cascade import BatchPrefillWithSharedPrefixPagedKVCacheWrapper as BatchPrefillWithSharedPrefixPagedKVCacheWrapper
from .cascade import MultiLevelCascadeAttentionWrapper as MultiLevelCascadeAttentionWrapper
from .cascade import merge_state as merge_state
from .cascade import merge_state_in_place as merge_state_in_place
from .cascade import merge_states as merge_states
from .decode import BatchDecodeWithPagedKVCacheWrapper as BatchDecodeWithPagedKVCacheWrapper
from .decode import CUDAGraphBatchDecodeWithPagedKVCacheWrapper as CUDAGraphBatchDecodeWithPagedKVCacheWrapper
from .decode import fast_decode_plan as fast_decode_plan
from .decode import single_decode_with_kv_cache as single_decode_with_kv_cache
from .decode import single_decode_with_kv_cache_with_jit_module as single_decode_with_kv_cache_with_jit_module
from .errors import DeviceError as DeviceError
from .errors import FlashInferError as FlashInferError
from .errors import InvalidArgumentError as InvalidArgumentError
from .errors import LibraryNotFoundError as LibraryNotFoundError
from .errors import OutOfMemoryError as OutOfMemoryError
from .errors import RankError as RankError
from .errors import UnsupportedError as UnsupportedError
from .logits import adjust_logits as adjust_logits
from .logits import log_probs as log_probs
from .logits import top_log_probs as top_log_probs
from .mla import BatchDecodeMlaWithPagedKVCacheWrapper as BatchDecodeMlaWithPagedKVCacheWrapper
from .mla import BatchMLAPagedAttentionWrapper as BatchMLAPagedAttentionWrapper
from .mla import append_paged_mla_kv_cache as append_paged_mla_kv_cache
from .mla import concat_mla_k as concat_mla_k
from .norm import fused_add_rmsnorm as fused_add_rmsnorm
from .norm import fused_add_rmsnorm_quant as fused_add_rmsnorm_quant
from .norm import gemma_fused_add_rmsnorm as gemma_fused_add_rmsnorm
from .norm import gemma_rmsnorm as gemma_rmsnorm
from .norm import layernorm as layernorm
from .norm import layernorm_group_quant as layernorm_group_quant
from .norm import layernorm_quant as layernorm_quant
from .norm import rmsnorm as rmsnorm
from .norm import rmsnorm_group_quant as rmsnorm_group_quant
from .norm import rmsnorm_quant as rmsnorm_quant
from .page import append_paged_kv_cache as append_paged_kv_cache
from .page import append_paged_kv_cache_at as append_paged_kv_cache_at
from .page import get_batch_indices_positions as get_batch_indices_positions
from .page import get_seq_lens as get_seq_lens
from .page import get_slot_table as get_slot_table
from .page import rope_append_paged_kv_cache as rope_append_paged_kv_cache
from .page import rope_append_paged_kv_cache_at as rope_append_paged_kv_cache_at
from .pages import score_pages as score_pages
from .pages import update_page_bounds as update_page_bounds
from .pod import BatchPODWithPagedKVCacheWrapper as BatchPODWithPagedKVCacheWrapper
from .pod import PODWithPagedKVCacheWrapper as PODWithPagedKVCacheWrapper
from .prefill import BatchPrefillWithPagedKVCacheWrapper as BatchPrefillWithPagedKVCacheWrapper
from .prefill import BatchPrefillWithRaggedKVCacheWrapper as BatchPrefillWithRaggedKVCacheWrapper
from .prefill import single_prefill_with_kv_cache as single_prefill_with_kv_cache
from .prefill import single_prefill_with_kv_cache_return_lse as single_prefill_with_kv_cache_return_lse
from .prefill import single_prefill_with_kv_cache_with_jit_module as single_prefill_with_kv_cache_with_jit_module
from .quantization import packbits as packbits
from .quantization import per_token_group_quant_8bit as per_token_group_quant_8bit
from .quantization import segment_packbits as segment_packbits
from .rope import apply_llama31_rope as apply_llama31_rope
from .rope import apply_llama31_rope_inplace as apply_llama31_rope_inplace
from .rope import apply_llama31_rope_pos_ids as apply_llama31_rope_pos_ids
from .rope import apply_llama31_rope_pos_ids_inplace as apply_llama31_rope_pos_ids_inplace
from .rope import apply_rope as apply_rope
from .rope import apply_rope_inplace as apply_rope_inplace
from .rope import apply_rope_pos_ids as apply_rope_pos_ids
from .rope import apply_rope_pos_ids_inplace as apply_rope_pos_ids_inplace
from .rope import apply_rope_with_cos_sin_cache as apply_rope_with_cos_sin_cache
from .rope import apply_rope_with_cos_sin_cache_inplace as apply_rope_with_cos_sin_cache_inplace
from .rope_quantize import mla_rope_quantize_fp8 as mla_rope_quantize_fp8
from .rope_quantize import rope_quantize_fp8 as rope_quantize_fp8
from .rope_quantize import rope_quantize_fp8_append_paged_kv_cache as rope_quantize_fp8_append_paged_kv_cache
from .sampling import chain_speculative_sampling as chain_speculative_sampling
from .sampling import min_p_sampling_from_probs as min_p_sampling_from_probs
from .sampling import sampling_from_logits as sampling_from_logits
from .sampling import sampling_from_probs as sampling_from_probs
from .sampling import softmax as softmax
from .sampling import top_k_mask_logits as top_k_mask_logits
from .sampling import top_k_renorm_probs as top_k_renorm_probs
from .sampling import top_k_sampling_from_probs as top_k_sampling_from_probs
from .sampling import top_k_top_p_sampling_from_logits as top_k_top_p_sampling_from_logits
from .sampling import top_k_top_p_sampling_from_probs as top_k_top_p_sampling_from_probs
from .sampling import top_p_renorm_probs as top_p_renorm_probs
from .sampling import top_p_sampling_from_probs as top_p_sampling_from_probs
from .sparse import BlockSparseAttentionWrapper as BlockSparseAttentionWrapper
from .sparse import VariableBlockSparseAttentionWrapper as VariableBlockSparseAttentionWrapper
from .topk import TopKTieBreak as TopKTieBreak
from .topk import top_k as top_k
from .topk import top_k_page_table_transform as top_k_page_table_transform
from .topk import top_k_ragged_transform as top_k_ragged_transform
from . import comm as comm
from . import info as info
from . import logits_processor as logits_processor
from . import packed_sampling as packed_sampling
from . import parallel as parallel
from .version import __version__ as __version__

torch_ops.register_if_torch_is_imported()
