"""What the batch attention wrappers share: where they run, their options, outputs, and the CUDA-graph form's bounds."""

from __future__ import annotations

import itertools
import weakref
from typing import Any

from . import _abi, _compile
from ._arrays import ArrayLibrary, element_count, is_contiguous, library_of, not_a_tensor
from ._call import Call
from ._planned import Options, PlannedAttention, layout_code, output_dtype
from .errors import InvalidArgumentError, UnsupportedError, unsupported
from .variants import Variant

_keys = itertools.count(1)
#: Wrappers by number: what an operator of torch.compile carries instead of an object.
wrappers: "weakref.WeakValueDictionary[int, BatchWrapper]" = weakref.WeakValueDictionary()


def require_graph_buffers(use_cuda_graph: bool, **buffers: Any) -> None:
    """In CUDA-graph mode every buffer is given, since its length bounds the plans."""
    for name, buffer in buffers.items():
        if use_cuda_graph and buffer is None:
            raise InvalidArgumentError(f"{name} is None, but CUDA-graph mode needs it: its length bounds the plans")


def check_graph_batch(requests: int, fixed: int, buffer: str) -> None:
    """The batch size of CUDA-graph mode is that of the buffers."""
    if requests != fixed:
        raise InvalidArgumentError(
            f"the batch has {requests} requests, but the batch size is fixed in CUDA-graph mode: {buffer} has room for {fixed}")


def check_graph_pages(name: str, indices: Any, buffer: str, room: int) -> None:
    """A plan's page ids are no more than the buffer has room for."""
    if len(indices) > room:
        raise InvalidArgumentError(f"{name} has {len(indices)} page ids, but {buffer} has room for {room}")


class BatchWrapper:
    """The common part. `float_workspace_buffer` says the device, and is not used otherwise: a plan owns its workspace, of the
    size that it needs. It may be None; then the plan's index arrays say the device."""

    _name = "wrapper"
    _has_sinks = False

    def __init__(self, float_workspace_buffer: Any, kv_layout: str, use_cuda_graph: bool) -> None:
        layout_code(kv_layout)
        self._kv_layout = kv_layout
        self._float_workspace_buffer = float_workspace_buffer
        self._use_cuda_graph = bool(use_cuda_graph)
        self._core = PlannedAttention()
        self._arrays: ArrayLibrary | None = None
        self._q_type: type | None = None
        self._options: Options | None = None
        self._v_width = 0
        self._heads = 0
        self._window_left = -1
        self._batch_size = 0
        self._mask: Any = None
        #: The variant of `jit_args`, where one was given.
        self._jit: Variant | None = None
        self._key = next(_keys)
        wrappers[self._key] = self

    @property
    def is_cuda_graph_enabled(self) -> bool:
        """Whether plans are bounded by the buffers given at construction, so that captured runs stay valid."""
        return self._use_cuda_graph

    def reset_workspace_buffer(self, float_workspace_buffer: Any, int_workspace_buffer: Any = None) -> None:
        """Takes the device from another buffer from the next plan on."""
        self._float_workspace_buffer = float_workspace_buffer

    def end_forward(self) -> None:
        """Does nothing; kept for the peer's old name."""

    # -------------------------------------------------------------------------------------------------------------- plan

    def _call(self, like: Any, name: str) -> Call:
        """A call on the device of the workspace, or of `like` where there is none."""
        call = Call(like, name)
        workspace = self._float_workspace_buffer
        if workspace is not None:
            call.like = workspace
            call.arrays = library_of(workspace, "float_workspace_buffer")
            call.first = call.arrays.view(workspace, "float_workspace_buffer")
        return call

    def _dtypes(self, call: Call, q: Any, kv: Any, o: Any) -> tuple[str, str, str]:
        q_name = call.arrays.dtype_name(q)
        kv_name = call.arrays.dtype_name(kv) if kv is not None else q_name
        o_name = call.arrays.dtype_name(o) if o is not None else output_dtype(q_name)
        if kv_name == "uint8":
            raise unsupported(f"{self._name}.plan", "there is no NVFP4 KV cache", "float8_e4m3fn or a 16-bit kv_data_type")
        return q_name, kv_name, o_name

    def _configure(self, call: Call, options: Options, place: tuple[str, int] | None = None) -> None:
        if self._jit is not None:
            options = self._jit.options(f"{self._name}.plan", options)
        self._core.configure(options, *(place or (call.first.device, call.first.index)))
        self._options = options
        self._heads = options.num_qo_heads
        self._v_width = options.head_dim_vo
        self._window_left = options.window_left

    def _set_mask(self, call: Call, mask: Any, packed: Any, buffer: Any = None) -> None:
        """The mask of the runs to come: where plans are captured it is copied into `buffer`, whose address stays."""
        given = packed if packed is not None else mask
        if given is None:
            self._mask = None
            self._core.set_mask(None)
            return
        view = call.arrays.view(given, "custom_mask")
        if view.dtype not in ("bool", "uint8"):
            raise InvalidArgumentError(f"the custom mask is of {view.dtype}, but must be of bool or uint8")
        if self._use_cuda_graph:
            if buffer is None:
                raise InvalidArgumentError("custom_mask_buf is None, but a mask in CUDA-graph mode needs one")
            count = element_count(view)
            target = call.arrays.view(buffer, "custom_mask_buf")
            if target.shape[0] < count:
                raise InvalidArgumentError(
                    f"custom_mask_buf has {target.shape[0]} bytes, but this mask needs {count}: a byte an element, or packed")
            buffer[:count] = given.reshape(-1) if view.dtype == target.dtype else call.arrays.cast(given, target.dtype).reshape(-1)
            view = call.arrays.view(buffer[:count])
        else:
            if len(view.shape) != 1 or not is_contiguous(view):
                given = call.arrays.contiguous_vector(given)
                view = call.arrays.view(given)
        self._mask = given
        self._core.set_mask(view)

    @staticmethod
    def _mask_mode(mask: Any, packed: Any, causal: bool) -> int:
        if packed is not None:
            return _abi.MASK_CUSTOM_PACKED
        if mask is not None:
            return _abi.MASK_CUSTOM
        return _abi.MASK_CAUSAL if causal else _abi.MASK_NONE

    @staticmethod
    def _split(fixed_split_size: int | None, disable_split_kv: bool, page_size: int) -> tuple[int, int]:
        if disable_split_kv:
            return _abi.SPLIT_NONE, 0
        if fixed_split_size is not None and fixed_split_size > 0:
            # The kernels split at multiples of 128 keys; the peer's unit is a page.
            keys = max(fixed_split_size * page_size, 1)
            return _abi.SPLIT_FIXED, (keys + 127) // 128 * 128
        return _abi.SPLIT_BALANCED, 0

    def _check_window(self, window_left: int | None) -> None:
        if window_left is not None and window_left != self._window_left:
            raise InvalidArgumentError(
                f"window_left is {window_left} in run, but {self._window_left} in plan; plan again with the window wanted")

    # --------------------------------------------------------------------------------------------------------------- run

    def _jit_tensors(
        self, args: tuple, sinks: Any, parameters: dict[str, Any] | None
    ) -> tuple[tuple, Any, dict[str, Any] | None]:
        """What of a run's extra arguments is not the variant's, its sinks, and the variant's tensors by name."""
        if self._jit is not None:
            return (), *self._jit.tensors(f"{self._name}.run", args, sinks, parameters)
        if parameters is not None:
            raise unsupported(f"{self._name}.run", "there is no variant that reads parameters", "jit_args=Variant(…)")
        return args, sinks, None

    def _run(
        self, q: Any, kv: Any, out: Any, lse: Any, return_lse: bool, sinks: Any = None, q_scale: Any = None,
        k_scale: Any = None, v_scale: Any = None, o_scale: Any = None, sm_scale: float | None = None,
        parameters: dict[str, Any] | None = None, page_indices: Any = None, page_positions: Any = None,
    ) -> Any:
        arrays = self._arrays
        if arrays is None or type(q) is not self._q_type:
            arrays = library_of(q, "q")
            self._arrays, self._q_type = arrays, type(q)
        if out is None:
            out = arrays.empty_rows(q, self._v_width, self._core.out_dtype)
        if return_lse and lse is None:
            lse = arrays.empty(q.shape[:-1], "float32", q)
        # An lse that is given is written, asked for or not, as the peer does.
        self._core.run(
            arrays, q, kv, out, lse, sinks, q_scale, k_scale, v_scale, o_scale, sm_scale, parameters=parameters,
            page_indices=page_indices, page_positions=page_positions)
        return (out, lse) if return_lse else out

    def _run_traced(
        self, q: Any, kv: Any, out: Any, lse: Any, return_lse: bool, sinks: Any = None, q_scale: Any = None,
        k_scale: Any = None, v_scale: Any = None,
    ) -> Any:
        """The run as one operator of a graph that torch.compile makes."""
        import torch

        if self._jit is not None:
            raise unsupported(f"{self._name}.run under torch.compile", "it has a variant", "the same run outside of it")

        if out is None:
            out = torch.empty((*q.shape[:-1], self._v_width), dtype=getattr(torch, self._core.out_dtype), device=q.device)
        if return_lse and lse is None:
            lse = torch.empty(q.shape[:-1], dtype=torch.float32, device=q.device)
        k, v = kv if isinstance(kv, (tuple, list)) else (kv, None)
        for name, value in (("q_scale", q_scale), ("k_scale", k_scale), ("v_scale", v_scale)):
            if value is not None and not isinstance(value, (int, float)):
                raise UnsupportedError(f"{name} is a tensor under torch.compile; give it as a number")
        _compile.ops.attention_run(
            q, k, v, out, lse, sinks, float(q_scale or 0), float(k_scale or 0), float(v_scale or 0),
            self._key)
        return (out, lse) if return_lse else out


def paged_cache(cache: Any, kv_layout: str) -> Any:
    """A combined cache, or a pair, as the C library takes it; without a page dimension the page size is 1, as the peer has it."""
    axis = 1 if kv_layout == "NHD" else 2
    if isinstance(cache, (tuple, list)):
        if len(cache) != 2:
            raise KeyError(f"paged_kv_cache has {len(cache)} tensors, but must be one, or a pair of keys and values")
        k, v = cache
        for place, tensor in enumerate(cache):
            if not hasattr(tensor, "shape") and not hasattr(tensor, "__dlpack__"):
                raise not_a_tensor(tensor, f"paged_kv_cache[{place}]")
        if getattr(k, "ndim", 4) == 3:
            return insert_axis(k, axis), insert_axis(v, axis)
        return (k, v)
    if not hasattr(cache, "shape") and not hasattr(cache, "__dlpack__"):
        raise not_a_tensor(cache, "paged_kv_cache")
    if getattr(cache, "ndim", 5) == 4:
        return insert_axis(cache, axis + 1)
    return cache


def insert_axis(array: Any, axis: int) -> Any:
    if hasattr(array, "unsqueeze"):
        return array.unsqueeze(axis)
    return array.reshape((*array.shape[:axis], 1, *array.shape[axis:]))


def no_multi_item(name: str, *values: Any) -> None:
    if any(value is not None for value in values):
        raise unsupported(f"{name}.plan", "there is no multi-item scoring mask (prefix_len_ptr, …)", "custom_mask")


def refuse(name: str, **given: Any) -> None:
    """Raises for arguments that would change the result and that nothing here can honour."""
    for argument, value in given.items():
        if value is not None:
            raise unsupported(f"{name}", f"{argument} is not supported", f"the call without {argument}")
