"""A package named `flashinfer` for the peer's tests: flashinfer_swift under the peer's module names.

What this package lacks is there too, as names whose use raises NotImplementedError with the name: so a test file can be imported,
and each of its cases fails, or not, by itself. `gen_…` and `build_jit_specs` do nothing: kernels are compiled at their first use.
The folder of the peer's sources, from the variable FLASHINFER_CONFORMANCE_PEER, gives `flashinfer.trace` alone: the definitions that
its reference-correctness tests compare with.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import os
import pathlib
import sys
import types
from typing import Any

import flashinfer_swift as _ours
import flashinfer_swift.composed
import flashinfer_swift.torch_ops


__version__ = _ours.__version__
__git_version__ = __git_commit__ = "swift"


class _Missing:
    """A name of the peer's that this package lacks: reading more of it is allowed, using it is not."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Missing(f"{self._name}.{name}")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError(f"{self._name} is not in flashinfer_swift")

    def __iter__(self) -> Any:
        raise NotImplementedError(f"{self._name} is not in flashinfer_swift")

    def __mro_entries__(self, bases: Any) -> tuple:
        return ()

    def __getitem__(self, key: Any) -> Any:
        return _Missing(f"{self._name}[{key!r}]")

    def __truediv__(self, other: Any) -> Any:  # folders
        return _Missing(f"{self._name} / {other!r}")

    def __or__(self, other: Any) -> Any:  # in annotations
        return object

    __ror__ = __or__

    def __hash__(self) -> int:
        return hash(self._name)

    def __repr__(self) -> str:
        return f"<missing {self._name}>"


class _Spec:
    """What `gen_…` gives: a thing to hand to `build_jit_specs`, which does nothing."""

    name = "none"

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *args, **kwargs: self


def _generate(*args: Any, **kwargs: Any) -> _Spec:
    return _Spec()


class _Module(types.ModuleType):
    """A module of the peer's: what ours has, then what a shim module adds, then missing names."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(f"module {self.__name__} has no attribute {name}")
        if name.startswith("gen_"):
            return _generate
        return _Missing(f"{self.__name__}.{name}")


#: The peer's modules that are ours.
_SAME = (
    "activation", "cascade", "decode", "mla", "norm", "page", "pod", "prefill", "quantization", "rope", "sampling", "sparse", "topk",
    "attention", "logits_processor",
)
_HERE = pathlib.Path(__file__).parent


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds every `flashinfer.…` module: the shim's own files, the peer's trace, ours, or one of missing names."""

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        if not name.startswith("flashinfer."):
            return None
        parts = name.split(".")[1:]
        if parts[0] == "moe_ep":
            return None  # the tests' conftest asks by importing it
        file = _HERE.joinpath(*parts).with_suffix(".py")
        if file.exists():
            return importlib.util.spec_from_file_location(name, file)
        peer = os.environ.get("FLASHINFER_CONFORMANCE_PEER")
        if parts[0] == "trace" and peer:
            base = pathlib.Path(peer, "flashinfer", *parts)
            if (base / "__init__.py").exists():
                return importlib.util.spec_from_file_location(
                    name, base / "__init__.py", submodule_search_locations=[str(base)])
            if base.with_suffix(".py").exists():
                return importlib.util.spec_from_file_location(name, base.with_suffix(".py"))
            return None
        return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec: Any) -> types.ModuleType:
        module = _Module(spec.name)
        short = spec.name.removeprefix("flashinfer.")
        if short in _SAME:
            source = importlib.import_module(f"flashinfer_swift.{short}")
            module.__dict__.update({key: value for key, value in vars(source).items() if not key.startswith("_")})
        return module

    def exec_module(self, module: types.ModuleType) -> None:
        return None


sys.meta_path.insert(0, _Finder())
for _name, _value in vars(_ours).items():
    if not _name.startswith("_") and not isinstance(_value, types.ModuleType):
        globals()[_name] = _value
for _name in (*_SAME, "utils", "jit", "testing"):
    globals()[_name] = importlib.import_module(f"flashinfer.{_name}")


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    if name in ("gemm", "fused_moe", "comm", "triton", "trace", "logits_processor", "concat_ops", "xqa", "mamba", "cudnn", "cute_dsl"):
        return importlib.import_module(f"flashinfer.{name}")
    return _Missing(f"flashinfer.{name}")




