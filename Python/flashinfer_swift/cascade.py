"""Merging of attention states, and cascade attention: shared prefixes attended once, the levels merged."""

from __future__ import annotations

import ctypes
from typing import Any, Sequence

from . import _abi, _compile
from ._call import Call, Slot
from ._planned import Options, default_scale, indptr_last, integer
from ._wrapper import BatchWrapper, paged_cache
from .errors import InvalidArgumentError
from .prefill import BatchPrefillWithPagedKVCacheWrapper, single_prefill_with_kv_cache_return_lse


def merge_state(v_a: Any, s_a: Any, v_b: Any, s_b: Any) -> tuple[Any, Any]:
    """The state of attention over two disjoint sets of keys, from the state over each.

    :param v_a: ``[rows, heads, head_dim]``.
    :param s_a: ``[rows, heads]``, base-2 log-sum-exp; other types than float32 are converted.
    :returns: the merged values and the merged log-sum-exp (float32).
    """
    if _compile.is_compiling():
        return _compile.ops.merge_state(v_a, s_a, v_b, s_b)
    call = Call(v_a, "v_a")
    s_a, s_b = _float32(call, s_a, "s_a"), _float32(call, s_b, "s_b")
    out = call.empty(call.first.shape)
    lse = call.empty(call.first.shape[:2], "float32")
    call.run(
        "fi_merge_state", call.tensor(v_a, "v_a"), call.tensor(s_a, "s_a"), call.tensor(v_b, "v_b"), call.tensor(s_b, "s_b"),
        call.output(out, "out"), call.output(lse, "lse"))
    return out, lse


def merge_state_in_place(v: Any, s: Any, v_other: Any, s_other: Any, mask: Any = None) -> None:
    """Merges ``(v_other, s_other)`` into ``(v, s)``, in place.

    :param s: float32, as it is written; another type is an error (the peer loses the update).
    :param mask: ``[rows]``, bool or uint8: rows with 0 stay as they are.
    """
    if _compile.is_compiling():
        _compile.ops.merge_state_in_place(v, s, v_other, s_other, mask)
        return
    call = Call(v, "v")
    found = call.read(s, "s").dtype
    if found != "float32":
        raise InvalidArgumentError(f"s is of {found}, but must be float32: it is updated in place")
    call.run(
        "fi_merge_state_in_place", call.output(v, "v"), call.output(s, "s"), call.tensor(v_other, "v_other"),
        call.tensor(_float32(call, s_other, "s_other"), "s_other"), call.tensor(mask, "mask"))


def merge_states(v: Any, s: Any) -> tuple[Any, Any]:
    """Merges many states: ``v [rows, states, heads, head_dim]``, ``s [rows, states, heads]``.

    :returns: ``[rows, heads, head_dim]`` and ``[rows, heads]``.
    """
    if _compile.is_compiling():
        return _compile.ops.merge_states(v, s)
    call = Call(v, "v")
    shape = call.first.shape
    if len(shape) != 4:
        raise InvalidArgumentError(f"v is of shape {shape}, but must be [rows, states, heads, head_dim]")
    out = call.empty((shape[0], shape[2], shape[3]))
    lse = call.empty((shape[0], shape[2]), "float32")
    call.run(
        "fi_merge_states", call.tensor(v, "v"), call.tensor(_float32(call, s, "s"), "s"), call.output(out, "out"),
        call.output(lse, "lse"))
    return out, lse


def _float32(call: Call, array: Any, name: str) -> Any:
    return array if call.read(array, name).dtype == "float32" else call.arrays.cast(array, "float32")


class MultiLevelCascadeAttentionWrapper(BatchWrapper):
    """Attention over a hierarchy of shared prefixes: all levels planned as one batch, and merged in the same launches.

    Windows and position encodings, which have no meaning across levels, are computed as the peer does: each level by itself, with
    positions of its own, and then merged.

    :param num_levels: levels, the most shared first.
    :param use_cuda_graph: plan within the bounds of the buffers (read for their lengths only) and of the first plan's rows.
    :param float_workspace_buffer, …_buf_arr: as of ``BatchPrefillWithPagedKVCacheWrapper``, one for each level.
    """

    _name = "MultiLevelCascadeAttentionWrapper"

    def __init__(
        self, num_levels: int, float_workspace_buffer: Any = None, kv_layout: str = "NHD", use_cuda_graph: bool = False,
        qo_indptr_buf_arr: Sequence[Any] | None = None, paged_kv_indptr_buf_arr: Sequence[Any] | None = None,
        paged_kv_indices_buf_arr: Sequence[Any] | None = None, paged_kv_last_page_len_buf_arr: Sequence[Any] | None = None,
    ) -> None:
        if num_levels < 1:
            raise InvalidArgumentError(f"num_levels is {num_levels}, but must be at least 1")
        buffers = (qo_indptr_buf_arr, paged_kv_indptr_buf_arr, paged_kv_indices_buf_arr, paged_kv_last_page_len_buf_arr)
        if use_cuda_graph and any(buffer is None or len(buffer) != num_levels for buffer in buffers):
            raise InvalidArgumentError(f"CUDA-graph mode needs every list of buffers, each of {num_levels} (num_levels)")
        super().__init__(float_workspace_buffer, kv_layout, use_cuda_graph)
        self._num_levels = num_levels
        self._buffers = buffers
        self._graph_rows = 0
        #: One for each level, where levels are computed by themselves.
        self._apart: list[BatchPrefillWithPagedKVCacheWrapper] = []
        self._is_apart = False

    def reset_workspace_buffer(self, float_workspace_buffer: Any, int_workspace_buffers: Any = None) -> None:
        """Takes the device from another buffer from the next plan on."""
        super().reset_workspace_buffer(float_workspace_buffer)
        for level in self._apart:
            level.reset_workspace_buffer(float_workspace_buffer)

    def plan(
        self, qo_indptr_arr: Sequence[Any], paged_kv_indptr_arr: Sequence[Any], paged_kv_indices_arr: Sequence[Any],
        paged_kv_last_page_len: Sequence[Any], num_qo_heads: int, num_kv_heads: int, head_dim: int, page_size: int,
        causal: bool = False, pos_encoding_mode: str = "NONE", use_fp16_qk_reduction: bool = False,
        sm_scale: float | None = None, window_left: int = -1, logits_soft_cap: float | None = None,
        rope_scale: float | None = None, rope_theta: float | None = None, q_data_type: Any = "float16",
        kv_data_type: Any = None,
    ) -> None:
        """Plans all levels, each with its own ``qo_indptr`` and page table over the same rows. ``causal`` holds for the last only."""
        page_size = integer(page_size, "page_size")
        tables = (qo_indptr_arr, paged_kv_indptr_arr, paged_kv_indices_arr, paged_kv_last_page_len)
        if any(len(table) != self._num_levels for table in tables):
            raise InvalidArgumentError(
                f"the lists of tables have {[len(table) for table in tables]} entries, but there are {self._num_levels} levels")
        self._is_apart = self._num_levels > 1 and (window_left >= 0 or pos_encoding_mode != "NONE")
        if self._is_apart:
            self._plan_apart(
                tables, causal, (num_qo_heads, num_kv_heads, head_dim, page_size), pos_encoding_mode=pos_encoding_mode,
                sm_scale=sm_scale, window_left=window_left, logits_soft_cap=logits_soft_cap, rope_scale=rope_scale,
                rope_theta=rope_theta, q_data_type=q_data_type, kv_data_type=kv_data_type)
            return
        call = self._call(qo_indptr_arr[0], "qo_indptr_arr[0]")
        q_name, kv_name, o_name = self._dtypes(call, q_data_type, kv_data_type, None)
        rows = indptr_last(call.arrays, qo_indptr_arr[-1])
        bounds = {}
        if self._use_cuda_graph:
            self._graph_rows = self._graph_rows or rows
            bounds = {
                "max_requests": sum(len(buffer) for buffer in self._buffers[3]), "max_queries": self._graph_rows,  # type: ignore
                "max_pages": sum(len(buffer) for buffer in self._buffers[2]), "max_levels": self._num_levels,  # type: ignore
            }
        self._configure(call, Options(
            num_qo_heads, num_kv_heads, head_dim, head_dim, q_name, kv_name, o_name, self._kv_layout,
            mask_mode=_abi.MASK_CAUSAL if causal else _abi.MASK_NONE, window_left=window_left,
            logits_soft_cap=logits_soft_cap or 0.0, sm_scale=default_scale(sm_scale), pos_encoding_mode=pos_encoding_mode,
            rope_scale=1.0 if rope_scale is None else rope_scale, rope_theta=1e4 if rope_theta is None else rope_theta, **bounds))
        names = ("qo_indptr", "kv_indptr", "kv_indices", "last_page_len")
        slots = [[Slot() for _ in names] for _ in range(self._num_levels)]
        views = [
            [call.read(table[level], f"{name} of level {level}") for table, name in zip(tables, names)]
            for level in range(self._num_levels)]
        levels = (_abi.CascadeLevel * self._num_levels)(*(
            _abi.CascadeLevel(*(
                slot.fill(view, f"{name} of level {number}") for slot, view, name in zip(slots[number], views[number], names)))
            for number in range(self._num_levels)))
        self._core.plan(
            "fi_attention_plan_cascade", call.arrays.stream(call.like), ctypes.addressof(levels), self._num_levels, page_size, 0,
            queries=rows)

    begin_forward = plan

    def _plan_apart(self, tables: Sequence[Sequence[Any]], causal: bool, sizes: tuple, **options: Any) -> None:
        if not self._apart:
            self._apart = [
                BatchPrefillWithPagedKVCacheWrapper(
                    self._float_workspace_buffer, self._kv_layout, self._use_cuda_graph,
                    *((buffer[level] for buffer in self._buffers) if self._use_cuda_graph else ()))  # type: ignore[index]
                for level in range(self._num_levels)
            ]
        for number, (level, *table) in enumerate(zip(self._apart, *tables)):
            level.plan(*table, *sizes, causal=causal and number == self._num_levels - 1, **options)  # type: ignore[misc, call-arg]

    def run(self, q: Any, paged_kv_cache: Any, return_lse: bool = False) -> Any:
        """The attention of ``q [rows, num_qo_heads, head_dim]`` over all levels; ``paged_kv_cache`` as of the batch wrappers.

        :param return_lse: give ``(out, lse)``, base 2. (The peer has no such argument.)
        """
        if not self._is_apart:
            return self._run(q, paged_cache(paged_kv_cache, self._kv_layout), None, None, return_lse)
        out, lse = self._apart[-1].run(q, paged_kv_cache, return_lse=True)
        for level in self._apart[:-1]:
            part, part_lse = level.run(q, paged_kv_cache, return_lse=True)
            merge_state_in_place(out, lse, part, part_lse)
        return (out, lse) if return_lse else out

    forward = run


class BatchDecodeWithSharedPrefixPagedKVCacheWrapper:
    """Decode where all requests share a contiguous prefix: the prefix once for the whole batch, then a merge."""

    def __init__(self, float_workspace_buffer: Any = None, kv_layout: str = "NHD") -> None:
        from .decode import BatchDecodeWithPagedKVCacheWrapper

        self._kv_layout = kv_layout
        self._unique = BatchDecodeWithPagedKVCacheWrapper(float_workspace_buffer, kv_layout)

    def reset_workspace_buffer(self, float_workspace_buffer: Any, int_workspace_buffer: Any = None) -> None:
        self._unique.reset_workspace_buffer(float_workspace_buffer)

    def begin_forward(
        self, unique_kv_indptr: Any, unique_kv_indices: Any, unique_kv_last_page_len: Any, num_qo_heads: int,
        num_kv_heads: int, head_dim: int, page_size: int, data_type: Any = "float16",
    ) -> None:
        """Plans the part of each request that is its own."""
        self._unique.plan(
            unique_kv_indptr, unique_kv_indices, unique_kv_last_page_len, num_qo_heads, num_kv_heads, head_dim, page_size,
            q_data_type=data_type, kv_data_type=data_type)

    plan = begin_forward

    def forward(self, q: Any, k_shared: Any, v_shared: Any, unique_kv_cache: Any) -> Any:
        """``q [batch, num_qo_heads, head_dim]``, ``k_shared [shared, num_kv_heads, head_dim]`` (HND: heads first)."""
        out, lse = single_prefill_with_kv_cache_return_lse(q, k_shared, v_shared, causal=False, kv_layout=self._kv_layout)
        unique, unique_lse = self._unique.run(q, unique_kv_cache, return_lse=True)
        merge_state_in_place(out, lse, unique, unique_lse)
        return out

    run = forward

    def end_forward(self) -> None:
        """Does nothing; kept for the peer's old name."""


class BatchPrefillWithSharedPrefixPagedKVCacheWrapper:
    """Prefill where all requests share a contiguous prefix; see ``BatchDecodeWithSharedPrefixPagedKVCacheWrapper``."""

    def __init__(self, float_workspace_buffer: Any = None, kv_layout: str = "NHD") -> None:
        self._kv_layout = kv_layout
        self._unique = BatchPrefillWithPagedKVCacheWrapper(float_workspace_buffer, kv_layout)
        self._arguments: tuple = ()

    def reset_workspace_buffer(self, float_workspace_buffer: Any, int_workspace_buffer: Any = None) -> None:
        self._unique.reset_workspace_buffer(float_workspace_buffer)

    def begin_forward(
        self, qo_indptr: Any, paged_kv_indptr: Any, paged_kv_indices: Any, paged_kv_last_page_len: Any, num_qo_heads: int,
        num_kv_heads: int, head_dim: int, page_size: int,
    ) -> None:
        """The page tables of the parts that are the requests' own; planned in ``forward``, which says whether it is causal."""
        self._arguments = (
            qo_indptr, paged_kv_indptr, paged_kv_indices, paged_kv_last_page_len, num_qo_heads, num_kv_heads, head_dim,
            page_size)
        self._planned: tuple | None = None

    plan = begin_forward

    def forward(
        self, q: Any, k_shared: Any, v_shared: Any, unique_kv_cache: Any, causal: bool = False,
        use_fp16_qk_reduction: bool = False, sm_scale: float | None = None, rope_scale: float | None = None,
        rope_theta: float | None = None,
    ) -> Any:
        """The attention over the shared prefix (never causal) and each request's own keys."""
        if not self._arguments:
            raise InvalidArgumentError("forward is called before begin_forward; call begin_forward first")
        call = Call(q, "q")
        cache = unique_kv_cache[0] if isinstance(unique_kv_cache, (tuple, list)) else unique_kv_cache
        wanted = (causal, sm_scale, call.first.dtype, call.arrays.view(cache).dtype)
        if self._planned != wanted:
            self._unique.plan(  # type: ignore[misc]
                *self._arguments, causal=causal, sm_scale=sm_scale, q_data_type=wanted[2], kv_data_type=wanted[3])
            self._planned = wanted
        out, lse = single_prefill_with_kv_cache_return_lse(
            q, k_shared, v_shared, causal=False, kv_layout=self._kv_layout, sm_scale=sm_scale)
        unique, unique_lse = self._unique.run(q, unique_kv_cache, return_lse=True)
        merge_state_in_place(out, lse, unique, unique_lse)
        return out

    run = forward

    def end_forward(self) -> None:
        """Does nothing; kept for the peer's old name."""


__all__ = [
    "BatchDecodeWithSharedPrefixPagedKVCacheWrapper", "BatchPrefillWithSharedPrefixPagedKVCacheWrapper",
    "MultiLevelCascadeAttentionWrapper", "merge_state", "merge_state_in_place", "merge_states",
]
