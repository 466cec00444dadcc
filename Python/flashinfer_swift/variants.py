"""Attention variants by tracing Python functions: FlexAttention's `score_mod` and `mask_mod`, run by the C library.

    def score_mod(score, b, h, q_idx, kv_idx):
        return score + slopes[h] * (kv_idx - q_idx)

    variant = trace(score_mod=score_mod, mask_mod=lambda b, h, q_idx, kv_idx: kv_idx <= q_idx)
    wrapper = BatchPrefillWithPagedKVCacheWrapper(workspace, jit_args=variant)
    wrapper.plan(…)
    out = wrapper.run(q, cache, slopes_tensor)

The functions are called once, with terms in the place of numbers, so their ifs and loops must not depend on them: `where` chooses.
"""

from __future__ import annotations

import json
import math
from typing import Any, Callable, Union

from . import _abi
from .errors import InvalidArgumentError, unsupported

_Number = Union[int, float, bool, "Term"]


class Term:
    """A value that is computed for each pair of a query and a key."""

    __slots__ = ("kind", "form", "parameters")

    def __init__(self, kind: str, form: Any, parameters: dict[str, list]) -> None:
        self.kind = kind  # "float", "int" or "bool"
        self.form = form  # its JSON form
        self.parameters = parameters

    def __bool__(self) -> bool:
        raise TypeError("a traced value has no truth while it is traced; use & | ~ for conditions, and where() to choose")

    def __hash__(self) -> int:
        return id(self)

    __add__ = lambda a, b: _arithmetic("add", a, b)
    __radd__ = lambda a, b: _arithmetic("add", b, a)
    __sub__ = lambda a, b: _arithmetic("sub", a, b)
    __rsub__ = lambda a, b: _arithmetic("sub", b, a)
    __mul__ = lambda a, b: _arithmetic("mul", a, b)
    __rmul__ = lambda a, b: _arithmetic("mul", b, a)
    __truediv__ = lambda a, b: _term("div", "float", _floating(a), _floating(b))
    __rtruediv__ = lambda a, b: _term("div", "float", _floating(b), _floating(a))
    __floordiv__ = lambda a, b: _floor_division(a, b)
    __rfloordiv__ = lambda a, b: _floor_division(b, a)
    __mod__ = lambda a, b: _modulo(a, b)
    __rmod__ = lambda a, b: _modulo(b, a)
    __neg__ = lambda a: _term("neg", a.kind, a)
    __abs__ = lambda a: _term("abs", a.kind, a)
    __lt__ = lambda a, b: _comparison("lt", a, b)
    __le__ = lambda a, b: _comparison("le", a, b)
    __gt__ = lambda a, b: _comparison("lt", b, a)
    __ge__ = lambda a, b: _comparison("le", b, a)
    __eq__ = lambda a, b: _comparison("eq", a, b)  # type: ignore[assignment]
    __ne__ = lambda a, b: _term("not", "bool", _comparison("eq", a, b))  # type: ignore[assignment]
    __and__ = lambda a, b: _bits("and", "bitand", a, b)
    __rand__ = __and__
    __or__ = lambda a, b: _bits("or", "bitor", a, b)
    __ror__ = __or__
    __xor__ = lambda a, b: _term("bitxor", "int", _whole(a), _whole(b))
    __invert__ = lambda a: _term("not", "bool", _truth(a))
    __lshift__ = lambda a, b: _term("shl", "int", _whole(a), _whole(b))
    __rshift__ = lambda a, b: _term("shr", "int", _whole(a), _whole(b))


def _lift(value: _Number) -> Term:
    if isinstance(value, Term):
        return value
    if isinstance(value, bool):
        return Term("bool", value, {})
    if isinstance(value, int):
        if not -(2**31) <= value < 2**31:
            raise OverflowError(f"{value} does not fit in 32 bits")
        return Term("int", value, {})
    if isinstance(value, float):
        if math.isnan(value):
            raise ValueError("a constant is NaN; -inf hides a key")
        return Term("float", ("inf" if value > 0 else "-inf") if math.isinf(value) else value, {})
    raise TypeError(f"{value!r} is no number and no traced value; a tensor is a parameter: Parameter(name, type, extent)")


def _term(name: str, kind: str, *operands: Term) -> Term:
    parameters: dict[str, list] = {}
    for operand in operands:
        _merge(parameters, operand.parameters)
    return Term(kind, [name, *(operand.form for operand in operands)], parameters)


def _merge(into: dict[str, list], others: dict[str, list]) -> None:
    for name, declaration in others.items():
        if into.setdefault(name, declaration) != declaration:
            raise ValueError(f"parameter {name!r} is declared as {into[name]} and as {declaration}")


def _floating(value: _Number) -> Term:
    term = _lift(value)
    if term.kind == "float":
        return term
    if isinstance(term.form, (bool, int)):
        return Term("float", float(term.form), {})
    if term.kind == "bool":
        return _term("select", "float", term, _lift(1.0), _lift(0.0))
    return _term("float", "float", term)


def _whole(value: _Number) -> Term:
    term = _lift(value)
    if term.kind == "int":
        return term
    if term.kind == "bool":
        return _term("select", "int", term, _lift(1), _lift(0))
    raise TypeError("a whole number is needed here, not a floating-point one; floor(x) and then to_int(x) make one")


def _truth(value: _Number) -> Term:
    term = _lift(value)
    if term.kind != "bool":
        raise TypeError(f"a condition is needed here, not a {term.kind}")
    return term


def _common(a: _Number, b: _Number) -> tuple[Term, Term]:
    a, b = _lift(a), _lift(b)
    if a.kind == b.kind != "bool":
        return a, b
    return (_floating(a), _floating(b)) if "float" in (a.kind, b.kind) else (_whole(a), _whole(b))


def _arithmetic(name: str, a: _Number, b: _Number) -> Term:
    a, b = _common(a, b)
    return _term(name, a.kind, a, b)


def _comparison(name: str, a: _Number, b: _Number) -> Term:
    return _term(name, "bool", *_common(a, b))


def _bits(of_truths: str, of_ints: str, a: _Number, b: _Number) -> Term:
    a, b = _lift(a), _lift(b)
    if a.kind == b.kind == "bool":
        return _term(of_truths, "bool", a, b)
    return _term(of_ints, "int", _whole(a), _whole(b))


def _modulo(a: _Number, b: _Number) -> Term:
    """Python's: with the sign of the divisor."""
    a, b = _whole(a), _whole(b)
    rest = _term("rem", "int", a, b)
    differs = _term("and", "bool", _comparison("lt", _term("bitxor", "int", rest, b), 0), rest != 0)
    return where(differs, rest + b, rest)


def _floor_division(a: _Number, b: _Number) -> Term:
    """Python's: towards minus infinity."""
    a, b = _common(a, b)
    if a.kind == "float":
        return _term("floor", "float", _term("div", "float", a, b))
    return _term("div", "int", a - _modulo(a, b), b)


def where(condition: _Number, x: _Number, y: _Number) -> Term:
    """x where the condition holds, y elsewhere."""
    x, y = _lift(x), _lift(y)
    if x.kind != y.kind or x.kind == "bool":
        x, y = _common(x, y)
    return _term("select", x.kind, _truth(condition), x, y)


def minimum(x: _Number, y: _Number) -> Term:
    return _arithmetic("min", x, y)


def maximum(x: _Number, y: _Number) -> Term:
    return _arithmetic("max", x, y)


def clamp(x: _Number, low: _Number, high: _Number) -> Term:
    return minimum(maximum(x, low), high)


def _function(name: str) -> Callable[[_Number], Term]:
    def apply(x: _Number) -> Term:
        return _term(name, "float", _floating(x))

    apply.__name__ = name
    return apply


exp, exp2, log, log2, tanh, sigmoid, sqrt, floor, sin, cos = (
    _function(name) for name in ("exp", "exp2", "log", "log2", "tanh", "sigmoid", "sqrt", "floor", "sin", "cos"))


def to_int(x: _Number) -> Term:
    """Towards zero."""
    term = _lift(x)
    return _term("int", "int", term) if term.kind == "float" else _whole(term)


_INDICES = {"scalar": 0, "perHead": 1, "perRequest": 1, "perPosition": 1, "table": 1, "perHeadTable": 2}


class Parameter:
    """A tensor that a variant reads: declared here, given where it is run.

    `extent` is "scalar", "perHead", "perRequest", "perPosition", "table" or "perHeadTable"; the last two have a `count`.
    """

    def __init__(self, name: str, type: str = "float", extent: str = "perHead", count: int | None = None) -> None:
        if type not in ("float", "int"):
            raise ValueError(f"type is {type!r}, but must be 'float' or 'int'")
        if extent not in _INDICES:
            raise ValueError(f"extent is {extent!r}, but must be one of {', '.join(_INDICES)}")
        if (count is not None) != (extent in ("table", "perHeadTable")):
            raise ValueError("count is for 'table' and 'perHeadTable'")
        self.name, self.type, self.extent = name, type, extent
        self.declaration = [type, extent] + ([] if count is None else [count])

    def __getitem__(self, index: Any) -> Term:
        indices = [_whole(i) for i in (index if isinstance(index, tuple) else (index,))]
        if len(indices) != _INDICES[self.extent]:
            raise IndexError(f"{self.name} has {_INDICES[self.extent]} indices, not {len(indices)}")
        return self._load(indices)

    @property
    def value(self) -> Term:
        """The only element of a scalar."""
        if self.extent != "scalar":
            raise IndexError(f"{self.name} needs an index")
        return self._load([])

    def _load(self, indices: list[Term]) -> Term:
        parameters: dict[str, list] = {self.name: self.declaration}
        for index in indices:
            _merge(parameters, index.parameters)
        return Term(self.type, ["load", self.name, *(index.form for index in indices)], parameters)


def _site(name: str) -> Term:
    return Term("int", name, {})


#: The run's own mask, a byte or a bit for each query and key: the wrappers' ``custom_mask`` or ``packed_custom_mask``.
mask_bytes = Term("bool", "maskBytes", {})
mask_bits = Term("bool", "maskBits", {})


class Variant:
    """An attention of one's own, for wrappers' ``jit_args``, ``…_with_jit_module`` and, as JSON, for C.

    :param mask: a condition of the site: which keys a query sees.
    :param logits: a term of ``score`` and the site: what becomes of scores.
    :param weights: a term of ``score``, here the logit: weights that are not the softmax's, and not divided by their sum.
    :param query, key: factors of queries and of keys, from their own numbers of the site.
    :param value: a term of ``score``, here the element: what becomes of the values' elements, from what the site knows of a key.
    :param output: a term of ``score``, here the element: what becomes of the output's elements.
    :param sink: None, a logit that joins the softmax's sum, a term that gives each row its own, or "perHead": then runs take ``sinks``.
    :param normalizer: a term of ``score``, here the logarithm of a whole row's sum: the logarithm of what it is divided by instead.
    :param scale: multiplies the scores; None for 1 / sqrt(head_dim).
    """

    def __init__(
        self, name: str = "variant", mask: Term | None = None, logits: Term | None = None, scale: float | None = None, *,
        weights: Term | None = None, query: Term | None = None, key: Term | None = None, value: Term | None = None,
        output: Term | None = None, sink: float | str | Term | None = None, normalizer: Term | None = None,
    ) -> None:
        parameters: dict[str, list] = {}
        members: dict[str, Any] = {"name": name}
        hooks = (
            ("mask", mask), ("query", query), ("key", key), ("value", value), ("logits", logits), ("weights", weights),
            ("normalizer", normalizer), ("output", output))
        for member, term in hooks:
            if term is not None:
                members[member] = term.form
                _merge(parameters, term.parameters)
        if isinstance(sink, Term):
            term = _floating(sink)
            members["sink"] = term.form
            _merge(parameters, term.parameters)
        elif sink is not None:
            if isinstance(sink, str) and sink != "perHead":
                raise ValueError(f"sink is {sink!r}, but must be a number, a term, 'perHead' or None")
            members["sink"] = sink if isinstance(sink, str) else float(sink)
        if scale is not None:
            members["scale"] = float(scale)
        if parameters:
            members["parameters"] = parameters
        self.name = name
        self.json = json.dumps(members, separators=(",", ":"), allow_nan=False)
        #: Names of the tensors that it reads, in the order in which runs take them by position.
        self.parameters: tuple[str, ...] = tuple(name for name in parameters if name != "alibiSlopes")
        self.has_sinks = isinstance(sink, str)
        self.reads_mask = any(f'"{name}"' in self.json for name in ("maskBytes", "maskBits"))

    def options(self, call: str, options: Any) -> Any:
        """The options of a plan with this variant; those that the variant says must not be given beside it."""
        for given, what in (
            (options.mask_mode in (_abi.MASK_CUSTOM, _abi.MASK_CUSTOM_PACKED) and not self.reads_mask, "a custom mask"),
            (options.mask_mode == _abi.MASK_CAUSAL, "causal"), (options.window_left >= 0, "window_left"),
            (options.logits_soft_cap, "logits_soft_cap"), (options.sm_scale, "sm_scale"),
            (options.pos_encoding_mode == "ALIBI", "pos_encoding_mode='ALIBI'"),
        ):
            if given:
                raise InvalidArgumentError(f"{call}: {what} is given beside variant {self.name!r}, which says it all itself")
        return options._replace(variant=self.json, mask_mode=_abi.MASK_NONE, has_sinks=self.has_sinks)

    def tensors(
        self, call: str, args: tuple, sinks: Any, parameters: dict[str, Any] | None
    ) -> tuple[Any, dict[str, Any] | None]:
        """A run's sinks, and its tensors by name: given so, or by position with the sinks last."""
        names = [*self.parameters, *(["sinks"] if self.has_sinks else [])]
        if len(args) > len(names):
            raise InvalidArgumentError(
                f"{call}: {len(args)} tensors follow the variant's own, but variant {self.name!r} takes {', '.join(names) or 'none'}")
        tensors = dict(zip(names, args))
        for name, tensor in (parameters or {}).items():
            if name in tensors:
                raise InvalidArgumentError(f"{call}: parameter {name!r} of variant {self.name!r} is given twice")
            tensors[name] = tensor
        if self.has_sinks:
            sinks = tensors.pop("sinks", sinks)
        if sinks is not None and not self.has_sinks:
            raise InvalidArgumentError(f"{call}: sinks are given, but variant {self.name!r} has none; make it with sink='perHead'")
        return sinks, tensors or None


def refuse_source(call: str, jit_args: Any) -> None:
    """Raises for the peer's variants in CUDA source."""
    if jit_args is not None:
        raise unsupported(call, "jit_args is no Variant, and CUDA source is not compiled", "a variant of flashinfer_swift.variants")


def trace(
    score_mod: Callable[..., _Number] | None = None, mask_mod: Callable[..., _Number] | None = None, *,
    name: str = "variant", scale: float | None = None, weight_mod: Callable[..., _Number] | None = None,
    output_mod: Callable[..., _Number] | None = None, query_scale: Callable[..., _Number] | None = None,
    key_scale: Callable[..., _Number] | None = None, value_mod: Callable[..., _Number] | None = None,
    sink: float | str | Callable[..., _Number] | None = None, lse_mod: Callable[..., _Number] | None = None,
) -> Variant:
    """The variant of FlexAttention-style functions: `score_mod(score, b, h, q_idx, kv_idx)`, `mask_mod(b, h, q_idx, kv_idx)`.

    `b` is the request, `h` the query head, `q_idx` the query's position among the keys (aligned to their end, so that it is the row's
    number where there are as many queries as keys), `kv_idx` the key's. Besides: `weight_mod(logit, b, h, q_idx, kv_idx)` in the place
    of the softmax, `output_mod(value, b, h, q_idx)` for the output's elements, `query_scale(b, h, q_idx)`, and `key_scale(b, kv_h,
    kv_idx)` of the key/value head; `value_mod(value, b, kv_h, kv_idx)` for the values' elements, `sink(b, h, q_idx)` for a logit that joins
    each row's sum, and `lse_mod(lse, b, h, q_idx)`, natural scale, for what a whole row is divided by.
    """
    batch, head, query, key, kv_head = (
        _site(n) for n in ("request", "head", "queryPosition", "keyPosition", "kvHead"))
    score = Term("float", "score", {})

    def floating(function: Callable[..., _Number] | None, *arguments: Term) -> Term | None:
        return None if function is None else _floating(function(*arguments))

    return Variant(
        name, None if mask_mod is None else _truth(mask_mod(batch, head, query, key)),
        floating(score_mod, score, batch, head, query, key), scale,
        weights=floating(weight_mod, score, batch, head, query, key), output=floating(output_mod, score, batch, head, query),
        query=floating(query_scale, batch, head, query), key=floating(key_scale, batch, kv_head, key),
        value=floating(value_mod, score, batch, kv_head, key),
        sink=floating(sink, batch, head, query) if callable(sink) else sink,
        normalizer=floating(lse_mod, score, batch, head, query))
