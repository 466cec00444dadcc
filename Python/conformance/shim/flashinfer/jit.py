"""The peer's JIT module: nothing is built ahead here."""

from __future__ import annotations

from typing import Any

import flashinfer

JitSpec = flashinfer._Spec


class MissingJITCacheError(RuntimeError):
    """Never raised here."""

    spec = None


def build_jit_specs(*args: Any, **kwargs: Any) -> None:
    return None


def __getattr__(name: str) -> Any:
    if name.startswith("__") and name != "__path__":
        raise AttributeError(name)
    if name == "__path__":
        return []
    if name.startswith("gen_"):
        return flashinfer._generate
    return flashinfer._Missing(f"flashinfer.jit.{name}")


__path__: list[str] = []
