"""Attention of batches that mix prefill and decode, and attention with sinks."""

from __future__ import annotations

from typing import Any

from . import _abi, _compile
from ._planned import Options, default_scale, index_list, indptr_last, integer
from ._call import host_ints
from ._wrapper import BatchWrapper, paged_cache, refuse
from .errors import InvalidArgumentError
from .prefill import BatchPrefillWithPagedKVCacheWrapper


class BatchAttention(BatchWrapper):
    """Batches of any query lengths over a paged cache, described by key counts instead of last-page lengths.

    :param device: where the plans run; None takes it from the plan's arrays.
    """

    _name = "BatchAttention"

    def __init__(self, kv_layout: str = "NHD", device: Any = None) -> None:
        super().__init__(None, kv_layout, False)
        self._device_wanted = device

    def plan(
        self, qo_indptr: Any, kv_indptr: Any, kv_indices: Any, kv_len_arr: Any, num_qo_heads: int, num_kv_heads: int,
        head_dim_qk: int, head_dim_vo: int, page_size: int, causal: bool = False, sm_scale: float | None = None,
        logits_soft_cap: float | None = None, q_data_type: Any = "bfloat16", kv_data_type: Any = "bfloat16",
        use_profiler: bool = False,
    ) -> None:
        """Plans a batch: ``qo_indptr`` and ``kv_indptr [requests + 1]``, ``kv_len_arr [requests]`` keys of each, all int32."""
        refuse(f"{self._name}.plan", use_profiler=True if use_profiler else None)
        if integer(page_size, "page_size") < 1:
            raise InvalidArgumentError(f"page_size is {page_size}, but must be at least 1")
        call = self._call(qo_indptr, "qo_indptr")
        q_name, kv_name, o_name = self._dtypes(call, q_data_type, kv_data_type, None)
        kind, index = self._place(call)
        starts, lengths = index_list(call.arrays, kv_indptr, "kv_indptr"), index_list(call.arrays, kv_len_arr, "kv_len_arr")
        if len(starts) != len(lengths) + 1:
            raise InvalidArgumentError(
                f"kv_indptr has {len(starts)} entries, but must have {len(lengths) + 1}: one more than kv_len_arr")
        last = []
        for request, length in enumerate(lengths):
            pages = starts[request + 1] - starts[request]
            tail = length - (pages - 1) * page_size if pages > 0 else length
            # Pages past a request's keys are allowed by the peer: the table is cut to what is used.
            if not (1 <= tail <= page_size) and not (length == 0 and pages == 0):
                return self._plan_cut(
                    call, qo_indptr, starts, kv_indices, lengths, page_size, kind, index,
                    (num_qo_heads, num_kv_heads, head_dim_qk, head_dim_vo, q_name, kv_name, o_name), causal, sm_scale,
                    logits_soft_cap)
            last.append(tail)
        self._finish(
            call, qo_indptr, kv_indptr, kv_indices, last, page_size, kind, index,
            (num_qo_heads, num_kv_heads, head_dim_qk, head_dim_vo, q_name, kv_name, o_name), causal, sm_scale, logits_soft_cap)

    begin_forward = plan

    def _place(self, call: Any) -> tuple[str, int]:
        if self._device_wanted is None:
            return call.first.device, call.first.index
        text = str(self._device_wanted)
        kind, _, number = text.partition(":")
        return kind, int(number or 0)

    def _plan_cut(
        self, call: Any, qo_indptr: Any, starts: list[int], kv_indices: Any, lengths: list[int], page_size: int, kind: str,
        index: int, shape: tuple, causal: bool, sm_scale: float | None, logits_soft_cap: float | None,
    ) -> None:
        ids = call.arrays.to_list(kv_indices)
        cut_starts, cut_ids, last = [0], [], []
        for request, length in enumerate(lengths):
            pages = -(-length // page_size)
            available = starts[request + 1] - starts[request]
            if length < 0 or pages > available:
                raise InvalidArgumentError(
                    f"request {request}: kv_len is {length}, but must be in 0 ... {max(available, 0) * page_size} "
                    f"({available} pages of {page_size})")
            cut_ids += ids[starts[request]:starts[request] + pages]
            cut_starts.append(len(cut_ids))
            last.append(length - (pages - 1) * page_size if pages else 0)
        self._finish(
            call, qo_indptr, host_ints(cut_starts), host_ints(cut_ids), last, page_size, kind, index, shape, causal, sm_scale,
            logits_soft_cap)

    def _finish(
        self, call: Any, qo_indptr: Any, kv_indptr: Any, kv_indices: Any, last: list[int], page_size: int, kind: str,
        index: int, shape: tuple, causal: bool, sm_scale: float | None, logits_soft_cap: float | None,
    ) -> None:
        options = Options(  # type: ignore[misc]
            *shape, kv_layout=self._kv_layout, mask_mode=_abi.MASK_CAUSAL if causal else _abi.MASK_NONE,
            logits_soft_cap=logits_soft_cap or 0.0, sm_scale=default_scale(sm_scale))
        self._configure(call, options, (kind, index))
        self._core.plan(
            "fi_attention_plan_paged", call.arrays.stream(call.like), call.tensor(qo_indptr, "qo_indptr"),
            call.tensor(kv_indptr, "kv_indptr"), call.tensor(kv_indices, "kv_indices"),
            call.tensor(host_ints(last), "last_page_len"), page_size, 0, queries=indptr_last(call.arrays, qo_indptr))

    def run(
        self, q: Any, kv_cache: Any, out: Any = None, lse: Any = None, k_scale: Any = None, v_scale: Any = None,
        logits_soft_cap: float = 0.0, profiler_buffer: Any = None, kv_cache_sf: Any = None,
    ) -> tuple[Any, Any]:
        """Runs the plan on one layer; always returns the output and the base-2 log-sum-exp.

        :param logits_soft_cap: the plan's, or 0 for the plan's.
        """
        refuse(f"{self._name}.run", profiler_buffer=profiler_buffer, kv_cache_sf=kv_cache_sf)
        planned = self._options.logits_soft_cap if self._options is not None else 0.0
        if logits_soft_cap and logits_soft_cap != planned:
            raise InvalidArgumentError(f"logits_soft_cap is {logits_soft_cap} in run, but {planned} in plan; give it to plan")
        kv_cache = paged_cache(kv_cache, self._kv_layout)
        if _compile.is_compiling():
            return self._run_traced(q, kv_cache, out, lse, True, None, None, k_scale, v_scale)
        return self._run(q, kv_cache, out, lse, True, None, None, k_scale, v_scale)


class BatchAttentionWithAttentionSinkWrapper(BatchPrefillWithPagedKVCacheWrapper):
    """``BatchPrefillWithPagedKVCacheWrapper`` whose softmax has a sink: a logit for each head that joins its sum.

    ``run(q, paged_kv_cache, sink, sm_scale)``, with ``sink`` float32 ``[num_qo_heads]`` (natural scale) and ``sm_scale`` by
    position as in the peer, or ``run(q, paged_kv_cache, sinks=sink)``.
    """

    _name = "BatchAttentionWithAttentionSinkWrapper"

    def __init__(
        self, float_workspace_buffer: Any = None, kv_layout: str = "NHD", use_cuda_graph: bool = False,
        qo_indptr_buf: Any = None, paged_kv_indptr_buf: Any = None, paged_kv_indices_buf: Any = None,
        paged_kv_last_page_len_buf: Any = None, custom_mask_buf: Any = None, mask_indptr_buf: Any = None,
        backend: str = "auto", pos_encoding_mode: str = "NONE", use_fp16_qk_reduction: bool = False,
        q_data_type: Any = "bfloat16", kv_data_type: Any = "bfloat16", head_dim_qk: int = 128, head_dim_vo: int = 128,
        window_left: int = -1,
    ) -> None:
        super().__init__(
            float_workspace_buffer, kv_layout, use_cuda_graph, qo_indptr_buf, paged_kv_indptr_buf, paged_kv_indices_buf,
            paged_kv_last_page_len_buf, custom_mask_buf, mask_indptr_buf, backend)
        self._has_sinks = True


__all__ = ["BatchAttention", "BatchAttentionWithAttentionSinkWrapper"]
