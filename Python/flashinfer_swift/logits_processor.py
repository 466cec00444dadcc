"""Chains of logits processors: temperature, softmax, the filters and the draw, checked when made and fused where they can be.

``LogitsPipe([Temperature(), Softmax(), TopP(), Sample()])(logits, temperature=0.7, top_p=0.9)``. Values are LOGITS, then PROBS, then
INDICES; parameters are given by keyword at the call. Fused: a temperature into the softmax, and the filters right before a draw into
the draw, which is one kernel.
"""

from __future__ import annotations

import enum
from typing import Any, Callable, NamedTuple, Sequence

from . import sampling
from .errors import InvalidArgumentError, unsupported


class TensorType(enum.Enum):
    """What a tensor's numbers are."""

    LOGITS = enum.auto()
    PROBS = enum.auto()
    INDICES = enum.auto()

    def __str__(self) -> str:
        return self.name


class TaggedTensor(NamedTuple):
    """A tensor and what its numbers are."""

    data: Any
    type: TensorType

    @staticmethod
    def logits(data: Any) -> "TaggedTensor":
        return TaggedTensor(data, TensorType.LOGITS)

    @staticmethod
    def probs(data: Any) -> "TaggedTensor":
        return TaggedTensor(data, TensorType.PROBS)

    @staticmethod
    def indices(data: Any) -> "TaggedTensor":
        return TaggedTensor(data, TensorType.INDICES)


class LegalizationError(InvalidArgumentError):
    """A processor is applied to what it cannot take."""


class CompileError(InvalidArgumentError):
    """A chain breaks a rule."""


class LogitsProcessor:
    """One step. Parameters given here are defaults of those given at the call."""

    #: What it takes, and what it gives for each.
    takes: dict[TensorType, TensorType] = {}

    def __init__(self, **params: Any) -> None:
        self.params = params

    def given(self, name: str, call: dict[str, Any]) -> Any:
        value = call.get(name, self.params.get(name))
        if value is None:
            raise InvalidArgumentError(f"{type(self).__name__} needs {name}; give it at the call")
        return value

    def run(self, data: Any, kind: TensorType, call: dict[str, Any]) -> Any:
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value}' for name, value in self.params.items())})"


def _positive(name: str, value: Any, most: float = float("inf")) -> Any:
    if isinstance(value, (int, float)) and not 0 < value <= most:
        raise InvalidArgumentError(f"{name} is {value}, but must be above 0{'' if most == float('inf') else f' and at most {most}'}")
    return value


class Temperature(LogitsProcessor):
    """Divides logits by ``temperature``: a number or a tensor ``[rows]``."""

    takes = {TensorType.LOGITS: TensorType.LOGITS}

    def run(self, data: Any, kind: TensorType, call: dict[str, Any]) -> Any:
        temperature = _positive("temperature", self.given("temperature", call))
        return data / (temperature if isinstance(temperature, (int, float)) else temperature.reshape(-1, 1))


class Softmax(LogitsProcessor):
    """Probabilities of logits."""

    takes = {TensorType.LOGITS: TensorType.PROBS}

    def __init__(self, enable_pdl: bool | None = None, **params: Any) -> None:
        super().__init__(**params)

    def run(self, data: Any, kind: TensorType, call: dict[str, Any]) -> Any:
        return sampling.softmax(data)


class TopK(LogitsProcessor):
    """Keeps the ``top_k`` greatest. With ``joint_topk_topp``, a TopP after it is a share of the whole distribution."""

    takes = {TensorType.LOGITS: TensorType.LOGITS, TensorType.PROBS: TensorType.PROBS}

    def __init__(self, joint_topk_topp: bool = False, **params: Any) -> None:
        super().__init__(**params)
        self.joint = joint_topk_topp

    def run(self, data: Any, kind: TensorType, call: dict[str, Any]) -> Any:
        top_k = _positive("top_k", self.given("top_k", call))
        return (sampling.top_k_mask_logits if kind is TensorType.LOGITS else sampling.top_k_renorm_probs)(data, top_k)


class TopP(LogitsProcessor):
    """Keeps the most likely that make up ``top_p``."""

    takes = {TensorType.PROBS: TensorType.PROBS}

    def run(self, data: Any, kind: TensorType, call: dict[str, Any]) -> Any:
        return sampling.top_p_renorm_probs(data, _positive("top_p", self.given("top_p", call), 1))


class MinP(LogitsProcessor):
    """Keeps those at least ``min_p`` times as likely as the most likely."""

    takes = {TensorType.PROBS: TensorType.PROBS}

    def run(self, data: Any, kind: TensorType, call: dict[str, Any]) -> Any:
        return sampling.min_p_renorm_probs(data, _positive("min_p", self.given("min_p", call), 1))


class Sample(LogitsProcessor):
    """A token for each row."""

    takes = {TensorType.LOGITS: TensorType.INDICES, TensorType.PROBS: TensorType.INDICES}

    def __init__(self, deterministic: bool = True, **params: Any) -> None:
        super().__init__(**params)

    def run(self, data: Any, kind: TensorType, call: dict[str, Any]) -> Any:
        return _draw(data, kind, call)


def _draw(data: Any, kind: TensorType, call: dict[str, Any], **filters: Any) -> Any:
    return sampling._sample(
        data, kind is TensorType.PROBS, call.get("indices"), call.get("generator"), False, call.get("seed"), call.get("offset"),
        False, **filters)


class LogitsPipe:
    """A chain of processors.

    :param compile: fuse steps; without it each runs alone.
    :param input_type: needed where the first processor takes logits and probabilities (TopK, Sample).
    :param custom_fusion_rules, custom_validity_checks: rules that are not here; checks are called with the processors.
    """

    def __init__(
        self, processors: Sequence[LogitsProcessor], compile: bool = True, input_type: TensorType | None = None,
        custom_fusion_rules: Any = None, custom_validity_checks: Sequence[Callable] | None = None,
    ) -> None:
        if not processors:
            raise InvalidArgumentError("Pipeline cannot be empty")
        if custom_fusion_rules:
            raise unsupported("LogitsPipe", "there are no custom fusion rules", "the built-in ones")
        self.processors = list(processors)
        first = self.processors[0]
        if input_type is None:
            if len(first.takes) != 1:
                raise LegalizationError(
                    f"{type(first).__name__} takes LOGITS and PROBS; give input_type to say which the first input is")
            input_type = next(iter(first.takes))
        self._initial_type = input_type
        kind = input_type
        for index, processor in enumerate(self.processors):
            if kind is TensorType.INDICES:
                raise CompileError(
                    f"No operator may follow one that outputs Indices: processor {index} is {type(processor).__name__}")
            if kind not in processor.takes:
                raise LegalizationError(
                    f"Pipeline creation failed: {type(processor).__name__} (processor {index}) cannot be applied to {kind}")
            kind = processor.takes[kind]
        for check in custom_validity_checks or ():
            check(self.processors)
        self._fuse = compile

    @property
    def initial_type(self) -> TensorType:
        return self._initial_type

    def __repr__(self) -> str:
        return f"LogitsPipe([{' -> '.join(type(processor).__name__ for processor in self.processors)}])"

    def compile(self, custom_fusion_rules: Any = None, custom_validity_checks: Any = None) -> None:
        """Fuses steps from the next call on."""
        self._fuse = True

    def __call__(self, x: Any, **call: Any) -> Any:
        data, kind = x if isinstance(x, TaggedTensor) else (x, self._initial_type)
        index = 0
        while index < len(self.processors):
            length = self._fused_length(index, kind) if self._fuse else 1
            steps = self.processors[index:index + length]
            try:
                data = self._run(steps, data, kind, call)
            except ValueError as error:
                raise InvalidArgumentError(f"Error executing operator {index} ({type(steps[0]).__name__}): {error}") from error
            for step in steps:
                kind = step.takes[kind]
            index += length
        return data

    def _fused_length(self, index: int, kind: TensorType) -> int:
        """Steps from `index` on that are one call."""
        names = tuple(type(step) for step in self.processors[index:index + 3])
        if names[:2] == (Temperature, Softmax):
            return 2
        if kind is TensorType.PROBS:
            if names[:2] in ((TopK, Sample), (TopP, Sample), (MinP, Sample)):
                return 2
            if names == (TopK, TopP, Sample) and getattr(self.processors[index], "joint", False):
                return 3
        return 1

    def _run(self, steps: list[LogitsProcessor], data: Any, kind: TensorType, call: dict[str, Any]) -> Any:
        if len(steps) == 1:
            return steps[0].run(data, kind, call)
        if isinstance(steps[0], Temperature):
            return sampling.softmax(data, _positive("temperature", steps[0].given("temperature", call)))
        filters: dict[str, Any] = {}
        for step, name, most in ((TopK, "top_k", float("inf")), (TopP, "top_p", 1), (MinP, "min_p", 1)):
            for found in steps:
                if isinstance(found, step):
                    filters[name] = _positive(name, found.given(name, call), most)
        if len(steps) == 3:
            filters["order"] = "joint"
        return _draw(data, kind, call, **filters)


__all__ = [
    "CompileError", "LegalizationError", "LogitsPipe", "LogitsProcessor", "MinP", "Sample", "Softmax", "TaggedTensor",
    "Temperature", "TensorType", "TopK", "TopP",
]
