"""A paged KV cache with the interface of transformers' caches."""

from __future__ import annotations

import copy
from typing import Any, Iterator

import torch
from transformers.cache_utils import Cache, CacheLayerMixin

from ..errors import InvalidArgumentError
from ..page import SlotAppend
from ._lazy import Lazy
from ._mask import BatchMask
from ._pages import PageTable, Step


class PagedStates(Lazy):
    """The keys or the values of one layer, ``[requests, kv_heads, slots, head_dim]``, that lie in pages.

    Our attention reads the pages; anything else gets ``dense()``, with zeros in slots that hold no token.
    """

    __slots__ = ("layer", "_is_keys")

    def __init__(self, layer: "PagedLayer", is_keys: bool) -> None:
        self.layer = layer
        self._is_keys = is_keys

    @property
    def shape(self) -> torch.Size:
        layer = self.layer
        width = layer.head_dim if self._is_keys else layer.head_dim_vo
        return torch.Size((layer.owner.table.requests or layer.requests, layer.kv_heads, layer.seen, width))

    @property
    def ndim(self) -> int:
        return 4

    @property
    def dtype(self) -> torch.dtype:
        return self.layer.state_dtype

    @property
    def device(self) -> torch.device:
        return self.layer.device

    def dense(self) -> torch.Tensor:
        return self.layer.gather(self._is_keys)


class PagedLayer(CacheLayerMixin):
    """One layer's pages: ``[pages, page_size, kv_heads, head_dim]`` for keys, and for values."""

    is_compileable = False
    is_sliding = False
    is_croppable = True
    supports_early_init = False

    def __init__(self, owner: "PagedKVCache") -> None:
        # Not the base class's: keys and values are no attributes here.
        self.owner = owner
        self.is_initialized = False
        self.seen = 0
        self.requests = self.kv_heads = self.head_dim = self.head_dim_vo = 0
        self.pages: tuple[torch.Tensor, torch.Tensor] | None = None
        self._states = (PagedStates(self, True), PagedStates(self, False))
        self._pending: tuple[torch.Tensor, torch.Tensor] | None = None
        self._step: Step | None = None
        #: What this layer computes, and what that was told from; see `_attention`.
        self.kind: Any = None

    @property
    def keys(self) -> torch.Tensor | None:
        """All keys as one tensor, gathered."""
        return self.gather(True) if self.is_initialized else None

    @property
    def values(self) -> torch.Tensor | None:
        """All values as one tensor, gathered."""
        return self.gather(False) if self.is_initialized else None

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        self.requests, self.kv_heads, _, self.head_dim = key_states.shape
        self.head_dim_vo = value_states.shape[-1]
        self.state_dtype, self.device = key_states.dtype, key_states.device
        self.dtype = self.owner.dtype or key_states.dtype
        self.pages = None
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Any, Any]:
        """Takes the keys and values of a pass, ``[requests, kv_heads, q_length, head_dim]``.

        They are stored when the attention that follows says which of them are padding.
        """
        if self._pending is not None:
            self.store(None)
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        self._pending = (key_states, value_states)
        self.seen += key_states.shape[-2]
        return self._states

    def store(self, mask: BatchMask | None) -> Step:
        """Appends what ``update`` took, once; returns the pass that it belongs to."""
        if self._pending is None:
            if self._step is None:
                raise InvalidArgumentError("this layer of the cache is empty: attention came before update")
            return self._step
        keys, values = self._pending
        step = self.owner.step(self.seen - keys.shape[-2], keys.shape[-2], keys.shape[0], mask)
        self._reserve()
        self.owner.appender(keys).run(_rows(keys), _rows(values), step.on(keys.device, "slots"), *self.pages)  # type: ignore[misc]
        self._pending, self._step = None, step
        return step

    def _reserve(self) -> None:
        """As many pages as the table has."""
        count, size = self.owner.table.capacity, self.owner.table.page_size
        held = self.pages[0].shape[0] if self.pages is not None else 0
        if held >= count:
            return
        shape = (count, size, self.kv_heads)
        grown = (
            torch.empty((*shape, self.head_dim), dtype=self.dtype, device=self.device),
            torch.empty((*shape, self.head_dim_vo), dtype=self.dtype, device=self.device))
        if self.pages is not None:
            for new, old in zip(grown, self.pages):
                new[:held] = old
        self.pages = grown

    def copy_pages(self, copies: list[tuple[int, int]]) -> None:
        """Copies whole pages, each (from, to)."""
        if self.pages is None or not copies:
            return
        self._reserve()
        source, target = torch.tensor(copies, device=self.device).t()
        for pages in self.pages:
            pages[target] = pages[source]

    def copy_to(self, owner: "PagedKVCache") -> "PagedLayer":
        """The same layer for another cache, which has a copy of the table."""
        other = PagedLayer(owner)
        for name, value in self.__dict__.items():
            if name not in ("owner", "pages", "_states", "_step", "kind"):
                setattr(other, name, value)
        other.pages = None if self.pages is None else tuple(pages.clone() for pages in self.pages)  # type: ignore[assignment]
        return other

    def gather(self, is_keys: bool) -> torch.Tensor:
        """``[requests, kv_heads, slots, head_dim]`` in the model's type: the slow way out of the pages."""
        if self._pending is not None:
            self.store(None)
        table, width = self.owner.table, self.head_dim if is_keys else self.head_dim_vo
        found = torch.zeros((table.requests, self.kv_heads, self.seen, width), dtype=self.state_dtype, device=self.device)
        if self.pages is None:
            return found
        scale = (self.owner.k_scale if is_keys else self.owner.v_scale) or 1.0
        for request, (pages, length) in enumerate(zip(table.pages, table.lengths)):
            rows = self.pages[0 if is_keys else 1][torch.tensor(pages, dtype=torch.int64, device=self.device)]
            rows = rows.reshape(-1, self.kv_heads, width)[:length].to(self.state_dtype).transpose(0, 1) * scale
            if table.stored is None:
                found[request] = rows
            else:
                found[request][:, table.stored[request].to(self.device)] = rows
        return found

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Keys that the next pass sees, padding included, and the first one's slot."""
        return self.seen + query_length, 0

    def get_seq_length(self) -> int:
        """Slots so far, padding included."""
        return self.seen

    def get_max_length(self) -> int:
        """-1: pages are added as tokens come."""
        return -1

    def reset(self) -> None:
        """Forgets all tokens; the pages stay allocated. Use the cache's own ``reset``, which empties its table too."""
        self.seen = 0
        self._pending = self._step = None

    def reorder_cache(self, beam_idx: torch.Tensor) -> None:
        raise InvalidArgumentError("layers share one page table: call the cache's reorder_cache")

    def offload(self) -> None:
        raise InvalidArgumentError("a paged cache stays on its device: there is no offloading")

    prefetch = offload


class PagedKVCache(Cache):
    """A cache for ``model.generate(…, past_key_values=PagedKVCache())``: tokens of all requests in pages of one size, one page table
    for all layers, no padding stored, no copy when it grows by a token, and beams that share pages.

    All layers keep all tokens; windows are the attention's. A cache holds one batch; ``reset()`` makes room for another.

    :param config: accepted, as other caches take one; the layers say what they are when they store their first tokens.
    :param page_size: tokens a page.
    :param max_tokens: tokens (of all requests together) that there is room for from the start; more pages are added as needed, which
        copies the cache to a place half as large again.
    :param dtype: what keys and values are stored as: None for the model's type, or float8 e4m3fn, float8 e5m2, int8 or another
        floating type.
    :param k_scale, v_scale: stored numbers are ``value / scale``; for 8-bit types.
    """

    def __init__(
        self, config: Any = None, *, page_size: int = 16, max_tokens: int = 0, dtype: torch.dtype | None = None,
        k_scale: float | None = None, v_scale: float | None = None,
    ) -> None:
        #: The layers, as `layers` has them too.
        self.paged: list[PagedLayer] = []
        super().__init__(layers=self.paged)  # type: ignore[arg-type]
        self.table = PageTable(page_size, -(-max_tokens // max(page_size, 1)))
        self.dtype, self.k_scale, self.v_scale = dtype, k_scale, v_scale
        #: Planned attention of this cache, by what it computes; see `_attention`.
        self.plans: dict[Any, Any] = {}
        self.kinds: dict[Any, Any] = {}
        #: Captured passes, and the plans of the one that runs or is captured; see `_graphs`.
        self.passes: dict[Any, Any] = {}
        self.graph_plans: Any = None
        self._step: Step | None = None
        self._appenders: dict[torch.device, SlotAppend] = {}

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Any, Any]:
        """Takes a layer's keys and values of a pass; returns stand-ins for all of the layer's, which our attention reads in place."""
        while len(self.paged) <= layer_idx:
            self.paged.append(PagedLayer(self))
        return self.paged[layer_idx].update(key_states, value_states)

    def step(self, offset: int, q_length: int, requests: int, mask: BatchMask | None) -> Step:
        """The pass over slots ``offset ... offset + q_length``: made by the first layer that comes with it."""
        table, step = self.table, self._step
        if step is not None and (step.offset, step.q_length) == (offset, q_length) and table.seen == offset + q_length:
            return step
        if table.seen != offset:
            raise InvalidArgumentError(
                f"a layer of this cache has seen {offset} tokens and gets {q_length} more, but the cache has seen {table.seen}: its "
                "layers must go through the same passes")
        table.begin(requests)
        holds = mask.tokens(offset, table.lengths) if mask is not None else None
        self._step = table.advance(q_length, holds)
        return self._step

    def appender(self, keys: torch.Tensor) -> SlotAppend:
        """What stores tokens on the device of these keys."""
        found = self._appenders.get(keys.device)
        if found is None:
            found = self._appenders[keys.device] = SlotAppend(keys, "NHD", self.k_scale, self.v_scale)
        return found

    def note_pass(self, step: Step) -> None:
        """Says that all layers went through a pass, in a graph."""
        for layer in self.paged:
            layer.seen, layer._step = step.offset + step.q_length, step

    def forget_pass(self, offset: int) -> None:
        """Takes back a pass that began at this slot and did not come to its end; it may be run again."""
        for layer in self.paged:
            layer.seen, layer._pending, layer._step = offset, None, None
        self.table.crop(self.table.seen - offset)
        self._step = None

    @property
    def tokens(self) -> int:
        """Tokens stored, of all requests."""
        return sum(self.table.lengths)

    @property
    def batch_size(self) -> int:
        """Requests held; -1 for none."""
        return self.table.requests or -1

    def reset(self) -> None:
        """Forgets all tokens; pages stay allocated for the next batch."""
        self.table.clear()
        self._step = None
        for layer in self.paged:
            layer.reset()

    def crop(self, tokens_to_remove: int) -> None:
        """Forgets the last ``-tokens_to_remove`` slots of every request; a positive number is the length to keep, as it once was."""
        count = int(tokens_to_remove)  # assisted decoding gives a tensor
        removed = -count if count <= 0 else max(self.table.seen - count, 0)
        if removed:
            self._flush()
            self._changed(self.table.crop(removed))

    def reorder_cache(self, beam_idx: torch.Tensor) -> None:
        """Makes the batch of its requests in another order, with repeats: tables change, only unfinished pages are copied."""
        self.batch_select_indices(beam_idx)

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keeps the requests of these indices, in this order; a bool vector keeps where it is True."""
        self._flush()
        if indices.dtype == torch.bool:
            indices = indices.nonzero().reshape(-1)
        self._changed(self.table.select(indices.tolist()))

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Each request ``repeats`` times, one after another."""
        self._flush()
        self._changed(self.table.select([request for request in range(self.table.requests) for _ in range(repeats)]))

    def activate_past_recording(self) -> None:
        """Does nothing: all tokens are kept, so ``crop`` can always go back."""

    def _flush(self) -> None:
        for layer in self.paged:
            if layer._pending is not None:
                layer.store(None)

    def _changed(self, copies: list[tuple[int, int]]) -> None:
        self._step = None
        for layer in self.paged:
            layer.copy_pages(copies)
            layer._step = None
            layer.seen = min(layer.seen, self.table.seen)

    def __deepcopy__(self, memo: dict[int, Any]) -> "PagedKVCache":
        """Another cache with the same tokens in pages of its own: so a prompt's cache can serve many continuations."""
        self._flush()
        other = PagedKVCache(page_size=self.table.page_size, dtype=self.dtype, k_scale=self.k_scale, v_scale=self.v_scale)
        memo[id(self)] = other
        other.table = copy.deepcopy(self.table, memo)
        other.paged += [layer.copy_to(other) for layer in self.paged]
        return other

    def __iter__(self) -> Iterator[Any]:
        for layer in self.paged:
            yield layer.keys, layer.values, None


def _rows(states: torch.Tensor) -> torch.Tensor:
    """``[requests, heads, q_length, dim]`` as ``[requests · q_length, heads, dim]``; a view where one request or one token allows it."""
    if states.shape[2] == 1:
        return states[:, :, 0]
    if states.shape[0] == 1:
        return states[0].transpose(0, 1)
    return states.transpose(1, 2).reshape(-1, states.shape[1], states.shape[3])
