"""Decode attention: one query row (or a few) for each request, over contiguous or paged keys and values."""

from __future__ import annotations

import ctypes
import functools
import warnings
from typing import Any

from . import _abi, _compile
from ._arrays import not_a_tensor
from ._call import host_ints
from ._planned import Options, default_scale, integer, position_code
from ._single import run_single, run_single_variant
from ._wrapper import BatchWrapper, check_graph_batch, check_graph_pages, paged_cache, refuse, require_graph_buffers
from .errors import InvalidArgumentError, unsupported
from .variants import Variant, refuse_source


def single_decode_with_kv_cache(
    q: Any, k: Any, v: Any, kv_layout: str = "NHD", pos_encoding_mode: str = "NONE", use_tensor_cores: bool = False,
    q_scale: float | None = None, k_scale: float | None = None, v_scale: float | None = None, window_left: int = -1,
    logits_soft_cap: float | None = None, sm_scale: float | None = None, rope_scale: float | None = None,
    rope_theta: float | None = None, return_lse: bool = False,
) -> Any:
    """Attention of one query over one contiguous cache.

    :param q: ``[num_qo_heads, head_dim]``, float32, float16 or bfloat16.
    :param k: ``[kv_len, num_kv_heads, head_dim]`` (NHD) or ``[num_kv_heads, kv_len, head_dim]`` (HND); any type of a cache.
    :param use_tensor_cores: accepted; the kernel is chosen by what is fastest.
    :returns: ``[num_qo_heads, head_dim]``; with ``return_lse`` also the base-2 log-sum-exp ``[num_qo_heads]``.
    """
    if _compile.is_compiling():
        out, lse = _compile.ops.single_decode(
            q, k, v, kv_layout, pos_encoding_mode, q_scale, k_scale, v_scale, window_left, logits_soft_cap, sm_scale,
            rope_scale, rope_theta)
        return (out, lse) if return_lse else out
    out, lse = run_single(
        "single_decode_with_kv_cache", q, k, v, decode=True, kv_layout=kv_layout, pos_encoding_mode=pos_encoding_mode,
        window_left=window_left, logits_soft_cap=logits_soft_cap, sm_scale=sm_scale, rope_scale=rope_scale,
        rope_theta=rope_theta, return_lse=return_lse, q_scale=q_scale, k_scale=k_scale, v_scale=v_scale)
    return (out, lse) if return_lse else out


def single_decode_with_kv_cache_with_jit_module(
    jit_module: Variant, q: Any, k: Any, v: Any, *args: Any, kv_layout: str = "NHD", window_left: int = -1,
    return_lse: bool = False, parameters: dict[str, Any] | None = None, sinks: Any = None,
) -> Any:
    """Attention of one query by a variant.

    :param jit_module: a ``variants.Variant``.
    :param args: the variant's tensors, in the order of ``jit_module.parameters``; or by name, as ``parameters``.
    :param window_left: the variant's; only -1 is accepted.
    :returns: as of ``single_decode_with_kv_cache``.
    """
    out, lse = run_single_variant(
        "single_decode_with_kv_cache_with_jit_module", jit_module, q, k, v, args, parameters, sinks, decode=True,
        kv_layout=kv_layout, window_left=window_left, return_lse=return_lse)
    return (out, lse) if return_lse else out


#: What may follow page_size by position, as it once could in the peer.
_POSITIONAL = (
    "pos_encoding_mode", "window_left", "logits_soft_cap", "q_data_type", "kv_data_type", "o_data_type", "data_type",
    "sm_scale", "rope_scale", "rope_theta", "non_blocking", "block_tables", "seq_lens", "fixed_split_size",
    "disable_split_kv", "q_len_per_req",
)


class BatchDecodeWithPagedKVCacheWrapper(BatchWrapper):
    """Decode of a batch over a paged cache: ``plan`` once a step, ``run`` once a layer.

    :param float_workspace_buffer: says the device; None takes it from the plan's arrays. See ``BatchWrapper``.
    :param use_cuda_graph: plan within the bounds of the three buffers, so that captured runs use each next plan. The buffers
        are read for their lengths only.
    :param use_tensor_cores, backend: accepted; do nothing.
    :param jit_args: a ``variants.Variant``, whose tensors ``run`` takes after its own, in the order of ``variant.parameters``, or by
        name as ``parameters``.
    """

    _name = "BatchDecodeWithPagedKVCacheWrapper"

    def __init__(
        self, float_workspace_buffer: Any = None, kv_layout: str = "NHD", use_cuda_graph: bool = False,
        use_tensor_cores: bool = False, paged_kv_indptr_buffer: Any = None, paged_kv_indices_buffer: Any = None,
        paged_kv_last_page_len_buffer: Any = None, backend: str = "auto", jit_args: Any = None,
    ) -> None:
        super().__init__(float_workspace_buffer, kv_layout, use_cuda_graph)
        if isinstance(jit_args, Variant):
            self._jit = jit_args
        else:
            refuse_source(self._name, jit_args)
        self._use_tensor_cores = bool(use_tensor_cores)
        self._backend = backend
        self._graph_q_len: int | None = None
        self._q_len_per_req = 1
        self._fixed_batch_size = 0
        require_graph_buffers(
            use_cuda_graph, paged_kv_indptr_buffer=paged_kv_indptr_buffer, paged_kv_indices_buffer=paged_kv_indices_buffer,
            paged_kv_last_page_len_buffer=paged_kv_last_page_len_buffer)
        if use_cuda_graph:
            self._fixed_batch_size = len(paged_kv_last_page_len_buffer)
            if len(paged_kv_indptr_buffer) != self._fixed_batch_size + 1:
                raise InvalidArgumentError(
                    f"paged_kv_indptr_buffer has {len(paged_kv_indptr_buffer)} entries, but must have "
                    f"{self._fixed_batch_size + 1}: one more than paged_kv_last_page_len_buffer")
            self._max_pages = len(paged_kv_indices_buffer)

    @property
    def use_tensor_cores(self) -> bool:
        return self._use_tensor_cores

    def workspace_size(self, *args: Any, **kwargs: Any) -> tuple[int, int]:
        """Bytes of float and integer workspace that the caller must give: none, a plan owns what it needs."""
        return 0, 0

    def plan(
        self, indptr: Any, indices: Any, last_page_len: Any, num_qo_heads: int, num_kv_heads: int, head_dim: int,
        page_size: int, *positional: Any, **options: Any,
    ) -> None:
        """Plans a batch: ``indptr [requests + 1]``, ``indices [indptr[-1]]`` and ``last_page_len [requests]``, all int32, on the
        host or the device. Arrays on a GPU are copied to the host, which waits for the stream.

        Further options, by keyword: pos_encoding_mode, window_left, logits_soft_cap, q_data_type ("float16"), kv_data_type,
        o_data_type, data_type, sm_scale, rope_scale, rope_theta, non_blocking, block_tables, seq_lens, fixed_split_size (pages),
        disable_split_kv, q_len_per_req.
        """
        if positional:
            warnings.warn(
                f"options of {self._name}.plan after page_size are better given by keyword", DeprecationWarning, stacklevel=2)
            for name, value in zip(_POSITIONAL, positional):
                if name in options:
                    raise TypeError(f"plan() got two values for {name}")
                options[name] = value
        self._plan(indptr, indices, last_page_len, num_qo_heads, num_kv_heads, head_dim, page_size, **options)

    def _plan(
        self, indptr: Any, indices: Any, last_page_len: Any, num_qo_heads: int, num_kv_heads: int, head_dim: int,
        page_size: int, *, block_tables: Any = None, seq_lens: Any = None, q_len_per_req: int = 1, **options: Any,
    ) -> None:
        page_size = integer(page_size, "page_size")
        if not getattr(last_page_len, "shape", ()):
            raise not_a_tensor(last_page_len, "last_page_len")
        batch = len(last_page_len)
        call = self._call(indptr, "indptr")
        if self._use_cuda_graph:
            check_graph_pages("indices", indices, "paged_kv_indices_buffer", self._max_pages)
        self._prepare(call, batch, num_qo_heads, num_kv_heads, head_dim, page_size, q_len_per_req=q_len_per_req, **options)
        queries = 0
        if q_len_per_req > 1:
            if seq_lens is not None and min(call.arrays.to_list(seq_lens), default=q_len_per_req) < q_len_per_req:
                raise InvalidArgumentError(
                    f"q_len_per_req={q_len_per_req} needs kv_len >= q_len_per_req for every request")
            self._check_lengths(call, indptr, last_page_len, page_size, q_len_per_req)
            queries = call.tensor(host_ints([row * q_len_per_req for row in range(batch + 1)]), "qo_indptr")
        self._core.plan(
            "fi_attention_plan_paged", call.arrays.stream(call.like), queries, call.tensor(indptr, "indptr"),
            call.tensor(indices, "indices"), call.tensor(last_page_len, "last_page_len"), page_size, 0,
            queries=batch * q_len_per_req)
        self._finish(batch, q_len_per_req)

    def plan_selected_pages(
        self, seq_lens: Any, k: int, num_qo_heads: int, num_kv_heads: int, head_dim: int, page_size: int, num_pages: int, *,
        positions: bool = False, per_head: bool = False, q_len_per_req: int = 1, **options: Any,
    ) -> None:
        """Plans over pages that are chosen on the device, ``k`` of each request at most, its last among them: run with ``page_indices``
        of ``top_k_page_table_transform``. (Not the peer's, which plans as many pages as are chosen.)

        :param seq_lens: int32 ``[requests]``: keys of each whole sequence.
        :param num_pages: pages of the cache.
        :param positions: runs give ``page_positions``, so that windows, ALiBi, RoPE and variants see keys where they stand in the
            whole sequence; else chosen keys count as neighbours.
        :param per_head: each kv head has a table of its own: ``page_indices``, and ``page_positions``, are ``[requests, num_kv_heads, k]``.
        :param q_len_per_req: rows of each request, whose own keys must lie in pages that are chosen (``recent``).
        :param options: as of ``plan``.
        """
        k, page_size, num_pages = integer(k, "k"), integer(page_size, "page_size"), integer(num_pages, "num_pages")
        call = self._call(seq_lens, "seq_lens")
        batch = len(seq_lens)
        entries = batch * k * (num_kv_heads if per_head else 1)
        if self._use_cuda_graph and entries > self._max_pages:
            raise InvalidArgumentError(
                f"the plan has {entries} selected pages, but paged_kv_indices_buffer has room for {self._max_pages}")
        self._prepare(call, batch, num_qo_heads, num_kv_heads, head_dim, page_size, q_len_per_req=q_len_per_req, **options)
        queries = 0
        if q_len_per_req > 1:
            if min(call.arrays.to_list(seq_lens), default=q_len_per_req) < q_len_per_req:
                raise InvalidArgumentError(
                    f"q_len_per_req={q_len_per_req} needs kv_len >= q_len_per_req for every request")
            queries = call.tensor(host_ints([row * q_len_per_req for row in range(batch + 1)]), "qo_indptr")
        selection = _abi.SelectedPagesOptions(
            struct_size=ctypes.sizeof(_abi.SelectedPagesOptions), has_positions=int(bool(positions)), per_head=int(bool(per_head)))
        self._core.plan(
            "fi_attention_plan_selected_pages_with_options", call.arrays.stream(call.like), queries,
            call.tensor(seq_lens, "seq_lens"), k, page_size, num_pages, ctypes.addressof(selection),
            queries=batch * q_len_per_req)
        self._finish(batch, q_len_per_req)

    def _prepare(
        self, call: Any, batch: int, num_qo_heads: int, num_kv_heads: int, head_dim: int, page_size: int, *,
        q_len_per_req: int, pos_encoding_mode: str = "NONE", window_left: int = -1, window_right: int = 0,
        logits_soft_cap: float | None = None, q_data_type: Any = "float16", kv_data_type: Any = None,
        o_data_type: Any = None, data_type: Any = None, sm_scale: float | None = None, rope_scale: float | None = None,
        rope_theta: float | None = None, non_blocking: bool = True, fixed_split_size: int | None = None,
        disable_split_kv: bool = False,
    ) -> None:
        """The options of a plan."""
        position_code(pos_encoding_mode)
        if window_right != 0:
            raise unsupported(f"{self._name}.plan", "there is no window_right", "window_left")
        if q_len_per_req < 1:
            raise InvalidArgumentError(f"q_len_per_req is {q_len_per_req}, but must be at least 1")
        if data_type is not None:
            q_data_type = data_type if q_data_type is None else q_data_type
            kv_data_type = data_type if kv_data_type is None else kv_data_type
        q_name, kv_name, o_name = self._dtypes(call, q_data_type or "float16", kv_data_type, o_data_type)
        bounds: dict[str, Any] = {}
        if self._use_cuda_graph:
            check_graph_batch(batch, self._fixed_batch_size, "paged_kv_last_page_len_buffer")
            if self._graph_q_len is not None and self._graph_q_len != q_len_per_req:
                raise InvalidArgumentError(
                    f"q_len_per_req is {q_len_per_req}, but this CUDA-graph wrapper was planned with {self._graph_q_len}; "
                    "q_len_per_req is part of the frozen shape: use a wrapper for each")
            bounds = dict(
                max_requests=batch, max_queries=batch * q_len_per_req, max_request_queries=q_len_per_req,
                max_pages=self._max_pages)
            if fixed_split_size is not None and fixed_split_size > 0:
                bounds["max_keys"] = self._max_pages * page_size
        split_mode, split_size = self._split(fixed_split_size, disable_split_kv, page_size)
        self._configure(call, Options(
            num_qo_heads, num_kv_heads, head_dim, head_dim, q_name, kv_name, o_name, kv_layout=self._kv_layout,
            mask_mode=_abi.MASK_CAUSAL if q_len_per_req > 1 and self._jit is None else _abi.MASK_NONE, window_left=max(window_left, -1),
            logits_soft_cap=logits_soft_cap or 0.0, sm_scale=default_scale(sm_scale), pos_encoding_mode=pos_encoding_mode,
            rope_scale=1.0 if rope_scale is None else rope_scale, rope_theta=1e4 if rope_theta is None else rope_theta,
            split_mode=split_mode, split_size=split_size, **bounds))

    def _finish(self, batch: int, q_len_per_req: int) -> None:
        """Notes what runs are checked against."""
        self._batch_size = batch
        self._q_len_per_req = q_len_per_req
        if self._use_cuda_graph:
            self._graph_q_len = q_len_per_req

    @staticmethod
    def _check_lengths(call: Any, indptr: Any, last_page_len: Any, page_size: int, q_len: int) -> None:
        starts, last = call.arrays.to_list(indptr), call.arrays.to_list(last_page_len)
        for request, (start, end, tail) in enumerate(zip(starts, starts[1:], last)):
            length = (end - start - 1) * page_size + tail if end > start else 0
            if length < q_len:
                raise InvalidArgumentError(
                    f"request {request}: kv_len is {length}, but q_len_per_req={q_len} needs kv_len >= q_len_per_req: "
                    "the rows' own tokens are in the cache already, and earlier rows would see an empty KV range")

    begin_forward = plan

    def run(
        self, q: Any, paged_kv_cache: Any, *args: Any, q_scale: Any = None, k_scale: Any = None, v_scale: Any = None,
        out: Any = None, lse: Any = None, return_lse: bool = False, enable_pdl: bool | None = None,
        window_left: int | None = None, sinks: Any = None, q_len_per_req: int | None = None,
        skip_softmax_threshold_scale_factor: float | None = None, kv_cache_sf: Any = None,
        parameters: dict[str, Any] | None = None, page_indices: Any = None, page_positions: Any = None,
    ) -> Any:
        """Runs the plan on one layer.

        :param q: ``[requests · q_len_per_req, num_qo_heads, head_dim]``.
        :param paged_kv_cache: ``[pages, 2, page_size, num_kv_heads, head_dim]`` (HND: heads first), or a pair without the 2.
        :param k_scale, v_scale: numbers, or float32 tensors ``[num_kv_heads]``.
        :param page_indices: int32 page ids on the device in place of the plan's ``indices``, as many or more: read when this runs, and
            each time that a graph of it is replayed. For pages that ``top_k_page_table_transform`` chose (``recent=1``), plan as many
            for each request, with the last page's length of the sequence.
        :param page_positions: as ``page_indices``: the place of each page in its sequence, ``out_raw_indices`` of
            ``top_k_page_table_transform``; exactly where ``plan_selected_pages`` was told of ``positions``.
        :param enable_pdl: accepted; does nothing.
        :returns: the output, or with ``return_lse`` the output and the base-2 log-sum-exp ``[rows, num_qo_heads]``.
        """
        args, sinks, parameters = self._jit_tensors(args, sinks, parameters)
        unwanted = sinks if self._jit is None else None
        if args or unwanted is not None or kv_cache_sf is not None or skip_softmax_threshold_scale_factor is not None:
            self._refuse_extras(args, unwanted, kv_cache_sf, skip_softmax_threshold_scale_factor)
        if window_left is not None:
            self._check_window(window_left)
        if not self._core.planned:
            raise InvalidArgumentError("run is called before plan, or after a plan that failed; call plan first")
        if not getattr(q, "shape", ()):
            raise not_a_tensor(q, "q")
        rows = self._batch_size * self._q_len_per_req
        if q.shape[0] != rows:
            raise InvalidArgumentError(
                f"q has {q.shape[0]} rows, but the plan has {self._batch_size} requests of q_len_per_req={self._q_len_per_req}; "
                f"q must be [{rows}, {self._heads}, head_dim], or plan again with the q_len_per_req wanted")
        if q_len_per_req is not None:
            warnings.warn("q_len_per_req belongs to plan", DeprecationWarning, stacklevel=2)
        if type(paged_kv_cache) is tuple:
            if len(paged_kv_cache) != 2 or getattr(paged_kv_cache[0], "ndim", 0) != 4:
                paged_kv_cache = paged_cache(paged_kv_cache, self._kv_layout)
        elif getattr(paged_kv_cache, "ndim", 0) != 5:
            paged_kv_cache = paged_cache(paged_kv_cache, self._kv_layout)
        if _compile.is_compiling():
            return self._run_traced(q, paged_kv_cache, out, lse, return_lse, None, q_scale, k_scale, v_scale)
        return self._run(
            q, paged_kv_cache, out, lse, return_lse, sinks, q_scale, k_scale, v_scale, parameters=parameters, page_indices=page_indices,
            page_positions=page_positions)

    def _refuse_extras(self, args: Any, sinks: Any, kv_cache_sf: Any, skip: Any) -> None:
        if args:
            raise unsupported(f"{self._name}.run", "extra positional arguments belong to the peer's JIT variants", "q and cache")
        if sinks is not None:
            raise unsupported(
                f"{self._name}.run", "sinks are planned for in advance", "BatchAttentionWithAttentionSinkWrapper")
        refuse(f"{self._name}.run", kv_cache_sf=kv_cache_sf, skip_softmax_threshold_scale_factor=skip)

    run_return_lse = functools.partialmethod(run, return_lse=True)

    def forward(
        self, q: Any, paged_kv_cache: Any, pos_encoding_mode: str = "NONE", q_scale: float | None = None,
        k_scale: float | None = None, v_scale: float | None = None, window_left: int = -1,
        logits_soft_cap: float | None = None, sm_scale: float | None = None, rope_scale: float | None = None,
        rope_theta: float | None = None,
    ) -> Any:
        """The old name of ``run``; its options must be those of the plan."""
        self._check_forward(pos_encoding_mode, window_left, logits_soft_cap, sm_scale, rope_scale, rope_theta)
        return self.run(q, paged_kv_cache, q_scale=q_scale, k_scale=k_scale, v_scale=v_scale)

    def forward_return_lse(self, q: Any, paged_kv_cache: Any, *args: Any, **kwargs: Any) -> Any:
        """``forward`` with the log-sum-exp."""
        scales = {name: kwargs.pop(name) for name in ("q_scale", "k_scale", "v_scale") if name in kwargs}
        self._check_forward(*args, **kwargs)
        return self.run(q, paged_kv_cache, return_lse=True, **scales)

    def _check_forward(
        self, pos_encoding_mode: str = "NONE", window_left: int = -1, logits_soft_cap: float | None = None,
        sm_scale: float | None = None, rope_scale: float | None = None, rope_theta: float | None = None,
    ) -> None:
        options = self._options
        if options is None:
            return
        for name, given, planned in (
            ("pos_encoding_mode", pos_encoding_mode, options.pos_encoding_mode), ("window_left", window_left, options.window_left),
            ("logits_soft_cap", logits_soft_cap or 0.0, options.logits_soft_cap),
        ):
            if given != planned and not (name == "logits_soft_cap" and given == 0.0):
                raise InvalidArgumentError(f"{name} is {given}, but {planned} in plan; give it to plan")
        for name, value in (("sm_scale", sm_scale), ("rope_scale", rope_scale), ("rope_theta", rope_theta)):
            planned_value = getattr(options, name)
            if value is not None and value != planned_value:
                raise InvalidArgumentError(f"{name} is {value}, but {planned_value} in plan; give it to plan")


class CUDAGraphBatchDecodeWithPagedKVCacheWrapper(BatchDecodeWithPagedKVCacheWrapper):
    """``BatchDecodeWithPagedKVCacheWrapper`` whose plans are bounded by the buffers given, for capture in a CUDA graph."""

    def __init__(
        self, workspace_buffer: Any, indptr_buffer: Any, indices_buffer: Any, last_page_len_buffer: Any,
        kv_layout: str = "NHD", use_tensor_cores: bool = False,
    ) -> None:
        super().__init__(
            workspace_buffer, kv_layout, use_cuda_graph=True, use_tensor_cores=use_tensor_cores,
            paged_kv_indptr_buffer=indptr_buffer, paged_kv_indices_buffer=indices_buffer,
            paged_kv_last_page_len_buffer=last_page_len_buffer)


def fast_decode_plan(
    wrapper: BatchDecodeWithPagedKVCacheWrapper, indptr: Any, indices: Any, last_page_len: Any, num_qo_heads: int,
    num_kv_heads: int, head_dim: int, page_size: int, pos_encoding_mode: str = "NONE", window_left: int = -1,
    logits_soft_cap: float | None = None, q_data_type: Any = None, kv_data_type: Any = None, data_type: Any = None,
    sm_scale: float | None = None, rope_scale: float | None = None, rope_theta: float | None = None,
    non_blocking: bool = True, fixed_split_size: int | None = None, disable_split_kv: bool = False, q_len_per_req: int = 1,
    global_override_indptr_cpu: Any = None,
) -> None:
    """``wrapper.plan``, which is fast anyway; with a host copy of ``indptr`` where the caller has one.

    May be put in the place of a wrapper's ``plan``, as engines do.
    """
    wrapper._plan(
        global_override_indptr_cpu if global_override_indptr_cpu is not None else indptr, indices, last_page_len,
        num_qo_heads, num_kv_heads, head_dim, page_size, pos_encoding_mode=pos_encoding_mode, window_left=window_left,
        logits_soft_cap=logits_soft_cap, q_data_type=q_data_type if q_data_type is not None else (data_type or "float16"),
        kv_data_type=kv_data_type, data_type=data_type, sm_scale=sm_scale, rope_scale=rope_scale, rope_theta=rope_theta,
        non_blocking=non_blocking, fixed_split_size=fixed_split_size, disable_split_kv=disable_split_kv,
        q_len_per_req=q_len_per_req)


__all__ = [
    "BatchDecodeWithPagedKVCacheWrapper", "CUDAGraphBatchDecodeWithPagedKVCacheWrapper", "fast_decode_plan",
    "single_decode_with_kv_cache", "single_decode_with_kv_cache_with_jit_module",
]
