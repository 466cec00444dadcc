"""Multi-head latent attention (DeepSeek). The library has no kernel of its own for it yet."""

from __future__ import annotations

from typing import Any

from .errors import UnsupportedError, unsupported

_REASON = "there is no kernel for latent attention with separate ckv and kpe caches"
_INSTEAD = (
    "BatchAttention or BatchPrefillWithPagedKVCacheWrapper on decompressed keys and values (head_dim_qk 192, head_dim_vo 128)")


class BatchMLAPagedAttentionWrapper:
    """Raises ``NotImplementedError``; the methods say what the peer's take."""

    def __init__(
        self, float_workspace_buffer: Any, use_cuda_graph: bool = False, qo_indptr: Any = None, kv_indptr: Any = None,
        kv_indices: Any = None, kv_len_arr: Any = None, backend: str = "auto",
    ) -> None:
        raise unsupported("BatchMLAPagedAttentionWrapper", _REASON, _INSTEAD)

    def plan(
        self, qo_indptr: Any, kv_indptr: Any, kv_indices: Any, kv_len_arr: Any, num_heads: int, head_dim_ckv: int,
        head_dim_kpe: int, page_size: int, causal: bool, sm_scale: float, q_data_type: Any, kv_data_type: Any,
        use_profiler: bool = False,
    ) -> None:
        raise unsupported("BatchMLAPagedAttentionWrapper.plan", _REASON, _INSTEAD)

    def run(
        self, q_nope: Any, q_pe: Any, ckv_cache: Any, kpe_cache: Any, out: Any = None, lse: Any = None,
        return_lse: bool = False, profiler_buffer: Any = None, kv_len: Any = None, page_table: Any = None,
        return_lse_base_on_e: bool = False, o_scale: Any = None, *, ckv_scale: Any = None, ckv_scale_arr: Any = None,
        kpe_scale: Any = None,
    ) -> Any:
        raise unsupported("BatchMLAPagedAttentionWrapper.run", _REASON, _INSTEAD)


class BatchDecodeMlaWithPagedKVCacheWrapper:
    """Raises ``NotImplementedError``."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise unsupported("BatchDecodeMlaWithPagedKVCacheWrapper", _REASON, _INSTEAD)


def append_paged_mla_kv_cache(*args: Any, **kwargs: Any) -> None:
    """Raises ``NotImplementedError``."""
    raise unsupported("append_paged_mla_kv_cache", "there is no append to ckv and kpe caches", "append_paged_kv_cache")


def concat_mla_k(k: Any, k_nope: Any, k_rope: Any) -> None:
    """Writes ``k_nope`` and, for every head, ``k_rope [tokens, 1, …]`` side by side into ``k [tokens, heads, …]``. Two copies of the
    array library's."""
    if not k.dtype == k_nope.dtype == k_rope.dtype:
        raise UnsupportedError(
            f"concat_mla_k: k is of {k.dtype}, k_nope of {k_nope.dtype} and k_rope of {k_rope.dtype}; it copies, and converts nothing")
    width = k_nope.shape[-1]
    k[..., :width] = k_nope
    k[..., width:] = k_rope


__all__ = [
    "BatchDecodeMlaWithPagedKVCacheWrapper", "BatchMLAPagedAttentionWrapper", "append_paged_mla_kv_cache",
    "concat_mla_k",
]
