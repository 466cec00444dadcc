"""Prefill and append attention: many query rows a request, over contiguous, ragged or paged keys and values."""

from __future__ import annotations

import functools
from typing import Any

from . import _compile
from ._arrays import not_a_tensor
from ._planned import Options, default_scale, indptr_last, integer, position_code
from ._single import run_single, run_single_variant
from ._wrapper import (
    BatchWrapper, check_graph_batch, check_graph_pages, no_multi_item, paged_cache, refuse, require_graph_buffers)
from .errors import InvalidArgumentError, unsupported
from .variants import Variant, refuse_source


def single_prefill_with_kv_cache(
    q: Any, k: Any, v: Any, scale_q: Any = None, scale_k: Any = None, scale_v: Any = None, o_dtype: Any = None,
    custom_mask: Any = None, packed_custom_mask: Any = None, causal: bool = False, kv_layout: str = "NHD",
    pos_encoding_mode: str = "NONE", use_fp16_qk_reduction: bool = False, sm_scale: float | None = None,
    window_left: int = -1, logits_soft_cap: float | None = None, rope_scale: float | None = None,
    rope_theta: float | None = None, backend: str = "auto", return_lse: bool = False, kv_cache_sf: Any = None,
    k_scale: Any = None, v_scale: Any = None,
) -> Any:
    """Attention of one request's queries over its contiguous keys and values.

    :param q: ``[qo_len, num_qo_heads, head_dim_qk]``, float32, float16, bfloat16 or float8 e4m3fn.
    :param scale_q, scale_k, scale_v: what quantised queries, keys and values are multiplied by: numbers, or float32 tensors of one
        number or of one a head (``scale_q`` a query head).
    :param o_dtype: None for the queries' type, or bfloat16 where that is float8.
    :param k: ``[kv_len, num_kv_heads, head_dim_qk]`` (NHD) or ``[num_kv_heads, kv_len, head_dim_qk]`` (HND).
    :param custom_mask: ``[qo_len, kv_len]`` bool, True = seen; replaces ``causal``, the window still holds.
    :param packed_custom_mask: the same as bits, lowest first; wins over ``custom_mask``.
    :param use_fp16_qk_reduction, backend: accepted; do nothing (products accumulate in float32).
    :returns: ``[qo_len, num_qo_heads, head_dim_vo]``; with ``return_lse`` also the base-2 log-sum-exp ``[qo_len, num_qo_heads]``.
    """
    refuse("single_prefill_with_kv_cache", kv_cache_sf=kv_cache_sf)
    k_scale = _one_of("scale_k", scale_k, "k_scale", k_scale)
    v_scale = _one_of("scale_v", scale_v, "v_scale", v_scale)
    if _compile.is_compiling():
        for name, value in (("scale_q", scale_q), ("k_scale", k_scale), ("v_scale", v_scale), ("o_dtype", o_dtype)):
            if value is not None:
                raise unsupported(
                    "single_prefill_with_kv_cache under torch.compile", f"{name} is given", "a wrapper, planned before")
        out, lse = _compile.ops.single_prefill(
            q, k, v, custom_mask, packed_custom_mask, causal, kv_layout, pos_encoding_mode, sm_scale, window_left,
            logits_soft_cap, rope_scale, rope_theta)
    else:
        out, lse = run_single(
            "single_prefill_with_kv_cache", q, k, v, decode=False, kv_layout=kv_layout, pos_encoding_mode=pos_encoding_mode,
            causal=causal, custom_mask=custom_mask, packed_custom_mask=packed_custom_mask, window_left=window_left,
            logits_soft_cap=logits_soft_cap, sm_scale=sm_scale, rope_scale=rope_scale, rope_theta=rope_theta,
            return_lse=return_lse, q_scale=scale_q, k_scale=k_scale, v_scale=v_scale, o_dtype=o_dtype)
    return (out, lse) if return_lse else out


def single_prefill_with_kv_cache_with_jit_module(
    jit_module: Variant, q: Any, k: Any, v: Any, *args: Any, kv_layout: str = "NHD", mask_mode: int = 0, window_left: int = -1,
    return_lse: bool = False, parameters: dict[str, Any] | None = None, sinks: Any = None,
) -> Any:
    """Attention of one request by a variant.

    :param jit_module: a ``variants.Variant``.
    :param args: the variant's tensors, in the order of ``jit_module.parameters``; or by name, as ``parameters``.
    :param mask_mode, window_left: the variant's; only those that say nothing are accepted.
    :returns: as of ``single_prefill_with_kv_cache``.
    """
    out, lse = run_single_variant(
        "single_prefill_with_kv_cache_with_jit_module", jit_module, q, k, v, args, parameters, sinks, decode=False,
        kv_layout=kv_layout, mask_mode=mask_mode, window_left=window_left, return_lse=return_lse)
    return (out, lse) if return_lse else out


single_prefill_with_kv_cache_return_lse = functools.partial(single_prefill_with_kv_cache, return_lse=True)


def _one_of(first_name: str, first: Any, second_name: str, second: Any) -> Any:
    if first is None:
        return second
    if second is None:
        return first
    if isinstance(first, (int, float)) and isinstance(second, (int, float)):
        return first * second
    raise InvalidArgumentError(f"{first_name} and {second_name} are both given; give one of them")


#: Where the name of the variant is in the peer's jit_args.
_JIT_VARIANT = 11


class _BatchPrefillWrapper(BatchWrapper):
    """What the paged and the ragged wrapper share."""

    def __init__(
        self, float_workspace_buffer: Any, kv_layout: str, use_cuda_graph: bool, qo_indptr_buf: Any, custom_mask_buf: Any,
        jit_args: Any, jit_kwargs: Any, backend: str,
    ) -> None:
        super().__init__(float_workspace_buffer, kv_layout, use_cuda_graph)
        if isinstance(jit_args, Variant):
            self._jit = jit_args
        elif jit_args is not None and len(jit_args) > _JIT_VARIANT and jit_args[_JIT_VARIANT] == "AttentionSink":
            # Of the peer's variants in CUDA source the one that this library has; it is known by its name.
            self._has_sinks = True
        else:
            refuse_source(self._name, jit_args)
        self._run_scale: float | None = None
        self._backend = backend
        self._custom_mask_buf = custom_mask_buf
        self._graph_rows = 0
        self._max_requests = 0
        self._rows = 0
        require_graph_buffers(use_cuda_graph, qo_indptr_buf=qo_indptr_buf)
        if use_cuda_graph:
            self._max_requests = len(qo_indptr_buf) - 1

    def workspace_size(self, *args: Any, **kwargs: Any) -> tuple[int, int]:
        """Bytes of float and integer workspace that the caller must give: none, a plan owns what it needs."""
        return 0, 0

    def _graph_bounds(self, call: Any, qo_indptr: Any, max_pages: int) -> dict[str, Any]:
        """The bounds of CUDA-graph mode: the buffers' lengths, and as many rows as the first plan has."""
        rows = indptr_last(call.arrays, qo_indptr)
        if self._use_cuda_graph:
            check_graph_batch(len(qo_indptr) - 1, self._max_requests, "qo_indptr_buf")
            if self._graph_rows and rows > self._graph_rows:
                raise InvalidArgumentError(
                    f"the batch has {rows} query rows, but the first plan in CUDA-graph mode had {self._graph_rows}; "
                    "make the first plan the largest")
        self._rows = rows
        if not self._use_cuda_graph:
            return {}
        return dict(
            max_requests=self._max_requests, max_queries=self._graph_rows or max(rows, 1), max_pages=max(max_pages, 1))

    def _variant(
        self, causal: bool, custom_mask: Any, packed_custom_mask: Any, pos_encoding_mode: str, sm_scale: float | None,
        window_left: int, logits_soft_cap: float | None, rope_scale: float | None, rope_theta: float | None,
    ) -> dict[str, Any]:
        position_code(pos_encoding_mode)
        return dict(
            kv_layout=self._kv_layout, mask_mode=self._mask_mode(custom_mask, packed_custom_mask, causal),
            window_left=max(window_left, -1), logits_soft_cap=logits_soft_cap or 0.0, sm_scale=default_scale(sm_scale),
            pos_encoding_mode=pos_encoding_mode, rope_scale=1.0 if rope_scale is None else rope_scale,
            rope_theta=1e4 if rope_theta is None else rope_theta, has_sinks=self._has_sinks)

    def _extras(self, args: tuple, sinks: Any) -> Any:
        """The sinks of the run, which with a softmax scale may follow its tensors by position, as the peer's variant takes them."""
        if not self._has_sinks:
            if args:
                raise unsupported(f"{self._name}.run", "extra positional arguments belong to the peer's JIT variants", "none")
            if sinks is not None:
                raise unsupported(
                    f"{self._name}.run", "sinks are planned for in advance", "BatchAttentionWithAttentionSinkWrapper")
            return None
        if len(args) > 2 or (args and sinks is not None):
            raise unsupported(f"{self._name}.run", f"{len(args)} extra arguments are given", "sink and sm_scale")
        if args:
            sinks = args[0]
        if sinks is None:
            raise InvalidArgumentError("sink is not given; give it and sm_scale after the tensors, or sinks=")
        self._run_scale = float(args[1]) if len(args) == 2 else None
        return sinks

    def _scales(self, args: tuple, q_scale: Any, k_scale: Any, v_scale: Any) -> tuple[tuple, Any, Any, Any]:
        """Scales that follow the tensors by position, as the peer takes them with float8 queries; and what else follows."""
        if not args or self._has_sinks or not self._core.planned or self._options.q_dtype != "float8_e4m3fn":
            return args, q_scale, k_scale, v_scale
        if len(args) != 3:
            raise unsupported(f"{self._name}.run", f"{len(args)} extra arguments are given", "scale_q, scale_k and scale_v")
        return (
            (), _one_of("scale_q", args[0], "q_scale", q_scale), _one_of("scale_k", args[1], "k_scale", k_scale),
            _one_of("scale_v", args[2], "v_scale", v_scale))

    def _check_rows(self, q: Any) -> None:
        if not self._core.planned:
            raise InvalidArgumentError("run is called before plan, or after a plan that failed; call plan first")
        if not getattr(q, "shape", ()):
            raise not_a_tensor(q, "q")
        if q.shape[0] != self._rows:
            raise InvalidArgumentError(
                f"q has {q.shape[0]} rows, but qo_indptr ends with {self._rows}; plan again for these queries")

    def _check_forward(self, causal: bool, **given: Any) -> None:
        options = self._options
        if options is None:
            return
        from . import _abi

        if causal and options.mask_mode == _abi.MASK_NONE:
            raise InvalidArgumentError("causal is True, but False in plan; give it to plan")
        for name, value in given.items():
            planned = getattr(options, name)
            if value is not None and value not in (planned, "NONE", -1):
                raise InvalidArgumentError(f"{name} is {value}, but {planned} in plan; give it to plan")


class BatchPrefillWithPagedKVCacheWrapper(_BatchPrefillWrapper):
    """Prefill or append of a batch over a paged cache: ``plan`` once a step, ``run`` once a layer.

    :param float_workspace_buffer: says the device; None takes it from the plan's arrays. See ``BatchWrapper``.
    :param use_cuda_graph: plan within the bounds of the buffers (read for their lengths only) and of the first plan's rows.
    :param custom_mask_buf: in CUDA-graph mode, where masks are copied to: uint8, a byte an element, or packed.
    :param backend, mask_indptr_buf, jit_kwargs: accepted; do nothing.
    :param jit_args: None; a ``variants.Variant``, whose tensors ``run`` takes after its own, in the order of ``variant.parameters``, or
        by name as ``parameters``; or those of the peer's variant "AttentionSink": then ``run`` takes the sinks and the softmax scale.
    """

    _name = "BatchPrefillWithPagedKVCacheWrapper"

    def __init__(
        self, float_workspace_buffer: Any = None, kv_layout: str = "NHD", use_cuda_graph: bool = False,
        qo_indptr_buf: Any = None, paged_kv_indptr_buf: Any = None, paged_kv_indices_buf: Any = None,
        paged_kv_last_page_len_buf: Any = None, custom_mask_buf: Any = None, mask_indptr_buf: Any = None,
        backend: str = "auto", jit_args: Any = None, jit_kwargs: Any = None,
    ) -> None:
        super().__init__(
            float_workspace_buffer, kv_layout, use_cuda_graph, qo_indptr_buf, custom_mask_buf, jit_args, jit_kwargs, backend)
        self._max_pages = 0
        require_graph_buffers(
            use_cuda_graph, paged_kv_indptr_buf=paged_kv_indptr_buf, paged_kv_indices_buf=paged_kv_indices_buf,
            paged_kv_last_page_len_buf=paged_kv_last_page_len_buf)
        if use_cuda_graph:
            self._max_pages = len(paged_kv_indices_buf)

    def plan(
        self, qo_indptr: Any, paged_kv_indptr: Any, paged_kv_indices: Any, paged_kv_last_page_len: Any, num_qo_heads: int,
        num_kv_heads: int, head_dim_qk: int, page_size: int, head_dim_vo: int | None = None, custom_mask: Any = None,
        packed_custom_mask: Any = None, causal: bool = False, pos_encoding_mode: str = "NONE",
        use_fp16_qk_reduction: bool = False, sm_scale: float | None = None, window_left: int = -1,
        logits_soft_cap: float | None = None, rope_scale: float | None = None, rope_theta: float | None = None,
        q_data_type: Any = "float16", kv_data_type: Any = None, o_data_type: Any = None, non_blocking: bool = True,
        prefix_len_ptr: Any = None, token_pos_in_items_ptr: Any = None, token_pos_in_items_len: int = 0,
        max_item_len_ptr: Any = None, seq_lens: Any = None, seq_lens_q: Any = None, block_tables: Any = None,
        max_token_per_sequence: int | None = None, max_sequence_kv: int | None = None, fixed_split_size: int | None = None,
        disable_split_kv: bool = False,
    ) -> None:
        """Plans a batch; index arrays are int32, on the host or the device.

        :param custom_mask: ``[Σ qo_len · kv_len]`` bool, request after request; replaces ``causal``.
        :param packed_custom_mask: the same as bits, lowest first, each request padded to a byte.
        :param fixed_split_size: pages; rounded up so that a split has a multiple of 128 keys.
        :param seq_lens, block_tables, max_token_per_sequence, …: accepted; the page table says it all.
        """
        no_multi_item(self._name, prefix_len_ptr, token_pos_in_items_ptr, max_item_len_ptr)
        page_size = integer(page_size, "page_size")
        call = self._call(qo_indptr, "qo_indptr")
        q_name, kv_name, o_name = self._dtypes(call, q_data_type, kv_data_type, o_data_type)
        if self._use_cuda_graph:
            check_graph_pages("paged_kv_indices", paged_kv_indices, "paged_kv_indices_buf", self._max_pages)
        bounds = self._graph_bounds(call, qo_indptr, self._max_pages)
        split_mode, split_size = self._split(fixed_split_size, disable_split_kv, page_size)
        if bounds and fixed_split_size is not None and fixed_split_size > 0:
            bounds["max_keys"] = self._max_pages * page_size
        self._configure(call, Options(
            num_qo_heads, num_kv_heads, head_dim_qk, head_dim_vo or head_dim_qk, q_name, kv_name, o_name,
            split_mode=split_mode, split_size=split_size,
            **self._variant(
                causal, custom_mask, packed_custom_mask, pos_encoding_mode, sm_scale, window_left, logits_soft_cap,
                rope_scale, rope_theta),
            **bounds))
        self._core.plan(
            "fi_attention_plan_paged", call.arrays.stream(call.like), call.tensor(qo_indptr, "qo_indptr"),
            call.tensor(paged_kv_indptr, "paged_kv_indptr"), call.tensor(paged_kv_indices, "paged_kv_indices"),
            call.tensor(paged_kv_last_page_len, "paged_kv_last_page_len"), page_size, 0, queries=self._rows)
        self._set_mask(call, custom_mask, packed_custom_mask, self._custom_mask_buf)
        self._graph_rows = bounds.get("max_queries", 0)
        self._batch_size = len(paged_kv_last_page_len)

    begin_forward = plan

    def run(
        self, q: Any, paged_kv_cache: Any, *args: Any, q_scale: Any = None, k_scale: Any = None, v_scale: Any = None,
        out: Any = None, lse: Any = None, return_lse: bool = False, enable_pdl: bool | None = None,
        window_left: int | None = None, sinks: Any = None, kv_cache_sf: Any = None,
        skip_softmax_threshold_scale_factor: float | None = None, use_fp16_softmax: bool | None = None,
        uses_spcompress: bool | None = None, parameters: dict[str, Any] | None = None,
    ) -> Any:
        """Runs the plan on one layer.

        :param q: ``[qo_indptr[-1], num_qo_heads, head_dim_qk]``.
        :param paged_kv_cache: ``[pages, 2, page_size, num_kv_heads, head_dim]`` (HND: heads first), or a pair without the 2.
        :param args: with float8 queries ``scale_q``, ``scale_k`` and ``scale_v``, as the peer takes them.
        :param q_scale, k_scale, v_scale: numbers, or float32 tensors of one number or of one a head.
        :param enable_pdl, use_fp16_softmax: accepted; do nothing.
        :returns: the output, or with ``return_lse`` the output and the base-2 log-sum-exp ``[rows, num_qo_heads]``.
        """
        if self._jit is None:
            args, q_scale, k_scale, v_scale = self._scales(args, q_scale, k_scale, v_scale)
        args, sinks, parameters = self._jit_tensors(args, sinks, parameters)
        if args or (sinks is not None and self._jit is None) or kv_cache_sf is not None or skip_softmax_threshold_scale_factor or uses_spcompress or (
                self._has_sinks):
            sinks = self._extras(args, sinks)
            refuse(
                f"{self._name}.run", kv_cache_sf=kv_cache_sf,
                skip_softmax_threshold_scale_factor=skip_softmax_threshold_scale_factor or None,
                uses_spcompress=uses_spcompress or None)
        if window_left is not None:
            self._check_window(window_left)
        self._check_rows(q)
        if type(paged_kv_cache) is tuple:
            if len(paged_kv_cache) != 2 or getattr(paged_kv_cache[0], "ndim", 0) != 4:
                paged_kv_cache = paged_cache(paged_kv_cache, self._kv_layout)
        elif getattr(paged_kv_cache, "ndim", 0) != 5:
            paged_kv_cache = paged_cache(paged_kv_cache, self._kv_layout)
        if _compile.is_compiling():
            if self._run_scale is not None:
                raise unsupported(f"{self._name}.run under torch.compile", "sm_scale is given", "sm_scale in plan")
            return self._run_traced(q, paged_kv_cache, out, lse, return_lse, sinks, q_scale, k_scale, v_scale)
        return self._run(
            q, paged_kv_cache, out, lse, return_lse, sinks, q_scale, k_scale, v_scale, sm_scale=self._run_scale,
            parameters=parameters)

    run_return_lse = functools.partialmethod(run, return_lse=True)

    def forward(
        self, q: Any, paged_kv_cache: Any, causal: bool = False, pos_encoding_mode: str = "NONE",
        use_fp16_qk_reduction: bool = False, k_scale: float | None = None, v_scale: float | None = None,
        window_left: int = -1, logits_soft_cap: float | None = None, sm_scale: float | None = None,
        rope_scale: float | None = None, rope_theta: float | None = None,
    ) -> Any:
        """The old name of ``run``; its options must be those of the plan."""
        self._check_forward(
            causal, pos_encoding_mode=pos_encoding_mode, window_left=window_left, logits_soft_cap=logits_soft_cap,
            sm_scale=sm_scale, rope_scale=rope_scale, rope_theta=rope_theta)
        return self.run(q, paged_kv_cache, k_scale=k_scale, v_scale=v_scale)

    def forward_return_lse(self, q: Any, paged_kv_cache: Any, causal: bool = False, **options: Any) -> Any:
        """``forward`` with the log-sum-exp."""
        k_scale, v_scale = options.pop("k_scale", None), options.pop("v_scale", None)
        options.pop("use_fp16_qk_reduction", None)
        self._check_forward(causal, **options)
        return self.run(q, paged_kv_cache, k_scale=k_scale, v_scale=v_scale, return_lse=True)


class BatchPrefillWithRaggedKVCacheWrapper(_BatchPrefillWrapper):
    """Prefill of a batch whose keys and values lie one request after another.

    Arguments as of ``BatchPrefillWithPagedKVCacheWrapper``.
    """

    _name = "BatchPrefillWithRaggedKVCacheWrapper"

    def __init__(
        self, float_workspace_buffer: Any = None, kv_layout: str = "NHD", use_cuda_graph: bool = False,
        qo_indptr_buf: Any = None, kv_indptr_buf: Any = None, custom_mask_buf: Any = None, mask_indptr_buf: Any = None,
        backend: str = "auto", jit_args: Any = None, jit_kwargs: Any = None,
    ) -> None:
        super().__init__(
            float_workspace_buffer, kv_layout, use_cuda_graph, qo_indptr_buf, custom_mask_buf, jit_args, jit_kwargs, backend)
        require_graph_buffers(use_cuda_graph, kv_indptr_buf=kv_indptr_buf)

    def plan(
        self, qo_indptr: Any, kv_indptr: Any, num_qo_heads: int, num_kv_heads: int, head_dim_qk: int,
        head_dim_vo: int | None = None, custom_mask: Any = None, packed_custom_mask: Any = None, causal: bool = False,
        pos_encoding_mode: str = "NONE", use_fp16_qk_reduction: bool = False, window_left: int = -1,
        logits_soft_cap: float | None = None, sm_scale: float | None = None, rope_scale: float | None = None,
        rope_theta: float | None = None, q_data_type: Any = "float16", kv_data_type: Any = None, o_data_type: Any = None,
        non_blocking: bool = True, prefix_len_ptr: Any = None, token_pos_in_items_ptr: Any = None,
        token_pos_in_items_len: int = 0, max_item_len_ptr: Any = None, fixed_split_size: int | None = None,
        disable_split_kv: bool = False, seq_lens: Any = None, seq_lens_q: Any = None,
        max_token_per_sequence: int | None = None, max_sequence_kv: int | None = None, v_indptr: Any = None,
        o_indptr: Any = None,
    ) -> None:
        """Plans a batch: ``qo_indptr`` and ``kv_indptr`` are int32 ``[requests + 1]``, on the host or the device."""
        no_multi_item(self._name, prefix_len_ptr, token_pos_in_items_ptr, max_item_len_ptr)
        refuse(f"{self._name}.plan", v_indptr=v_indptr, o_indptr=o_indptr)
        call = self._call(qo_indptr, "qo_indptr")
        q_name, kv_name, o_name = self._dtypes(call, q_data_type, kv_data_type, o_data_type)
        bounds = self._graph_bounds(call, qo_indptr, self._max_requests)
        split_mode, split_size = self._split(fixed_split_size, disable_split_kv, 1)
        self._configure(call, Options(
            num_qo_heads, num_kv_heads, head_dim_qk, head_dim_vo or head_dim_qk, q_name, kv_name, o_name,
            split_mode=split_mode, split_size=split_size,
            **self._variant(
                causal, custom_mask, packed_custom_mask, pos_encoding_mode, sm_scale, window_left, logits_soft_cap,
                rope_scale, rope_theta),
            **bounds))
        self._core.plan(
            "fi_attention_plan_ragged", call.arrays.stream(call.like), call.tensor(qo_indptr, "qo_indptr"),
            call.tensor(kv_indptr, "kv_indptr"), queries=self._rows)
        self._set_mask(call, custom_mask, packed_custom_mask, self._custom_mask_buf)
        self._graph_rows = bounds.get("max_queries", 0)
        self._batch_size = len(qo_indptr) - 1

    begin_forward = plan

    def run(
        self, q: Any, k: Any, v: Any, *args: Any, q_scale: Any = None, k_scale: Any = None, v_scale: Any = None,
        o_scale: Any = None, out: Any = None, lse: Any = None, return_lse: bool = False, enable_pdl: bool | None = None,
        kv_cache_sf: Any = None, sinks: Any = None, parameters: dict[str, Any] | None = None,
    ) -> Any:
        """Runs the plan on one layer: ``q [rows, num_qo_heads, head_dim_qk]``, ``k [keys, num_kv_heads, head_dim_qk]`` (HND: heads
        first), ``v`` accordingly.

        :param args, q_scale, k_scale, v_scale: as of the paged wrapper.
        :param o_scale: None or 1: outputs are never quantised here.
        """
        if self._jit is None:
            args, q_scale, k_scale, v_scale = self._scales(args, q_scale, k_scale, v_scale)
        args, sinks, parameters = self._jit_tensors(args, sinks, parameters)
        if args or self._has_sinks or (sinks is not None and self._jit is None):
            sinks = self._extras(args, sinks)
        refuse(f"{self._name}.run", kv_cache_sf=kv_cache_sf)
        self._check_rows(q)
        if o_scale is not None and o_scale != 1:
            refuse(f"{self._name}.run", o_scale=o_scale)
        if _compile.is_compiling():
            if self._run_scale is not None:
                raise unsupported(f"{self._name}.run under torch.compile", "sm_scale is given", "sm_scale in plan")
            return self._run_traced(q, (k, v), out, lse, return_lse, sinks, q_scale, k_scale, v_scale)
        return self._run(
            q, (k, v), out, lse, return_lse, sinks, q_scale, k_scale, v_scale, sm_scale=self._run_scale, parameters=parameters)

    run_return_lse = functools.partialmethod(run, return_lse=True)

    def forward(
        self, q: Any, k: Any, v: Any, causal: bool = False, pos_encoding_mode: str = "NONE",
        use_fp16_qk_reduction: bool = False, window_left: int = -1, logits_soft_cap: float | None = None,
        sm_scale: float | None = None, rope_scale: float | None = None, rope_theta: float | None = None,
    ) -> Any:
        """The old name of ``run``; its options must be those of the plan."""
        self._check_forward(
            causal, pos_encoding_mode=pos_encoding_mode, window_left=window_left, logits_soft_cap=logits_soft_cap,
            sm_scale=sm_scale, rope_scale=rope_scale, rope_theta=rope_theta)
        return self.run(q, k, v)

    def forward_return_lse(self, q: Any, k: Any, v: Any, causal: bool = False, **options: Any) -> Any:
        """``forward`` with the log-sum-exp."""
        options.pop("use_fp16_qk_reduction", None)
        self._check_forward(causal, **options)
        return self.run(q, k, v, return_lse=True)


__all__ = [
    "BatchPrefillWithPagedKVCacheWrapper", "BatchPrefillWithRaggedKVCacheWrapper", "single_prefill_with_kv_cache",
    "single_prefill_with_kv_cache_return_lse", "single_prefill_with_kv_cache_with_jit_module",
]
