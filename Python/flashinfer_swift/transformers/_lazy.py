"""Stand-ins for tensors: what our attention takes as it is, and everything else turns into a tensor first."""

from __future__ import annotations

from typing import Any

import torch


class Lazy:
    """Something with a tensor's shape, type and device whose elements are gathered only when a torch operation wants them.

    So a model that slices, casts or multiplies what it was given, and every other attention implementation, gets a dense tensor
    with the right elements; slower, but right.
    """

    __slots__ = ()

    def dense(self) -> torch.Tensor:
        raise NotImplementedError

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return function(*_dense(args), **_dense(kwargs or {}))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.dense(), name)

    def __getitem__(self, index: Any) -> torch.Tensor:
        return self.dense()[_dense(index)]

    def __len__(self) -> int:
        return len(self.dense())

    def __add__(self, other: Any) -> torch.Tensor:
        return self.dense() + _dense(other)

    def __mul__(self, other: Any) -> torch.Tensor:
        return self.dense() * _dense(other)

    def __truediv__(self, other: Any) -> torch.Tensor:
        return self.dense() / _dense(other)

    def __matmul__(self, other: Any) -> torch.Tensor:
        return self.dense() @ _dense(other)

    def __and__(self, other: Any) -> torch.Tensor:
        return self.dense() & _dense(other)

    def __or__(self, other: Any) -> torch.Tensor:
        return self.dense() | _dense(other)

    def __invert__(self) -> torch.Tensor:
        return ~self.dense()

    __radd__, __rmul__, __rand__, __ror__ = __add__, __mul__, __and__, __or__


def _dense(value: Any) -> Any:
    if isinstance(value, Lazy):
        return value.dense()
    if isinstance(value, tuple):
        return tuple(_dense(item) for item in value)
    if isinstance(value, list):
        return [_dense(item) for item in value]
    if isinstance(value, dict):
        return {name: _dense(item) for name, item in value.items()}
    return value
