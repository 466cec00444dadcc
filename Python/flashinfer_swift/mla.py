"""Multi-head latent attention (DeepSeek): the cache. The library has no attention kernel of its own for it yet."""

from __future__ import annotations

import ctypes
from typing import Any

from . import _abi
from ._call import Call
from ._planned import scale_value
from .errors import UnsupportedError, unsupported
from .page import place

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


def append_paged_mla_kv_cache(
    append_ckv: Any, append_kpe: Any, batch_indices: Any, positions: Any, ckv_cache: Any, kpe_cache: Any, kv_indices: Any,
    kv_indptr: Any, kv_last_page_len: Any, ckv_scale: Any = None, kpe_scale: Any = None,
) -> None:
    """Stores new tokens' compressed keys and values in a paged cache, converting to its type.

    :param append_ckv: ``[nnz, ckv_dim]``, float32, float16 or bfloat16; ``append_kpe [nnz, kpe_dim]`` likewise.
    :param batch_indices, positions: ``[nnz]`` int32: the request and position of each token; a request of -1 is not stored.
    :param ckv_cache: ``[pages, page_size, ckv_dim]``; ``kpe_cache [pages, page_size, kpe_dim]``: slices of one tensor, or two; any
        type of a cache, float8 and int8 saturate.
    :param kv_indices, kv_indptr, kv_last_page_len: the page table after the append.
    :param ckv_scale, kpe_scale: (not the peer's) stored numbers are ``value / scale``.
    """
    call = Call(append_ckv, "append_ckv")
    args = _abi.AppendArgs(struct_size=ctypes.sizeof(_abi.AppendArgs))
    args.k, args.v = call.tensor(append_ckv, "append_ckv"), call.tensor(append_kpe, "append_kpe")
    args.k_cache, args.v_cache = call.output(ckv_cache, "ckv_cache"), call.output(kpe_cache, "kpe_cache")
    args.k_scale = scale_value(call.arrays, ckv_scale, "ckv_scale")
    args.v_scale = scale_value(call.arrays, kpe_scale, "kpe_scale")
    place(
        call, args, batch_indices, positions, (ckv_cache, kpe_cache), kv_indices, kv_indptr, kv_last_page_len, "NHD")
    call.run("fi_append_paged_kv", ctypes.addressof(args))


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
