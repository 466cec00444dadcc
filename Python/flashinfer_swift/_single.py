"""Attention of one request: planned and run in one call, with plans that are kept for the next call like it."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Any

from . import _abi
from ._arrays import CUDA, ArrayLibrary, View, contiguous_strides, element_count, library_of
from ._planned import Options, PlannedAttention, default_scale, layout_code, output_dtype, position_code
from .errors import InvalidArgumentError
from .variants import Variant, refuse_source

#: Plans kept for each thread; a model has a few kinds of attention.
_KEPT = 8


class _Plans(threading.local):
    """A thread's plans. They are not shared: a plan is changed between two runs."""

    def __init__(self) -> None:
        self.kept: OrderedDict[tuple, tuple[PlannedAttention, tuple]] = OrderedDict()


_plans = _Plans()
#: Plans that a CUDA graph was captured with; they are never planned again. Graphs captured from calls that are alike share one, so
#: they must not be replayed at the same time.
_captured: dict[tuple, PlannedAttention] = {}


def run_single(
    name: str, q: Any, k: Any, v: Any, *, decode: bool, kv_layout: str = "NHD", pos_encoding_mode: str = "NONE",
    causal: bool = False, custom_mask: Any = None, packed_custom_mask: Any = None, window_left: int = -1,
    logits_soft_cap: float | None = None, sm_scale: float | None = None, rope_scale: float | None = None,
    rope_theta: float | None = None, return_lse: bool = False, q_scale: Any = None, k_scale: Any = None, v_scale: Any = None,
    o_dtype: Any = None, variant: Variant | None = None, sinks: Any = None, parameters: dict[str, Any] | None = None,
) -> tuple[Any, Any]:
    """The output and the LSE (None where not wanted). A decode's query has no row dimension."""
    layout_code(kv_layout)
    position_code(pos_encoding_mode)
    arrays = library_of(q, "q")
    q_view, k_view, v_view = arrays.view(q, "q"), arrays.view(k, "k"), arrays.view(v, "v")
    rank = 2 if decode else 3
    if len(q_view.shape) != rank:
        raise InvalidArgumentError(
            f"q is of shape {q_view.shape}, but must be {'[num_qo_heads, head_dim]' if decode else '[qo_len, num_qo_heads, head_dim]'}")
    for argument, view in (("k", k_view), ("v", v_view)):
        if len(view.shape) != 3:
            raise InvalidArgumentError(f"{argument} is of shape {view.shape}, but must have three dimensions ({kv_layout})")
    heads_axis, length_axis = (1, 0) if kv_layout == "NHD" else (0, 1)
    o_name = output_dtype(q_view.dtype) if o_dtype is None else arrays.dtype_name(o_dtype)
    qo_len = 1 if decode else q_view.shape[0]
    kv_len = k_view.shape[length_axis]
    mask_mode = _abi.MASK_CAUSAL if causal else _abi.MASK_NONE
    mask = None
    if packed_custom_mask is not None or custom_mask is not None:
        mask_mode = _abi.MASK_CUSTOM_PACKED if packed_custom_mask is not None else _abi.MASK_CUSTOM
        mask = mask_vector(arrays, packed_custom_mask if packed_custom_mask is not None else custom_mask)
    options = Options(
        q_view.shape[-2], k_view.shape[heads_axis], q_view.shape[-1], v_view.shape[-1], q_view.dtype, k_view.dtype, o_name,
        kv_layout=kv_layout, mask_mode=mask_mode, window_left=window_left, logits_soft_cap=logits_soft_cap or 0.0,
        sm_scale=default_scale(sm_scale), pos_encoding_mode=pos_encoding_mode,
        rope_scale=1.0 if rope_scale is None else rope_scale, rope_theta=1e4 if rope_theta is None else rope_theta)
    if variant is not None:
        options = variant.options(name, options)
    stream = arrays.stream(q)
    plan = _planned(options, q_view, qo_len, kv_len, stream, arrays)
    shape = (*q_view.shape[:-1], v_view.shape[-1])
    out = arrays.empty(shape, o_name, q)
    lse = arrays.empty(q_view.shape[:-1], "float32", q) if return_lse else None
    plan.set_mask(mask[0] if mask is not None else None)
    try:
        plan.run(
            arrays, _with_row(q_view) if decode else q, (k, v), _with_row(arrays.view(out)) if decode else out,
            _with_row(arrays.view(lse)) if decode and lse is not None else lse, sinks, q_scale, k_scale, v_scale,
            stream=stream, parameters=parameters)
    finally:
        plan.set_mask(None)
    return out, lse


def run_single_variant(
    name: str, variant: Any, q: Any, k: Any, v: Any, args: tuple, parameters: dict[str, Any] | None, sinks: Any, *, decode: bool,
    kv_layout: str, window_left: int, return_lse: bool, mask_mode: int = 0,
) -> tuple[Any, Any]:
    """The same by a variant and its tensors."""
    if not isinstance(variant, Variant):
        refuse_source(name, variant if variant is not None else "None")
    sinks, parameters = variant.tensors(name, args, sinks, parameters)
    return run_single(
        name, q, k, v, decode=decode, kv_layout=kv_layout, causal=mask_mode == _abi.MASK_CAUSAL, window_left=window_left,
        return_lse=return_lse, variant=variant, sinks=sinks, parameters=parameters)


def _with_row(view: View) -> View:
    return view.with_shape((1, *view.shape), (element_count(view), *view.strides))


def mask_vector(arrays: ArrayLibrary, mask: Any) -> tuple[View, Any]:
    """A mask as a vector, and what keeps it alive."""
    view = arrays.view(mask, "custom_mask")
    if view.dtype not in ("bool", "uint8"):
        raise InvalidArgumentError(f"the custom mask is of {view.dtype}, but must be of bool or uint8")
    if len(view.shape) != 1 or view.strides != contiguous_strides(view.shape):
        mask = arrays.contiguous_vector(mask)
        view = arrays.view(mask)
    return view, mask


def _planned(
    options: Options, q: View, qo_len: int, kv_len: int, stream: int, arrays: ArrayLibrary
) -> PlannedAttention:
    key = (options, q.device, q.index)
    lengths = (qo_len, kv_len, stream)
    found = _plans.kept.get(key)
    capturing = q.device == CUDA and arrays.name == "torch" and arrays.module.cuda.is_current_stream_capturing()
    if capturing:
        kept = _captured.get((key, qo_len, kv_len))
        if kept is not None:
            return kept
        if found is None or found[1][:2] != lengths[:2]:
            raise InvalidArgumentError(
                "attention of one request is captured in a CUDA graph before it ran with these sizes; run it once before")
        # The graph replays this plan: it must not be planned for anything else.
        del _plans.kept[key]
        _captured[(key, qo_len, kv_len)] = found[0]
        return found[0]
    if found is None:
        plan = PlannedAttention()
        plan.configure(options, q.device, q.index)
        if len(_plans.kept) >= _KEPT:
            _plans.kept.popitem(last=False)
    else:
        plan = found[0]
        _plans.kept.move_to_end(key)
    if found is None or found[1] != lengths:
        _plans.kept.pop(key, None)  # a plan that fails is not kept
        plan.plan("fi_attention_plan_single", stream, qo_len, kv_len, queries=qo_len)
        _plans.kept[key] = (plan, lengths)
    return plan
