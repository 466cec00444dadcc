"""Prefill and decode in one call (POD). Here two launches one after the other; the results are those of the fused kernel."""

from __future__ import annotations

from typing import Any

from ._wrapper import refuse
from .decode import BatchDecodeWithPagedKVCacheWrapper
from .errors import InvalidArgumentError
from .prefill import BatchPrefillWithPagedKVCacheWrapper, single_prefill_with_kv_cache


class PODWithPagedKVCacheWrapper:
    """The prefill of one request beside the decode of a batch."""

    def __init__(
        self, float_workspace_buffer: Any = None, kv_layout: str = "NHD", use_cuda_graph: bool = False,
        paged_kv_indptr_buffer: Any = None, paged_kv_indices_buffer: Any = None, paged_kv_last_page_len_buffer: Any = None,
        jit_args: Any = None,
    ) -> None:
        # A variant would be the decode's alone.
        refuse("PODWithPagedKVCacheWrapper", jit_args=jit_args)
        self._decode = BatchDecodeWithPagedKVCacheWrapper(
            float_workspace_buffer, kv_layout, use_cuda_graph, False, paged_kv_indptr_buffer, paged_kv_indices_buffer,
            paged_kv_last_page_len_buffer)

    @property
    def is_cuda_graph_enabled(self) -> bool:
        return self._decode.is_cuda_graph_enabled

    def reset_workspace_buffer(self, float_workspace_buffer: Any, int_workspace_buffer: Any = None) -> None:
        self._decode.reset_workspace_buffer(float_workspace_buffer)

    def plan(
        self, indptr: Any, indices: Any, last_page_len: Any, num_qo_heads: int, num_kv_heads: int, head_dim: int,
        page_size: int, pos_encoding_mode: str = "NONE", window_left: int = -1, q_data_type: Any = "float16",
        kv_data_type: Any = None, data_type: Any = None, sm_scale: float | None = None, rope_scale: float | None = None,
        rope_theta: float | None = None, non_blocking: bool = True,
    ) -> None:
        """Plans the decode; see ``BatchDecodeWithPagedKVCacheWrapper.plan``."""
        self._decode.plan(
            indptr, indices, last_page_len, num_qo_heads, num_kv_heads, head_dim, page_size,
            pos_encoding_mode=pos_encoding_mode, window_left=window_left, q_data_type=q_data_type, kv_data_type=kv_data_type,
            data_type=data_type, sm_scale=sm_scale, rope_scale=rope_scale, rope_theta=rope_theta)

    begin_forward = plan

    def run(
        self, q_p: Any, k_p: Any, v_p: Any, q_d: Any, paged_kv_cache_d: Any, custom_mask_p: Any = None,
        packed_custom_mask_p: Any = None, causal_p: bool = False, kv_layout_p: str = "NHD",
        pos_encoding_mode_p: str = "NONE", sm_scale_p: float | None = None, window_left_p: int = -1,
        rope_scale_p: float | None = None, rope_theta_p: float | None = None, return_lse_p: bool = False,
        custom_mask_d: Any = None, packed_custom_mask_d: Any = None, causal_d: bool = False, kv_layout_d: str = "NHD",
        pos_encoding_mode_d: str = "NONE", sm_scale_d: float | None = None, window_left_d: int = -1,
        rope_scale_d: float | None = None, rope_theta_d: float | None = None, q_scale: Any = None, k_scale: Any = None,
        v_scale: Any = None, return_lse_d: bool = False, use_fp16_qk_reduction: bool = False,
        enable_pdl: bool | None = None, *args: Any,
    ) -> Any:
        """The prefill's output and the decode's. The decode's options are those of the plan, as in the peer."""
        refuse("PODWithPagedKVCacheWrapper.run", custom_mask_d=custom_mask_d, packed_custom_mask_d=packed_custom_mask_d)
        if args:
            raise InvalidArgumentError("extra positional arguments belong to the peer's JIT variants")
        prefill = single_prefill_with_kv_cache(
            q_p, k_p, v_p, custom_mask=custom_mask_p, packed_custom_mask=packed_custom_mask_p, causal=causal_p,
            kv_layout=kv_layout_p, pos_encoding_mode=pos_encoding_mode_p, sm_scale=sm_scale_p, window_left=window_left_p,
            rope_scale=rope_scale_p, rope_theta=rope_theta_p, return_lse=return_lse_p)
        decode = self._decode.run(
            q_d, paged_kv_cache_d, q_scale=q_scale, k_scale=k_scale, v_scale=v_scale, return_lse=return_lse_d)
        return prefill, decode

    def end_forward(self) -> None:
        """Does nothing; kept for the peer's old name."""


class BatchPODWithPagedKVCacheWrapper:
    """The prefill of a batch beside the decode of another, over paged caches."""

    def __init__(self, float_workspace_buffer: Any = None, kv_layout: str = "NHD") -> None:
        self._prefill = BatchPrefillWithPagedKVCacheWrapper(float_workspace_buffer, kv_layout)
        self._decode = BatchPrefillWithPagedKVCacheWrapper(float_workspace_buffer, kv_layout)
        self._arguments: tuple = ()

    @property
    def is_cuda_graph_enabled(self) -> bool:
        return False

    def plan(
        self, qo_indptr_p: Any, kv_indptr_p: Any, kv_indices_p: Any, last_page_len_p: Any, qo_indptr_d: Any,
        kv_indptr_d: Any, kv_indices_d: Any, last_page_len_d: Any, num_qo_heads: int, num_kv_heads: int, head_dim: int,
        page_size: int, pos_encoding_mode: str = "NONE", window_left: int = -1, q_data_type: Any = "float16",
        kv_data_type: Any = None, data_type: Any = None, sm_scale: float | None = None, rope_scale: float | None = None,
        rope_theta: float | None = None, non_blocking: bool = True,
    ) -> None:
        """Plans both; whether the prefill is causal, and its mask, are said in ``run``, so its plan is made there at first."""
        q_type = data_type if data_type is not None else q_data_type
        options: dict[str, Any] = dict(
            pos_encoding_mode=pos_encoding_mode, window_left=window_left, q_data_type=q_type,
            kv_data_type=kv_data_type if kv_data_type is not None else q_type, sm_scale=sm_scale, rope_scale=rope_scale,
            rope_theta=rope_theta)
        shape = (num_qo_heads, num_kv_heads, head_dim, page_size)
        self._arguments = ((qo_indptr_p, kv_indptr_p, kv_indices_p, last_page_len_p, *shape), options)
        self._planned: Any = None
        self._decode.plan(qo_indptr_d, kv_indptr_d, kv_indices_d, last_page_len_d, *shape, **options)

    begin_forward = plan

    def run(
        self, q_p: Any, paged_kv_cache_p: Any, q_d: Any, paged_kv_cache_d: Any, custom_mask_p: Any = None,
        packed_custom_mask_p: Any = None, causal_p: bool = False, q_scale: Any = None, k_scale: Any = None,
        v_scale: Any = None, return_lse: bool = False, use_fp16_qk_reduction: bool = False, enable_pdl: bool | None = None,
    ) -> Any:
        """The prefill's output and the decode's, each with its log-sum-exp where ``return_lse``."""
        if not self._arguments:
            raise InvalidArgumentError("run is called before plan; call plan first")
        wanted = (causal_p, id(custom_mask_p) if custom_mask_p is not None else None,
                  id(packed_custom_mask_p) if packed_custom_mask_p is not None else None)
        if self._planned != wanted:
            self._prefill.plan(  # type: ignore[misc]
                *self._arguments[0], custom_mask=custom_mask_p, packed_custom_mask=packed_custom_mask_p, causal=causal_p,
                **self._arguments[1])
            self._planned = wanted
        scales = dict(q_scale=q_scale, k_scale=k_scale, v_scale=v_scale)
        return (
            self._prefill.run(q_p, paged_kv_cache_p, return_lse=return_lse, **scales),
            self._decode.run(q_d, paged_kv_cache_d, return_lse=return_lse, **scales))

    def end_forward(self) -> None:
        """Does nothing; kept for the peer's old name."""


__all__ = ["BatchPODWithPagedKVCacheWrapper", "PODWithPagedKVCacheWrapper"]
