"""Which page holds which token: the page table that all layers of a cache share, on the host."""

from __future__ import annotations

from typing import Sequence

import torch

from ..errors import InvalidArgumentError


class Step:
    """The tokens of one forward pass: where they go, and what the plans of its layers are told.

    Index tensors are int32 on the host. A *slot* is a place ``(request, position in the batch as the model sees it)``, padding
    included; only slots that hold a token are stored, so a request's tokens lie without gaps in its pages.
    """

    __slots__ = (
        "offset", "q_length", "rows", "counts", "lengths", "slots", "qo_indptr", "kv_indptr", "kv_indices", "last_page_len",
        "_on_device")

    def __init__(
        self, offset: int, q_length: int, rows: torch.Tensor | None, counts: list[int], lengths: list[int], slots: torch.Tensor,
        tables: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    ) -> None:
        #: Slots before this pass, and slots of this pass, of each request.
        self.offset, self.q_length = offset, q_length
        #: Which of the ``requests · q_length`` rows hold tokens, int64; None: all.
        self.rows = rows
        #: Tokens of this pass, and tokens stored after it, of each request.
        self.counts, self.lengths = counts, lengths
        #: ``[2, requests · q_length]``: the page of each row (-1: not stored) and its row there.
        self.slots = slots
        self.kv_indptr, self.kv_indices, self.last_page_len = tables
        self.qo_indptr = _running_sum(counts)
        self._on_device: dict[tuple[str, torch.device], torch.Tensor] = {}

    def on(self, device: torch.device, name: str) -> torch.Tensor:
        """One of the step's tensors on a device, copied once."""
        tensor = getattr(self, name)
        if device.type == "cpu":
            return tensor
        key = (name, device)
        if key not in self._on_device:
            self._on_device[key] = tensor.to(device, non_blocking=True)
        return self._on_device[key]

    def place(self, slots: torch.Tensor) -> None:
        """Says where the slots lie on a device already."""
        if slots.device.type == "cpu":
            self.slots = slots
        else:
            self._on_device["slots", slots.device] = slots


class PageTable:
    """Pages of a batch of requests, counted, so that requests may share them.

    A request's last page is its own where it is not full; full pages may be several requests'.
    """

    def __init__(self, page_size: int, capacity: int = 0) -> None:
        if page_size < 1:
            raise InvalidArgumentError(f"page_size is {page_size}, but must be at least 1")
        self.page_size = page_size
        #: Pages that every layer has, or must get before it stores more.
        self.capacity = 0
        self.pages: list[list[int]] = []
        #: Tokens stored of each request.
        self.lengths: list[int] = []
        #: Slots of each request, padding included.
        self.seen = 0
        #: ``[requests, seen]`` bool: which slots hold tokens; None: all.
        self.stored: torch.Tensor | None = None
        #: Whether a slot without a token follows one with a token, so that distances in slots are not distances in tokens.
        self.has_gaps = False
        self._references: list[int] = []
        self._free: list[int] = []
        self._tables: tuple[torch.Tensor, torch.Tensor] | None = None
        self._grow(capacity)

    @property
    def requests(self) -> int:
        return len(self.lengths)

    # ---------------------------------------------------------------------------------------------------------------- pages

    def _grow(self, capacity: int) -> None:
        added = range(self.capacity, capacity)
        self._references += [0] * len(added)
        # The lowest page is taken first.
        self._free = [*reversed(added), *self._free]
        self.capacity = max(self.capacity, capacity)

    def _take(self) -> int:
        if not self._free:
            # Half as much again: as the layers copy what they have, growing costs a constant per token.
            self._grow(max(self.capacity + self.capacity // 2, self.capacity + len(self.lengths), 16))
        page = self._free.pop()
        self._references[page] = 1
        return page

    def _drop(self, page: int) -> None:
        self._references[page] -= 1
        if self._references[page] == 0:
            self._free.append(page)

    # --------------------------------------------------------------------------------------------------------------- tokens

    def begin(self, requests: int) -> None:
        """Says how many requests there are, before their first tokens."""
        if self.lengths and len(self.lengths) != requests:
            raise InvalidArgumentError(
                f"the batch has {requests} requests, but this cache holds {len(self.lengths)}; reset() it, or use another cache")
        if not self.lengths:
            self.pages = [[] for _ in range(requests)]
            self.lengths = [0] * requests

    def advance(self, q_length: int, holds: torch.Tensor | None) -> Step:
        """Makes room for the tokens of a pass.

        :param holds: ``[requests, q_length]`` bool on the host: which rows hold a token; None: all.
        """
        if holds is not None and bool(holds.all()):
            holds = None
        requests, size, offset = len(self.lengths), self.page_size, self.seen
        counts = [q_length] * requests if holds is None else holds.sum(1).tolist()
        self._note_slots(q_length, holds)
        changed = False
        for request, count in enumerate(counts):
            self.lengths[request] += count
            pages = self.pages[request]
            for _ in range(-(-self.lengths[request] // size) - len(pages)):
                pages.append(self._take())
                changed = True
        self.seen += q_length
        if changed:
            self._tables = None
        rows = None if holds is None else holds.reshape(-1).nonzero().reshape(-1)
        return Step(offset, q_length, rows, counts, list(self.lengths), self._slots(q_length, counts, rows), self.tables())

    def _note_slots(self, q_length: int, holds: torch.Tensor | None) -> None:
        if holds is None and self.stored is None:
            return
        requests = len(self.lengths)
        if self.stored is None:
            self.stored = torch.ones((requests, self.seen), dtype=torch.bool)
        if holds is None:
            holds = torch.ones((requests, q_length), dtype=torch.bool)
        self.stored = torch.cat([self.stored, holds], 1)
        self.has_gaps = bool((self.stored[:, :-1] & ~self.stored[:, 1:]).any())

    def _slots(self, q_length: int, counts: list[int], rows: torch.Tensor | None) -> torch.Tensor:
        size = self.page_size
        if q_length == 1:
            last = [(pages[-1], (length - 1) % size) if count else (-1, 0)
                    for pages, length, count in zip(self.pages, self.lengths, counts)]
            return torch.tensor(last, dtype=torch.int32).reshape(-1, 2).t().contiguous()
        parts = []
        for pages, length, count in zip(self.pages, self.lengths, counts):
            positions = torch.arange(length - count, length, dtype=torch.int32)
            table = torch.tensor(pages, dtype=torch.int32)
            parts.append(torch.stack([table[positions // size], positions % size]))
        found = torch.cat(parts, 1) if parts else torch.empty((2, 0), dtype=torch.int32)
        if rows is None:
            return found
        slots = torch.zeros((2, len(counts) * q_length), dtype=torch.int32)
        slots[0] = -1
        slots[:, rows] = found
        return slots

    def tables(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The page table as plans take it: indptr, page ids, and keys in each request's last page; int32 on the host."""
        if self._tables is None:
            self._tables = (
                _running_sum([len(pages) for pages in self.pages]),
                torch.tensor([page for pages in self.pages for page in pages], dtype=torch.int32))
        size = self.page_size
        last = torch.tensor([(length - 1) % size + 1 if length else 0 for length in self.lengths], dtype=torch.int32)
        return (*self._tables, last)

    # ------------------------------------------------------------------------------------------------------------- requests

    def crop(self, slots: int) -> list[tuple[int, int]]:
        """Forgets the last slots of every request; returns pages to copy, as ``select`` does."""
        slots = min(slots, self.seen)
        self.seen -= slots
        removed = [slots] * len(self.lengths)
        if self.stored is not None:
            removed = self.stored[:, self.seen:].sum(1).tolist()
            self.stored = self.stored[:, :self.seen]
            self.has_gaps = bool((self.stored[:, :-1] & ~self.stored[:, 1:]).any())
        for request, count in enumerate(removed):
            self.lengths[request] -= count
            kept = -(-self.lengths[request] // self.page_size)
            for page in self.pages[request][kept:]:
                self._drop(page)
            del self.pages[request][kept:]
        self._tables = None
        return self._own_last_pages()

    def select(self, requests: Sequence[int]) -> list[tuple[int, int]]:
        """Makes the batch of copies of these requests, in this order: full pages are shared.

        :returns: pages that the layers must copy, each as (from, to): last pages that are not full and have several owners now.
        """
        for request in requests:
            if not 0 <= request < len(self.lengths):
                raise InvalidArgumentError(f"request {request} is selected, but the cache holds {len(self.lengths)} requests")
        pages = [list(self.pages[request]) for request in requests]
        lengths = [self.lengths[request] for request in requests]
        for page in (page for owned in pages for page in owned):
            self._references[page] += 1
        for page in (page for owned in self.pages for page in owned):
            self._drop(page)
        self.pages, self.lengths = pages, lengths
        if self.stored is not None:
            self.stored = self.stored[torch.tensor(list(requests), dtype=torch.int64)]
        self._tables = None
        return self._own_last_pages()

    def _own_last_pages(self) -> list[tuple[int, int]]:
        """Gives requests whose last page is not full, and shared, a page of their own."""
        copies = []
        for pages, length in zip(self.pages, self.lengths):
            if length % self.page_size and self._references[pages[-1]] > 1:
                self._references[pages[-1]] -= 1
                copies.append((pages[-1], self._take()))
                pages[-1] = copies[-1][1]
        return copies

    def clear(self) -> None:
        """Forgets all requests; pages stay."""
        for page in (page for pages in self.pages for page in pages):
            self._drop(page)
        self.pages, self.lengths, self.seen = [], [], 0
        self.stored, self.has_gaps, self._tables = None, False, None

    def check_invariants(self) -> None:
        """Raises where counts, pages and lengths do not agree; for tests."""
        owners: dict[int, int] = {}
        for pages, length in zip(self.pages, self.lengths):
            assert len(pages) == -(-length // self.page_size), (pages, length)
            for page in pages:
                owners[page] = owners.get(page, 0) + 1
            if length % self.page_size:
                assert self._references[pages[-1]] == 1, f"the unfinished page {pages[-1]} is shared"
        assert all(self._references[page] == owners.get(page, 0) for page in range(self.capacity)), "references"
        assert sorted(self._free) == [page for page in range(self.capacity) if page not in owners], "free pages"
        if self.stored is not None:
            assert self.stored.sum(1).tolist() == self.lengths, "stored slots"
        else:
            assert all(length == self.seen for length in self.lengths), "lengths"


def _running_sum(counts: Sequence[int]) -> torch.Tensor:
    sums, total = [0], 0
    for count in counts:
        total += count
        sums.append(total)
    return torch.tensor(sums, dtype=torch.int32)
