"""The peer's benchmark helpers are not here."""

from typing import Any


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    from flashinfer import _Missing

    return _Missing(f"flashinfer.testing.{name}")
