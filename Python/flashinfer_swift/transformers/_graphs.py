"""Decoding by CUDA graphs: a model's pass over one token a request, captured once and replayed while lengths and pages change."""

from __future__ import annotations

import warnings
from typing import Any

import torch

from ..errors import InvalidArgumentError
from ._attention import GraphPlans, NotCapturable
from ._cache import PagedKVCache
from ._mask import batch_mask
from ._pages import Step

#: Arguments of a pass that do not change what a captured one does.
_KNOWN = {
    "input_ids", "attention_mask", "position_ids", "past_key_values", "use_cache", "return_dict", "logits_to_keep", "inputs_embeds",
    "output_attentions", "output_hidden_states", "cache_position", "labels"}


class _Pass:
    """A pass in buffers that stay where they are."""

    def __init__(self, owner: Any, requests: int, capacity: int, ids: torch.Tensor, positions: torch.Tensor) -> None:
        self.owner = owner  # passes are found by its id
        self.ids, self.positions = torch.empty_like(ids), torch.empty_like(positions)
        self.slots = torch.zeros((2, requests), dtype=torch.int32, device=ids.device)
        self.plans = GraphPlans(requests, capacity)
        self.is_warm = False
        self.graph: Any = None
        self.result: Any = None

    def load(self, ids: torch.Tensor, positions: torch.Tensor, step: Step) -> None:
        self.ids.copy_(ids)
        self.positions.copy_(positions)
        self.slots.copy_(step.slots)
        step.place(self.slots)
        self.plans.plan(step)


class GraphDecoding:
    """What ``capture_decoding`` returns: the model's ``forward`` is its own until ``remove``, or until the end of a ``with``.

    ``with`` may be entered again, and finds what was captured before, which holds for the weights where they lay then.
    """

    def __init__(self, model: torch.nn.Module, on_cpu: bool = False) -> None:
        self.model = model
        self._forward = model.forward
        #: For tests: the same steps without a graph, where there is no GPU.
        self._on_cpu = on_cpu
        self._refused = False
        #: Passes that were replayed, for those who want to know.
        self.replays = 0
        self._attach()

    def _attach(self) -> None:
        self.model.forward = self._call  # type: ignore[method-assign]

    def remove(self) -> None:
        """The model's own ``forward`` again."""
        self.model.__dict__.pop("forward", None)

    def __enter__(self) -> "GraphDecoding":
        self._attach()
        return self

    def __exit__(self, *_: Any) -> None:
        self.remove()

    # --------------------------------------------------------------------------------------------------------------- passes

    def _call(self, *args: Any, **given: Any) -> Any:
        cache = given.get("past_key_values")
        if args or self._refused or not isinstance(cache, PagedKVCache) or not self._fits(cache, given):
            return self._forward(*args, **given)
        ids, table = given["input_ids"], cache.table
        mask = given.get("attention_mask")
        if mask is not None:
            shown = batch_mask(
                ids.shape[0], 1, table.seen + 1, table.seen, attention_mask=mask.to(torch.bool), device=ids.device)
            if shown.tokens(table.seen, table.lengths) is not None:
                return self._forward(**given)
        positions = given.get("position_ids")
        if positions is None:
            positions = torch.full_like(ids, table.seen)
        offset = table.seen
        step = cache.step(offset, 1, ids.shape[0], None)
        # Pages that were added move all of them: what was captured before reads the old ones.
        key = (id(self), ids.shape, positions.shape, given.get("logits_to_keep", 0), table.capacity)
        known = cache.passes.get(key)
        if known is None:
            cache.passes = {other: value for other, value in cache.passes.items() if other[-1] == table.capacity}
            known = cache.passes[key] = _Pass(self, ids.shape[0], table.capacity, ids, positions)
        try:
            known.load(ids, positions, step)
            return self._run(cache, known, step, given.get("logits_to_keep", 0))
        except (NotCapturable, RuntimeError) as error:
            if isinstance(error, MemoryError):
                raise
            warnings.warn(f"decoding goes on without CUDA graphs: {error}", RuntimeWarning, stacklevel=2)
            self._refused = True
            cache.passes.clear()
            cache.forget_pass(offset)
            return self._forward(**given)

    def _fits(self, cache: PagedKVCache, given: dict[str, Any]) -> bool:
        ids, mask, table = given.get("input_ids"), given.get("attention_mask"), cache.table
        return (
            isinstance(ids, torch.Tensor) and ids.ndim == 2 and ids.shape[1] == 1 and not torch.is_grad_enabled()
            and (ids.is_cuda or self._on_cpu) and (mask is None or isinstance(mask, torch.Tensor) and mask.ndim == 2)
            and table.seen > 0 and table.requests == ids.shape[0] and not table.has_gaps
            and all(layer.is_initialized and layer.device == ids.device and layer.seen == table.seen for layer in cache.paged)
            and isinstance(given.get("logits_to_keep", 0), int) and given.get("use_cache", True) is not False
            and all(name in _KNOWN or value is None for name, value in given.items())
            and not any(given.get(name) for name in ("output_attentions", "output_hidden_states"))
            and given.get("inputs_embeds") is None and given.get("labels") is None and given.get("return_dict") is not False)

    def _run(self, cache: PagedKVCache, known: _Pass, step: Step, logits_to_keep: int) -> Any:
        def forward() -> Any:
            return self._forward(
                input_ids=known.ids, position_ids=known.positions, past_key_values=cache, use_cache=True, return_dict=True,
                logits_to_keep=logits_to_keep)

        if known.graph is not None:
            known.graph.replay()
            cache.note_pass(step)
            self.replays += 1
        else:
            cache.graph_plans = known.plans
            try:
                if not known.is_warm or self._on_cpu:
                    # Kernels are loaded, and plans made within the bounds of those to come.
                    known.is_warm = True
                    return forward()
                graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(graph):
                    known.result = forward()
                graph.replay()
                known.graph = graph
                self.replays += 1
            finally:
                cache.graph_plans = None
        return type(known.result)(logits=known.result.logits.clone(), past_key_values=cache)


def capture_decoding(model: torch.nn.Module) -> GraphDecoding:
    """Makes a causal language model decode by CUDA graphs with a ``PagedKVCache``: most of a small model's time is spent in launching.

        with capture_decoding(model):
            model.generate(**inputs, past_key_values=PagedKVCache(max_tokens=16384))

    The first step of a batch size runs as ever, the second is captured, the rest replay it. Passes that a graph cannot hold (prompts,
    steps with padding, hidden states asked for) run as ever. When the cache adds pages, the next steps are captured anew, so reserve
    with ``max_tokens``. A model whose pass reads the GPU on the host (experts chosen there) goes on without graphs, with a warning.
    """
    if not hasattr(model, "generate"):
        raise InvalidArgumentError(f"model is a {type(model).__name__}, but must be a model of transformers that generates")
    if "forward" in model.__dict__:
        raise InvalidArgumentError("the model's forward is replaced already; remove() that first")
    return GraphDecoding(model)
