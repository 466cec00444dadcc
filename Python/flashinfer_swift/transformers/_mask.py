"""What a forward pass may see: the masks that transformers asks for, kept as what they mean instead of as elements."""

from __future__ import annotations

import types
from typing import Any, Callable

import torch
from transformers import masking_utils

from ..errors import InvalidArgumentError
from ._lazy import Lazy

CAUSAL, FULL, CUSTOM = "causal", "full", "custom"


class BatchMask(Lazy):
    """The mask of one forward pass, for all layers of one kind: a pattern, and which slots are padding.

    Slots are positions in the batch as the model sees it, with padding. Queries are slots ``q_offset ... q_offset + q_length``, keys
    ``kv_offset ... kv_offset + kv_length``.
    """

    __slots__ = (
        "batch", "q_length", "kv_length", "_q_offset", "kv_offset", "pattern", "window_left", "padding", "device", "_make",
        "_elements", "_no_padding")

    def __init__(
        self, batch: int, q_length: int, kv_length: int, q_offset: Any, kv_offset: int, pattern: str, window_left: int,
        padding: torch.Tensor | None, device: Any, make: Callable[[], torch.Tensor],
    ) -> None:
        self.batch, self.q_length, self.kv_length, self.kv_offset = batch, q_length, kv_length, kv_offset
        self._q_offset = q_offset
        #: CAUSAL with a window (-1: none), FULL, or CUSTOM: anything else, by its elements.
        self.pattern, self.window_left = pattern, window_left
        #: ``[batch, slots]`` bool, True where there is a token; None: everywhere.
        self.padding = padding
        self.device = torch.device(device)
        self._make = make
        self._elements: torch.Tensor | None = None
        self._no_padding: bool | None = None

    @property
    def shape(self) -> torch.Size:
        return torch.Size((self.batch, 1, self.q_length, self.kv_length))

    @property
    def ndim(self) -> int:
        return 4

    @property
    def dtype(self) -> torch.dtype:
        return torch.bool

    @property
    def q_offset(self) -> int:
        """The first query's slot; waits for a GPU where the cache is static."""
        if isinstance(self._q_offset, torch.Tensor):
            self._q_offset = int(self._q_offset)
        return self._q_offset

    def to(self, *_: Any, **__: Any) -> "BatchMask":
        """Itself: models over several devices move what they hand to a layer, and a mask is read on the host."""
        return self

    def dense(self) -> torch.Tensor:
        """``[batch, 1, q_length, kv_length]`` bool, True = seen: what SDPA would be given."""
        if self._elements is None:
            self._elements = self._make()
        return self._elements

    def has_padding(self, keys: int) -> bool:
        """Whether any of the first ``keys`` keys is padding; waits for a GPU, once."""
        if self.padding is None:
            return False
        if self._no_padding is None:
            self._no_padding = bool(self.padding[:, self.kv_offset:self.kv_offset + keys].all())
        return not self._no_padding

    def tokens(self, seen: int, lengths: list[int]) -> torch.Tensor | None:
        """Which rows of this pass hold tokens, ``[batch, q_length]`` bool on the host; None: all. Waits for a GPU.

        :param seen, lengths: slots and tokens of each request before this pass.
        """
        if self.padding is None:
            return None
        padding = self.padding
        if padding.shape[1] < seen + self.q_length:
            raise InvalidArgumentError(
                f"attention_mask has {padding.shape[1]} columns, but must have {seen + self.q_length}: the {seen} in the cache and "
                f"the {self.q_length} of this pass")
        counts = padding[:, :seen + self.q_length].sum(1).tolist()
        added = [count - length for count, length in zip(counts, lengths)]
        if all(count == self.q_length for count in added):
            return None
        holds = padding[:, seen:seen + self.q_length].cpu()
        for request, (count, found) in enumerate(zip(holds.sum(1).tolist(), added)):
            if count != found:
                raise InvalidArgumentError(
                    f"attention_mask shows {counts[request] - count} tokens of request {request} before this pass, but "
                    f"{lengths[request]} are in the cache: a paged cache stores what the mask of a token's own pass shows")
        return holds


def batch_mask(
    batch_size: int, q_length: int, kv_length: int, q_offset: Any = 0, kv_offset: int = 0,
    mask_function: Callable[..., Any] = masking_utils.causal_mask_function, attention_mask: torch.Tensor | None = None,
    local_size: int | None = None, use_vmap: bool = False, device: Any = "cpu", **_: Any,
) -> BatchMask:
    """The function that transformers calls for a mask (`AttentionMaskInterface`)."""
    if isinstance(attention_mask, BatchMask):
        return attention_mask  # `generate` makes the masks of static caches before the model asks for them
    pattern, window_left = CUSTOM, -1
    if not use_vmap:
        if _same(mask_function, masking_utils.causal_mask_function):
            pattern = CAUSAL
        elif _same(mask_function, masking_utils.bidirectional_mask_function):
            pattern = FULL
        elif local_size is not None and _same(mask_function, masking_utils.sliding_window_causal_mask_function(local_size)):
            pattern, window_left = CAUSAL, local_size - 1

    def make() -> Any:
        return masking_utils.sdpa_mask(
            batch_size=batch_size, q_length=q_length, kv_length=kv_length, q_offset=q_offset, kv_offset=kv_offset,
            mask_function=mask_function, attention_mask=attention_mask, local_size=local_size, allow_is_causal_skip=False,
            allow_is_bidirectional_skip=False, use_vmap=use_vmap, device=device)

    return BatchMask(
        batch_size, q_length, kv_length, q_offset, kv_offset, pattern, window_left, attention_mask, device, make)


def _same(first: Any, second: Any) -> bool:
    """Whether two functions are the same code over equal captured values: how a pattern is told from the closures that make it."""
    if first is second:
        return True
    if isinstance(first, types.FunctionType) and isinstance(second, types.FunctionType):
        if first.__code__ is not second.__code__:
            return False
        cells = [[cell.cell_contents for cell in function.__closure__ or ()] for function in (first, second)]
        return len(cells[0]) == len(cells[1]) and all(map(_same, *cells))
    if isinstance(first, (tuple, list)) and type(first) is type(second):
        return len(first) == len(second) and all(map(_same, first, second))
    return isinstance(first, int) and isinstance(second, int) and first == second


def elements(mask: Any) -> torch.Tensor:
    """A 4-dimensional mask given by the user as bool, True = seen; additive ones must be 0 or shut."""
    if mask.dtype == torch.bool:
        return mask
    if not mask.is_floating_point():
        return mask != 0
    seen = mask == 0
    limit = torch.finfo(mask.dtype).min / 4
    if not bool((seen | (mask < limit)).all()):
        raise InvalidArgumentError(
            "attention_mask adds numbers to the logits that are neither 0 nor the least of their type; this attention takes masks "
            "that show or hide: use sdpa for others")
    return seen
