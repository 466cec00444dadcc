"""Attention variants by tracing Python functions: FlexAttention's `score_mod` and `mask_mod`, run by the C library.

    def score_mod(score, b, h, q_idx, kv_idx):
        return score + slopes[h] * (kv_idx - q_idx)

    variant = trace(score_mod=score_mod, mask_mod=lambda b, h, q_idx, kv_idx: kv_idx <= q_idx)
    variant.json

The functions are called once, with terms in the place of numbers, so their ifs and loops must not depend on them: `where` chooses.
"""

from __future__ import annotations

import json
import math
from typing import Any, Callable, Union

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


class Variant:
    """What the C library is given: the JSON form of a mask and of logits."""

    def __init__(self, name: str, mask: Term | None, logits: Term | None, scale: float | None) -> None:
        parameters: dict[str, list] = {}
        members: dict[str, Any] = {"name": name}
        for key, term in (("mask", mask), ("logits", logits)):
            if term is not None:
                members[key] = term.form
                _merge(parameters, term.parameters)
        if scale is not None:
            members["scale"] = float(scale)
        if parameters:
            members["parameters"] = parameters
        self.name = name
        self.json = json.dumps(members, separators=(",", ":"), allow_nan=False)


def trace(
    score_mod: Callable[..., _Number] | None = None, mask_mod: Callable[..., _Number] | None = None, *,
    name: str = "variant", scale: float | None = None,
) -> Variant:
    """The variant of FlexAttention-style functions: `score_mod(score, b, h, q_idx, kv_idx)`, `mask_mod(b, h, q_idx, kv_idx)`.

    `b` is the request, `h` the query head, `q_idx` the query's position among the keys (aligned to their end, so that it is the row's
    number where there are as many queries as keys), `kv_idx` the key's.
    """
    site = tuple(_site(n) for n in ("request", "head", "queryPosition", "keyPosition"))
    mask = None if mask_mod is None else _truth(mask_mod(*site))
    logits = None if score_mod is None else _floating(score_mod(Term("float", "score", {}), *site))
    return Variant(name, mask, logits, scale)
