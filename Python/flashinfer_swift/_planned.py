"""One planned batch of attention: options, plan and run of the C library's `fi_attention`, with structs that are reused."""

from __future__ import annotations

import ctypes
import threading
import weakref
from operator import index, is_
from typing import Any, NamedTuple

from . import _abi, _library
from ._arrays import ArrayLibrary, TorchLibrary, View
from ._call import Slot
from .errors import InvalidArgumentError, UnsupportedError

_LAYOUTS = {"NHD": _abi.NHD, "HND": _abi.HND}
_POSITIONS = {"NONE": _abi.POSITION_NONE, "ROPE_LLAMA": _abi.POSITION_ROPE, "ALIBI": _abi.POSITION_ALIBI}


def layout_code(kv_layout: str) -> int:
    code = _LAYOUTS.get(kv_layout)
    if code is None:
        raise KeyError(f"kv_layout is {kv_layout!r}, but must be 'NHD' or 'HND'")
    return code


def position_code(pos_encoding_mode: str) -> int:
    code = _POSITIONS.get(pos_encoding_mode)
    if code is None:
        raise KeyError(f"pos_encoding_mode is {pos_encoding_mode!r}, but must be 'NONE', 'ROPE_LLAMA' or 'ALIBI'")
    return code


def integer(value: Any, name: str, bits: int = 32) -> int:
    """A number for a field of a C struct: ctypes would cut off what does not fit, and not name what is no integer."""
    try:
        number = index(value)
    except TypeError:
        raise InvalidArgumentError(f"{name} is {value!r}, but must be an integer") from None
    if not -(1 << bits - 1) <= number < 1 << bits - 1:
        raise InvalidArgumentError(f"{name} is {number}, but must fit in {bits} bits")
    return number


class Options(NamedTuple):
    """What a plan computes, in the peer's terms; equal options need no configuring."""

    num_qo_heads: int
    num_kv_heads: int
    head_dim_qk: int
    head_dim_vo: int
    q_dtype: str
    kv_dtype: str
    o_dtype: str
    kv_layout: str = "NHD"
    mask_mode: int = _abi.MASK_NONE
    window_left: int = -1
    logits_soft_cap: float = 0.0
    sm_scale: float = 0.0
    pos_encoding_mode: str = "NONE"
    rope_scale: float = 1.0
    rope_theta: float = 1e4
    has_sinks: bool = False
    split_mode: int = _abi.SPLIT_BALANCED
    split_size: int = 0
    max_requests: int = 0
    max_queries: int = 0
    max_request_queries: int = 0
    max_keys: int = 0
    max_pages: int = 0
    max_levels: int = 0
    #: A variant's JSON form, which says mask, window, cap, scale and sinks.
    variant: str = ""
    #: Of latent keys, elements that are no part of the value; 0 for keys and values of their own.
    latent_rope_dim: int = 0

    def native(self) -> tuple[_abi.AttentionOptions, Any]:
        """The struct, and what it points to."""
        for name in _SIZES:
            integer(getattr(self, name), name)
        for name in _BOUNDS:
            integer(getattr(self, name), name, 64)
        rope = None
        if self.pos_encoding_mode == "ROPE_LLAMA":
            rope = _abi.RopeOptions(struct_size=ctypes.sizeof(_abi.RopeOptions), theta=self.rope_theta)
            if self.rope_scale != 1.0:
                rope.scaling = _abi.ROPE_LINEAR
                rope.factor = self.rope_scale
        # Of any size: no sequence is as long as a window that does not fit the struct, so it is none.
        window_left = integer(self.window_left, "window_left", 128)
        if window_left < -1:
            raise InvalidArgumentError(f"window_left is {window_left}, but must be 0 or more, or -1 for no window")
        window = 0 if window_left >= 0x7FFFFFFF else window_left + 1
        options = _abi.AttentionOptions(
            struct_size=ctypes.sizeof(_abi.AttentionOptions), num_qo_heads=self.num_qo_heads, num_kv_heads=self.num_kv_heads,
            head_dim_qk=self.head_dim_qk, head_dim_vo=self.head_dim_vo, q_dtype=_abi.DType.named(self.q_dtype),
            kv_dtype=_abi.DType.named(self.kv_dtype), o_dtype=_abi.DType.named(self.o_dtype),
            kv_layout=layout_code(self.kv_layout), mask_mode=self.mask_mode, window=window,
            logits_soft_cap=self.logits_soft_cap, sm_scale=self.sm_scale,
            position_encoding=position_code(self.pos_encoding_mode), has_sinks=int(self.has_sinks),
            split_mode=self.split_mode, split_size=self.split_size, max_requests=self.max_requests,
            max_queries=self.max_queries, max_request_queries=self.max_request_queries, max_keys=self.max_keys,
            max_pages=self.max_pages, max_levels=self.max_levels, latent_rope_dim=self.latent_rope_dim)
        if rope is not None:
            options.rope = ctypes.pointer(rope)
        if self.variant:
            options.variant = self.variant.encode()
            options.mask_mode, options.window, options.logits_soft_cap, options.sm_scale, options.has_sinks = 0, 0, 0.0, 0.0, 0
        return options, rope


#: Fields of the struct of 32 bits, and of 64.
_SIZES = (
    "num_qo_heads", "num_kv_heads", "head_dim_qk", "head_dim_vo", "mask_mode", "split_mode", "split_size", "latent_rope_dim")
_BOUNDS = ("max_requests", "max_queries", "max_request_queries", "max_keys", "max_pages", "max_levels")


# Which tensors a run has: a combined cache or a pair, with the log-sum-exp or without.
_PAIR, _COMBINED, _LSE = 0, 1, 2


class PlannedAttention:
    """A `fi_attention` with the slots of its run.

    Runs of one object take turns (a lock is held): it has one set of structs.
    """

    def __init__(self) -> None:
        self.library = _library.get()
        self.lock = threading.Lock()
        self.handle: int | None = None
        self.place: tuple[str, int] | None = None
        self.options: Options | None = None
        self.planned = False
        self.queries = 0
        self._args = _abi.RunArgs(struct_size=ctypes.sizeof(_abi.RunArgs))
        self._args_address = ctypes.addressof(self._args)
        names = (
            "q", "k", "v", "kv", "out", "lse", "mask", "sinks", "q_scales", "k_scales", "v_scales", "page_indices",
            "page_positions")
        self._slots = {name: Slot() for name in names}
        self._q, self._k, self._v, self._kv = (self._slots[name] for name in ("q", "k", "v", "kv"))
        self._out, self._lse = self._slots["out"], self._slots["lse"]
        self._args.q = self._q.address
        self._args.out = self._out.address
        self._scales: tuple = (None, None, None, None, None)
        self._form = -1
        self._run_function = self.library.fi_attention_run
        self._finalizer: Any = None
        self.out_dtype: str = ""
        self._mask: Any = None
        self._parameter_slots: dict[str, Slot] = {}
        self._parameter_names: tuple[str, ...] = ()
        self._parameters: Any = None

    # -------------------------------------------------------------------------------------------------------------- plan

    def configure(self, options: Options, device: str, index: int) -> None:
        """Options of the next plan, on this device."""
        if options == self.options and self.place == (device, index):
            return
        native, _keep = options.native()
        with self.lock:
            if self.handle is not None and self.place != (device, index):
                self._destroy()
            if self.handle is None:
                handle = ctypes.c_void_p()
                status = self.library.fi_attention_create(
                    self.library.device(device, index).handle, ctypes.byref(native), ctypes.byref(handle))
                if status:
                    self.library.fail(status, "plan")
                self.handle = handle.value
                self.place = (device, index)
                self._finalizer = weakref.finalize(self, self.library.fi_attention_destroy, self.handle)
                self._finalizer.atexit = False  # the driver may be gone by then
            else:
                self.planned = False
                status = self.library.fi_attention_configure(self.handle, ctypes.byref(native))
                if status:
                    self.options = None
                    self.library.fail(status, "plan")
            self.options = options
            self.out_dtype = options.o_dtype

    def _destroy(self) -> None:
        if self._finalizer is not None:
            self._finalizer()
        self.handle = None
        self.options = None
        self.planned = False

    def plan(self, function: str, stream: int, *arguments: Any, queries: int) -> None:
        """One of the library's `fi_attention_plan_…`."""
        with self.lock:
            self.planned = False
            status = getattr(self.library, function)(self.handle, stream, *arguments)
            if status:
                self.library.fail(status, "plan")
            self.planned = True
            self.queries = queries

    def info(self) -> _abi.PlanInfo:
        info = _abi.PlanInfo(ctypes.sizeof(_abi.PlanInfo))
        status = self.library.fi_attention_get_plan_info(self.handle, ctypes.byref(info))
        if status:
            self.library.fail(status)
        return info

    # --------------------------------------------------------------------------------------------------------------- run

    def set_mask(self, mask: View | None) -> None:
        """The custom mask of the runs to come; held until another plan."""
        self._mask = mask
        if mask is None:
            self._args.mask = 0
        else:
            self._args.mask = self._slots["mask"].fill(mask, "mask")

    def run(
        self, arrays: ArrayLibrary, q: Any, kv: Any, out: Any, lse: Any, sinks: Any = None, q_scale: Any = None,
        k_scale: Any = None, v_scale: Any = None, o_scale: Any = None, sm_scale: float | None = None,
        stream: int | None = None, parameters: dict[str, Any] | None = None, page_indices: Any = None,
        page_positions: Any = None,
    ) -> None:
        """Runs the plan. `kv` is a combined cache or a pair; `lse` may be None; `stream` is the current one of q's device;
        `parameters` are the tensors that the plan's variant reads, by name; `page_indices` int32 page ids in place of the plan's, and
        `page_positions` their places."""
        if not self.planned:
            raise InvalidArgumentError("run is called before plan, or after a plan that failed; call plan first")
        scales = (q_scale, k_scale, v_scale, o_scale, sm_scale)
        if stream is None:
            stream = arrays.stream(q)
        held: Any = None
        with self.lock:
            args = self._args
            if type(arrays) is TorchLibrary and type(q) is arrays.tensor and type(out) is arrays.tensor:
                self._q.fill_torch(q, arrays, "q")
                self._out.fill_torch(out, arrays, "out")
                if type(kv) is tuple or type(kv) is list:
                    self._k.fill_torch(kv[0], arrays, "k")
                    self._v.fill_torch(kv[1], arrays, "v")
                    form = _PAIR
                else:
                    self._kv.fill_torch(kv, arrays, "paged_kv_cache")
                    form = _COMBINED
                if lse is not None:
                    self._lse.fill_torch(lse, arrays, "lse")
                    form |= _LSE
            else:
                form, held = self._fill_views(arrays, q, kv, out, lse)
            if form != self._form:
                self._set_form(form)
            if sinks is not None:
                sinks_view = arrays.view(sinks, "sinks")
                args.sinks = self._slots["sinks"].fill(sinks_view, "sinks")
            elif args.sinks:
                args.sinks = 0
            if page_indices is not None:
                pages_view = arrays.view(page_indices, "page_indices")
                args.page_indices = self._slots["page_indices"].fill(pages_view, "page_indices")
            elif args.page_indices:
                args.page_indices = 0
            if page_positions is not None:
                positions_view = arrays.view(page_positions, "page_positions")
                args.page_positions = self._slots["page_positions"].fill(positions_view, "page_positions")
            elif args.page_positions:
                args.page_positions = 0
            # Scales that are numbers change rarely, and tensors of scales must be read anew each time; they have no truth of ==.
            known = self._scales
            held_scales = None
            if len(known) != 5 or not all(map(is_, scales, known)):
                held_scales = self._set_scales(arrays, scales)
            held_parameters = self._set_parameters(arrays, parameters) if parameters or self._parameter_names else None
            status = self._run_function(self.handle, stream, self._args_address)
            if status:
                self.library.fail(status, "run")
        del held, held_scales, held_parameters

    def _set_parameters(self, arrays: ArrayLibrary, parameters: dict[str, Any] | None) -> list[View]:
        names = tuple(parameters or ())
        views = [arrays.view(tensor, f"parameter {name!r}") for name, tensor in (parameters or {}).items()]
        addresses = [
            self._parameter_slots.setdefault(name, Slot()).fill(view, f"parameter {name!r}") for name, view in zip(names, views)]
        if names != self._parameter_names:
            self._parameters = (_abi.Parameter * len(names))(
                *(_abi.Parameter(name.encode(), address) for name, address in zip(names, addresses)))
            self._args.parameters = ctypes.addressof(self._parameters) if names else 0
            self._args.parameter_count = len(names)
            self._parameter_names = names
        return views

    def _set_form(self, form: int) -> None:
        """Which of the slots this run uses."""
        args = self._args
        args.kv = self._kv.address if form & _COMBINED else 0
        args.k = 0 if form & _COMBINED else self._k.address
        args.v = 0 if form & _COMBINED else self._v.address
        args.lse = self._lse.address if form & _LSE else 0
        self._form = form

    def _fill_views(self, arrays: ArrayLibrary, q: Any, kv: Any, out: Any, lse: Any) -> tuple[int, list[View]]:
        held = []

        def fill(slot: Slot, array: Any, name: str, written: bool = False) -> None:
            view = array if type(array) is View else arrays.view(array, name)
            if written and view.readonly:
                raise InvalidArgumentError(f"{name} is read-only memory, but is written")
            held.append(view)
            slot.fill(view, name)

        fill(self._q, q, "q")
        fill(self._out, out, "out", True)
        form = _COMBINED
        if type(kv) is not View and isinstance(kv, (tuple, list)):
            fill(self._k, kv[0], "k")
            fill(self._v, kv[1], "v")
            form = _PAIR
        else:
            fill(self._kv, kv, "paged_kv_cache")
        if lse is not None:
            fill(self._lse, lse, "lse", True)
            form |= _LSE
        return form, held

    def _set_scales(self, arrays: ArrayLibrary, scales: tuple) -> list[View]:
        """q, k, v, o and softmax scale: numbers, tensors of one number, or (q, k and v) tensors of one number a head."""
        args = self._args
        held: list[View] = []
        q_scale, k_scale, v_scale, o_scale, sm_scale = scales
        # Until all are set none is remembered: one that is refused leaves those before it changed.
        self._scales = ()
        for name, value in (("q", q_scale), ("k", k_scale), ("v", v_scale)):
            scalar, per_head = 0.0, 0
            if value is not None:
                if isinstance(value, (int, float)):
                    scalar = scale_value(arrays, value, f"{name}_scale")
                else:
                    view = arrays.view(value, f"{name}_scale")
                    if view.dtype == "float32" and len(view.shape) == 1 and view.shape[0] > 1:
                        held.append(view)
                        per_head = self._slots[f"{name}_scales"].fill(view, f"{name}_scale")
                    else:
                        scalar = scale_value(arrays, value, f"{name}_scale")
            setattr(args, f"{name}_scale", scalar)
            setattr(args, f"{name}_scales", per_head)
        args.o_scale = scale_value(arrays, o_scale, "o_scale")
        args.sm_scale = default_scale(sm_scale)
        # A tensor's number may change in place: it is not remembered, so that the next run reads it again.
        self._scales = scales if all(value is None or isinstance(value, (int, float)) for value in scales) else ()
        return held


def scale_value(arrays: ArrayLibrary, value: Any, name: str) -> float:
    """A factor as the C library takes it, where 0 means none; so a factor of 0 is refused."""
    if value is None:
        return 0.0
    if not isinstance(value, (int, float)):
        numbers = arrays.to_list(value)
        if len(numbers) != 1:
            raise UnsupportedError(f"{name} has {len(numbers)} numbers; one number, or for q, k and v one a head, work")
        value = numbers[0]
    if value == 0:
        raise InvalidArgumentError(f"{name} is 0, but must be another number")
    return float(value)


def index_list(arrays: ArrayLibrary, indices: Any, name: str) -> list[int]:
    """The numbers of an index array on the host; waits for a GPU."""
    if not isinstance(indices, (list, tuple)):
        dtype = arrays.view(indices, name).dtype
        if dtype not in ("int32", "int64"):
            raise InvalidArgumentError(f"{name} is {dtype}, but must be int32")
    return arrays.to_list(indices)


def indptr_last(arrays: ArrayLibrary, indptr: Any, name: str = "qo_indptr") -> int:
    """The total that a running sum ends with; waits for a GPU."""
    values = index_list(arrays, indptr[-1:] if getattr(indptr, "shape", ()) else indptr, name)
    if not values:
        raise InvalidArgumentError(f"{name} is empty, but must have one more entry than there are requests")
    return int(values[-1])


def default_scale(sm_scale: float | None) -> float:
    """A scale of scores as the C library takes it, whose 0 means 1 / sqrt(head_dim), or what was planned."""
    if sm_scale is None:
        return 0.0
    scale = float(sm_scale)
    if scale == 0:
        raise InvalidArgumentError("sm_scale is 0, but must be another number, or None for 1 / sqrt(head_dim)")
    return scale


def output_dtype(q_dtype: str) -> str:
    """The type of outputs where none is asked for: the queries', or bfloat16 where those have 8 bits."""
    return "bfloat16" if q_dtype == "float8_e4m3fn" else q_dtype
