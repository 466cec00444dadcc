"""The attention function that models call, over pages or over dense keys and values."""

from __future__ import annotations

import weakref
from typing import Any, NamedTuple

import torch

from ..attention import BatchAttentionWithAttentionSinkWrapper
from ..decode import BatchDecodeWithPagedKVCacheWrapper
from ..errors import InvalidArgumentError, UnsupportedError, unsupported
from ..prefill import BatchPrefillWithPagedKVCacheWrapper
from ._cache import PagedKVCache, PagedStates, _rows
from ._mask import CAUSAL, CUSTOM, FULL, BatchMask, elements
from ._pages import Step

_CALL = "attention of transformers"


class Kind(NamedTuple):
    """What a layer computes; layers of one kind share a plan."""

    heads: int
    kv_heads: int
    head_dim: int
    head_dim_vo: int
    page_size: int
    kv_layout: str
    q_dtype: torch.dtype
    kv_dtype: torch.dtype
    device: torch.device
    scale: float | None
    soft_cap: float
    has_sinks: bool
    #: FULL, CAUSAL or CUSTOM, and the window of CAUSAL (-1: none).
    pattern: str
    window_left: int
    #: One row for every request, which decode takes.
    is_decode: bool


class Planned:
    """A wrapper, and the pass that it is planned for."""

    __slots__ = ("wrapper", "step")

    def __init__(self, wrapper: Any) -> None:
        self.wrapper = wrapper
        self.step: Any = None


def make_wrapper(kind: Kind, bounds: tuple[int, int] | None = None) -> Any:
    """The package's wrapper for a kind of layer; with ``bounds`` (requests, pages) for capture in CUDA graphs."""
    place = torch.empty(1, dtype=torch.uint8, device=kind.device)
    options: dict[str, Any] = {}
    is_prefill = kind.has_sinks or not kind.is_decode
    if bounds is not None:
        # Wrappers read the buffers' lengths only.
        indptr, pages, last = (torch.empty(count, dtype=torch.int32) for count in (bounds[0] + 1, bounds[1], bounds[0]))
        suffix = "buf" if is_prefill else "buffer"
        options = {
            "use_cuda_graph": True, f"paged_kv_indptr_{suffix}": indptr, f"paged_kv_indices_{suffix}": pages,
            f"paged_kv_last_page_len_{suffix}": last, **({"qo_indptr_buf": indptr} if is_prefill else {})}
    if kind.has_sinks:
        return BatchAttentionWithAttentionSinkWrapper(place, kind.kv_layout, **options)
    if kind.is_decode:
        return BatchDecodeWithPagedKVCacheWrapper(place, kind.kv_layout, **options)
    return BatchPrefillWithPagedKVCacheWrapper(place, kind.kv_layout, **options)


class NotCapturable(Exception):
    """A pass that a CUDA graph cannot hold."""


class GraphPlans:
    """Plans of one captured pass: made within bounds, so that what was captured uses each next plan."""

    def __init__(self, requests: int, pages: int) -> None:
        self.bounds = (requests, pages)
        self.plans: dict[Kind, Planned] = {}

    def plan(self, step: Step) -> None:
        """Plans the next pass for all kinds of layers that there are."""
        if len(step.kv_indices) > self.bounds[1]:
            raise NotCapturable(f"the requests' tables have {len(step.kv_indices)} pages, {self.bounds[1]} were captured")
        for kind, planned in self.plans.items():
            planned.step = None
            plan(planned.wrapper, kind, step, None)
            planned.step = step

    def of(self, kind: Kind, step: Step) -> Planned:
        """The plan of a kind of layer, made where it is new."""
        if not kind.is_decode:
            raise NotCapturable(f"masks of the pattern {kind.pattern!r} change with every pass")
        planned = self.plans.get(kind)
        if planned is None:
            planned = self.plans[kind] = Planned(make_wrapper(kind, self.bounds))
            plan(planned.wrapper, kind, step, None)
            planned.step = step
        return planned


def plan(wrapper: Any, kind: Kind, step: Any, custom_mask: torch.Tensor | None) -> None:
    """Plans a pass: once for all layers of a kind."""
    options = dict(
        sm_scale=kind.scale, logits_soft_cap=kind.soft_cap or None, window_left=kind.window_left, q_data_type=kind.q_dtype,
        kv_data_type=kind.kv_dtype)
    if isinstance(wrapper, BatchDecodeWithPagedKVCacheWrapper):
        wrapper.plan(
            step.kv_indptr, step.kv_indices, step.last_page_len, kind.heads, kind.kv_heads, kind.head_dim, kind.page_size,
            **options)
    else:
        wrapper.plan(
            step.qo_indptr, step.kv_indptr, step.kv_indices, step.last_page_len, kind.heads, kind.kv_heads, kind.head_dim,
            kind.page_size, head_dim_vo=kind.head_dim_vo, causal=kind.pattern == CAUSAL, custom_mask=custom_mask, **options)


def attention_forward(
    module: torch.nn.Module, query: torch.Tensor, key: Any, value: Any, attention_mask: Any, dropout: float = 0.0,
    scaling: float | None = None, is_causal: bool | None = None, sliding_window: int | None = None,
    softcap: float | None = None, s_aux: torch.Tensor | None = None, **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attention of one layer, as transformers' `AttentionInterface` has it.

    :param query: ``[requests, heads, q_length, head_dim]``.
    :param key, value: ``[requests, kv_heads, slots, head_dim]``: tensors, or what ``PagedKVCache.update`` returned.
    :param attention_mask: what ``batch_mask`` made, a 4-dimensional mask of the caller's, or None: causal where ``is_causal`` says so.
    :param sliding_window: read where there is no mask, which knows it otherwise.
    :param s_aux: attention sinks ``[heads]``.
    :returns: ``[requests, q_length, heads, head_dim_vo]``, and None in the place of weights.
    """
    _refuse(module, dropout, kwargs)
    if is_causal is None:
        is_causal = getattr(module, "is_causal", True)
    pattern, window_left = _pattern(attention_mask, bool(is_causal), sliding_window)
    sinks = _sinks(module, s_aux)
    common = (scaling, softcap or 0.0, sinks is not None)
    if not torch.is_grad_enabled():
        return _attention(query, key, value, attention_mask, pattern, window_left, common, sinks), None
    with torch.no_grad():
        out = _attention(query, key, value, attention_mask, pattern, window_left, common, sinks)
    return _NoBackward.apply(out, query) if query.requires_grad else out, None


def _attention(
    query: torch.Tensor, key: Any, value: Any, mask: Any, pattern: str, window_left: int, common: tuple, sinks: Any
) -> torch.Tensor:
    if isinstance(key, PagedStates):
        out = _paged(query, key, mask, pattern, window_left, common, sinks)
    else:
        out = _dense(query, key, value, mask, pattern, window_left, common, sinks)
    return out.view(query.shape[0], query.shape[2], query.shape[1], -1)


class _NoBackward(torch.autograd.Function):
    """An output whose gradients are asked for in vain, with a reason."""

    @staticmethod
    def forward(ctx: Any, out: torch.Tensor, query: torch.Tensor) -> torch.Tensor:
        return out.view_as(out)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        raise unsupported(_CALL, "there is no backward pass", 'attn_implementation="sdpa" for training')


def _refuse(module: torch.nn.Module, dropout: float, given: dict[str, Any]) -> None:
    if dropout:
        raise unsupported(_CALL, f"dropout is {dropout}, which is for training", "model.eval(), or attention_dropout=0")
    if given.get("output_attentions"):
        raise unsupported(_CALL, "output_attentions is True, but weights are never stored", 'attn_implementation="eager"')
    if given.get("position_bias") is not None:
        raise unsupported(_CALL, "a position_bias is given", 'attn_implementation="sdpa"')
    if given.get("cache") is not None:
        raise unsupported(_CALL, "continuous batching brings a cache of its own", "generate with a PagedKVCache")


def _pattern(mask: Any, is_causal: bool, sliding_window: int | None) -> tuple[str, int]:
    if isinstance(mask, BatchMask):
        return mask.pattern, mask.window_left
    if mask is not None:
        return CUSTOM, -1
    if not is_causal:
        return FULL, -1
    return CAUSAL, -1 if sliding_window is None else sliding_window - 1


#: Sinks as float32, by the parameter that they come from.
_sinks_of: "weakref.WeakKeyDictionary[torch.nn.Module, tuple[Any, int, torch.Tensor]]" = weakref.WeakKeyDictionary()


def _sinks(module: torch.nn.Module, s_aux: torch.Tensor | None) -> torch.Tensor | None:
    if s_aux is None:
        return None
    known = _sinks_of.get(module)
    if known is None or known[0]() is not s_aux or known[1] != s_aux._version or known[2].device != s_aux.device:
        known = (weakref.ref(s_aux), s_aux._version, s_aux.detach().reshape(-1).float().contiguous())
        _sinks_of[module] = known
    return known[2]


# ------------------------------------------------------------------------------------------------------------------- pages


def _paged(
    query: torch.Tensor, states: PagedStates, mask: Any, pattern: str, window_left: int, common: tuple, sinks: Any
) -> torch.Tensor:
    layer = states.layer
    cache = layer.owner
    step = layer.store(mask if isinstance(mask, BatchMask) else None)
    if query.shape[2] != step.q_length:
        raise InvalidArgumentError(f"query has {query.shape[2]} rows a request, but the cache got {step.q_length} tokens in this pass")
    if window_left >= 0 and cache.table.has_gaps:
        pattern, window_left = CUSTOM, -1  # the mask counts slots, which are not the stored tokens' distances here
    is_decode = step.q_length == 1 and step.rows is None and pattern != CUSTOM
    key = (common, pattern, window_left, is_decode, query.dtype)
    if layer.kind is None or layer.kind[0] != key:
        kind = Kind(
            query.shape[1], layer.kv_heads, query.shape[3], layer.head_dim_vo, cache.table.page_size, "NHD", query.dtype, layer.dtype,
            query.device, *common, FULL if is_decode else pattern, window_left, is_decode)  # type: ignore[call-arg]
        layer.kind = (key, cache.kinds.setdefault(kind, kind))
    kind = layer.kind[1]
    if cache.graph_plans is not None:
        planned = cache.graph_plans.of(kind, step)
    else:
        planned = cache.plans.get(kind)
        if planned is None:
            planned = cache.plans[kind] = Planned(make_wrapper(kind))
    if planned.step is not step or pattern == CUSTOM:
        planned.step = None  # a plan that fails leaves none
        plan(planned.wrapper, kind, step, _stored_part(mask, cache, step, query.device) if pattern == CUSTOM else None)
        planned.step = step
    q = _rows(query)
    if step.rows is not None:
        rows = step.on(query.device, "rows")
        q = q.index_select(0, rows)
    scales = dict(k_scale=cache.k_scale, v_scale=cache.v_scale) if cache.k_scale or cache.v_scale else {}
    if sinks is not None:
        scales["sinks"] = sinks
    out = planned.wrapper.run(q, layer.pages, **scales)
    if step.rows is None:
        return out
    whole = out.new_zeros((query.shape[0] * step.q_length, *out.shape[1:]))
    return whole.index_copy_(0, rows, out)


def _stored_part(mask: Any, cache: PagedKVCache, step: Step, device: torch.device) -> torch.Tensor:
    """A mask's elements for rows and slots that hold tokens, request after request."""
    requests, keys = len(step.counts), step.offset + step.q_length
    whole = _elements(mask, requests, step.q_length, keys, device)
    stored = cache.table.stored
    if stored is None:
        return whole[:, :, :keys].reshape(-1)
    parts = []
    for request in range(requests):
        columns = stored[request, :keys].to(whole.device)
        parts.append(whole[request][columns[step.offset:]][:, :keys][:, columns].reshape(-1))
    return torch.cat(parts)


def _elements(mask: Any, requests: int, q_length: int, keys: int, device: torch.device) -> torch.Tensor:
    """``[requests, q_length, keys or more]`` bool."""
    found = elements(mask.dense() if isinstance(mask, BatchMask) else mask).to(device)
    if found.shape[1] != 1:
        raise UnsupportedError(
            f"attention_mask differs by head (it is of shape {tuple(found.shape)}); one mask for all heads works, or sdpa")
    if found.shape[-2] != q_length or found.shape[-1] < keys:
        raise InvalidArgumentError(
            f"attention_mask is of shape {tuple(found.shape)}, but must be (batch, 1, {q_length}, {keys})")
    return found[:, 0].expand(requests, -1, -1)


# ------------------------------------------------------------------------------------------------------------------- dense


class DenseStep:
    """A pass over dense keys: a page for each request, which is all its keys."""

    __slots__ = ("qo_indptr", "kv_indptr", "kv_indices", "last_page_len", "key")

    def __init__(self, requests: int, q_length: int, keys: int, key: Any) -> None:
        count = torch.arange(requests + 1, dtype=torch.int32)
        self.kv_indptr, self.kv_indices, self.qo_indptr = count, count[:-1].contiguous(), count * q_length
        self.last_page_len = torch.full((requests,), keys, dtype=torch.int32)
        self.key = key


#: Wrappers for dense keys, by kind; page sizes change from plan to plan and are no part of the kind.
_dense_plans: dict[Kind, Planned] = {}


def _dense(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: Any, pattern: str, window_left: int, common: tuple,
    sinks: Any,
) -> torch.Tensor:
    requests, heads, q_length, head_dim = query.shape
    slots, keys = key.shape[2], key.shape[2]
    if key.dtype != query.dtype:
        key, value = key.to(query.dtype), value.to(query.dtype)
    if isinstance(mask, BatchMask):
        if mask.pattern == CAUSAL:
            # Slots of a static cache that are not filled yet lie behind the last query.
            keys = min(keys, mask.q_offset + q_length - mask.kv_offset)
        if pattern != CUSTOM and mask.has_padding(keys):
            pattern, window_left = CUSTOM, -1
    elif pattern == CAUSAL and q_length > 1 and slots > q_length:
        keys = q_length  # as sdpa has it: without a mask, more keys than queries are a static cache's
    is_decode = q_length == 1 and pattern != CUSTOM and key.shape[3] == value.shape[3]
    kind = Kind(
        heads, key.shape[1], head_dim, value.shape[3], 0, "HND", query.dtype, key.dtype, query.device, *common,
        FULL if is_decode else pattern, window_left, is_decode)  # type: ignore[call-arg]
    planned = _dense_plans.get(kind)
    if planned is None:
        planned = _dense_plans[kind] = Planned(make_wrapper(kind))
    # A mask object belongs to one pass; without one, equal shapes are equal plans.
    this = (requests, q_length, keys, slots, mask if pattern == CUSTOM else None)
    if planned.step is None or planned.step.key[:4] != this[:4] or planned.step.key[4] is not this[4]:
        planned.step = None
        step = DenseStep(requests, q_length, keys, this)
        custom = _elements(mask, requests, q_length, keys, query.device)[:, :, :keys].reshape(-1) if pattern == CUSTOM else None
        plan(planned.wrapper, kind._replace(page_size=slots), step, custom)
        planned.step = step
    key, value = _unit_stride(key), _unit_stride(value)
    extra = {} if sinks is None else {"sinks": sinks}
    return planned.wrapper.run(_rows(query), (key, value), **extra)


def _unit_stride(states: torch.Tensor) -> torch.Tensor:
    return states if states.stride(-1) == 1 else states.contiguous()
