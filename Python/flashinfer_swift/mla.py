"""Multi-head latent attention (DeepSeek): attention with absorbed projections, and the cache."""

from __future__ import annotations

import ctypes
import math
from typing import Any

from . import _abi
from ._arrays import library_of, not_a_tensor
from ._call import Call
from ._planned import Options, indptr_last, integer, scale_value
from ._wrapper import BatchWrapper, check_graph_batch, check_graph_pages, insert_axis, refuse, require_graph_buffers
from .errors import InvalidArgumentError, UnsupportedError, unsupported
from .page import place


class BatchMLAPagedAttentionWrapper(BatchWrapper):
    """Latent attention of a batch over a paged cache of compressed keys: ``plan`` once a step, ``run`` once a layer.

    :param float_workspace_buffer: says the device; None takes it from the plan's arrays. See ``BatchWrapper``.
    :param use_cuda_graph: plan within the bounds of the four buffers, so that captured runs use each next plan. The buffers are
        read for their lengths only.
    :param backend: accepted; does nothing.
    """

    _name = "BatchMLAPagedAttentionWrapper"

    def __init__(
        self, float_workspace_buffer: Any = None, use_cuda_graph: bool = False, qo_indptr: Any = None, kv_indptr: Any = None,
        kv_indices: Any = None, kv_len_arr: Any = None, backend: str = "auto",
    ) -> None:
        super().__init__(float_workspace_buffer, "NHD", use_cuda_graph)
        require_graph_buffers(
            use_cuda_graph, qo_indptr=qo_indptr, kv_indptr=kv_indptr, kv_indices=kv_indices, kv_len_arr=kv_len_arr)
        self._rope_dim = 0
        self._args = _abi.MLARunArgs(struct_size=ctypes.sizeof(_abi.MLARunArgs))
        #: Query rows of the first plan in CUDA-graph mode, which later plans may not exceed.
        self._graph_rows: int | None = None
        if use_cuda_graph:
            self._fixed_batch_size = len(kv_len_arr)
            self._max_pages = len(kv_indices)

    def plan(
        self, qo_indptr: Any, kv_indptr: Any, kv_indices: Any, kv_len_arr: Any, num_heads: int, head_dim_ckv: int,
        head_dim_kpe: int, page_size: int, causal: bool, sm_scale: float, q_data_type: Any, kv_data_type: Any,
        use_profiler: bool = False,
    ) -> None:
        """Plans a batch: ``qo_indptr``, ``kv_indptr [requests + 1]``, ``kv_indices [kv_indptr[-1]]`` and ``kv_len_arr [requests]``, all
        int32, on the host or the device. Arrays on a GPU are copied to the host, which waits for the stream. Of a longer ``kv_indptr``
        the first entries are read, as by the peer.

        :param sm_scale: multiplies the scores: 1 / sqrt(128 + 64) for DeepSeek, the head's size before absorption.
        """
        if use_profiler:
            raise unsupported(f"{self._name}.plan", "there is no profiler in the kernels", "use_profiler=False")
        page_size = integer(page_size, "page_size")
        call = self._call(qo_indptr, "qo_indptr")
        q_name, kv_name, o_name = self._dtypes(call, q_data_type, kv_data_type, None)
        for name, array in (("kv_len_arr", kv_len_arr), ("kv_indptr", kv_indptr)):
            if not getattr(array, "shape", ()):
                raise not_a_tensor(array, name)
        batch = len(kv_len_arr)
        rows = indptr_last(call.arrays, qo_indptr)
        bounds: dict[str, Any] = {}
        if self._use_cuda_graph:
            check_graph_batch(batch, self._fixed_batch_size, "kv_len_arr")
            check_graph_pages("kv_indices", kv_indices, "kv_indices", self._max_pages)
            if self._graph_rows is None:
                self._graph_rows = rows
            if rows > self._graph_rows:
                raise InvalidArgumentError(
                    f"the batch has {rows} query rows, but this CUDA-graph wrapper was first planned with {self._graph_rows}")
            bounds = dict(
                max_requests=batch, max_queries=self._graph_rows, max_request_queries=self._graph_rows, max_pages=self._max_pages)
        self._configure(call, Options(
            num_heads, 1, head_dim_ckv + head_dim_kpe, head_dim_ckv, q_name, kv_name, o_name,
            mask_mode=_abi.MASK_CAUSAL if causal else _abi.MASK_NONE, sm_scale=float(sm_scale), latent_rope_dim=head_dim_kpe,
            **bounds))
        self._core.plan(
            "fi_mla_plan", call.arrays.stream(call.like), call.tensor(qo_indptr, "qo_indptr"),
            call.tensor(kv_indptr[:batch + 1], "kv_indptr"), call.tensor(kv_indices, "kv_indices"),
            call.tensor(kv_len_arr, "kv_len_arr"), page_size, 0, queries=rows)
        self._rope_dim = head_dim_kpe

    def run(
        self, q_nope: Any, q_pe: Any, ckv_cache: Any, kpe_cache: Any, out: Any = None, lse: Any = None,
        return_lse: bool = False, profiler_buffer: Any = None, kv_len: Any = None, page_table: Any = None,
        return_lse_base_on_e: bool = False, o_scale: Any = None, *, ckv_scale: Any = None, ckv_scale_arr: Any = None,
        kpe_scale: Any = None,
    ) -> Any:
        """Runs the plan on one layer.

        :param q_nope: ``[rows, num_heads, head_dim_ckv]``; ``q_pe [rows, num_heads, head_dim_kpe]``, not read where ``head_dim_kpe`` is 0.
        :param ckv_cache: ``[pages, page_size, head_dim_ckv]``; ``kpe_cache [pages, page_size, head_dim_kpe]``: two tensors, or slices
            of one.
        :param ckv_scale, kpe_scale: what stored numbers stand for is that many times as much.
        :param return_lse_base_on_e: the log-sum-exp in natural logarithm, not base 2.
        :returns: ``[rows, num_heads, head_dim_ckv]``; with ``return_lse`` also the log-sum-exp ``[rows, num_heads]``.
        """
        refuse(
            f"{self._name}.run", profiler_buffer=profiler_buffer, kv_len=kv_len, page_table=page_table, o_scale=o_scale,
            ckv_scale_arr=ckv_scale_arr)
        core = self._core
        if not core.planned:
            raise InvalidArgumentError("run is called before plan, or after a plan that failed; call plan first")
        call = Call(q_nope, "q_nope")
        if out is None:
            out = call.arrays.empty_rows(q_nope, self._v_width, core.out_dtype)
        if return_lse and lse is None:
            lse = call.arrays.empty(q_nope.shape[:-1], "float32", q_nope)
        if self._rope_dim == 0:
            # Keys that are values: attention with one head of both, in the same memory.
            shared = insert_axis(ckv_cache, 2)
            core.run(call.arrays, q_nope, (shared, shared), out, lse, k_scale=ckv_scale, v_scale=ckv_scale)
            if lse is not None and return_lse_base_on_e:
                lse *= math.log(2)
            return (out, lse) if return_lse else out
        with core.lock:
            args = self._args
            args.q_nope, args.q_pe = call.tensor(q_nope, "q_nope"), call.tensor(q_pe, "q_pe")
            args.ckv, args.kpe = call.tensor(ckv_cache, "ckv_cache"), call.tensor(kpe_cache, "kpe_cache")
            args.out = call.output(out, "out")
            args.lse = 0 if lse is None else call.output(lse, "lse")
            args.ckv_scale = scale_value(call.arrays, ckv_scale, "ckv_scale")
            args.kpe_scale = scale_value(call.arrays, kpe_scale, "kpe_scale")
            args.lse_natural = int(return_lse_base_on_e)
            status = core.library.fi_mla_run(core.handle, call.arrays.stream(q_nope), ctypes.addressof(args))
            if status:
                self._check_dtypes(call, q_nope=q_nope, q_pe=q_pe, ckv_cache=ckv_cache, kpe_cache=kpe_cache)
                core.library.fail(status, "run")
        return (out, lse) if return_lse else out

    def _check_dtypes(self, call: Call, **arrays: Any) -> None:
        """Raises for the first array of another type than planned, by the name it has here."""
        for name, array in arrays.items():
            planned = self._options.q_dtype if name.startswith("q_") else self._options.kv_dtype
            found = call.read(array, name).dtype
            if found != planned:
                raise InvalidArgumentError(f"run: {name}.dtype is {found}, but must be {planned}, as planned")


_REASON = "it is the peer's older path"
_INSTEAD = "BatchMLAPagedAttentionWrapper"


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
    for name, array in (("k", k), ("k_nope", k_nope), ("k_rope", k_rope)):
        library_of(array, name)
    if not k.dtype == k_nope.dtype == k_rope.dtype:
        raise UnsupportedError(
            f"concat_mla_k: k is of {k.dtype}, k_nope of {k_nope.dtype} and k_rope of {k_rope.dtype}; it copies, and converts nothing")
    width = k_nope.shape[-1]
    wanted = (*k_nope.shape[:-1], width + k_rope.shape[-1])
    if len(k_nope.shape) < 2 or len(k_rope.shape) != len(k_nope.shape) or tuple(k.shape) != wanted or any(
            extent not in (1, whole) for extent, whole in zip(k_rope.shape[:-1], wanted)):
        raise InvalidArgumentError(
            f"k is of shape {tuple(k.shape)}, k_nope of {tuple(k_nope.shape)} and k_rope of {tuple(k_rope.shape)}, but must be "
            "[tokens, heads, a + b], [tokens, heads, a] and [tokens, 1, b]")
    if getattr(getattr(k, "flags", None), "writeable", True) is False:
        raise InvalidArgumentError("k is read-only memory, but is written")
    k[..., :width] = k_nope
    k[..., width:] = k_rope


__all__ = [
    "BatchDecodeMlaWithPagedKVCacheWrapper", "BatchMLAPagedAttentionWrapper", "append_paged_mla_kv_cache",
    "concat_mla_k",
]
