"""What is installed, and what it can use."""

from __future__ import annotations

import ctypes
from typing import Any

from . import _abi, _library
from .version import __version__


def library_version() -> str:
    """The version of the C library."""
    return _library.get().fi_version_string().decode()


def gpu_count() -> int:
    """CUDA GPUs that this process sees; 0 without a driver."""
    library = _library.get()
    count = ctypes.c_int32()
    status = library.fi_device_count(_abi.DEVICE_CUDA, ctypes.byref(count))
    if status:
        library.fail(status)
    return count.value


def device_name(device: str = "cpu") -> str:
    """A name for people: "cpu (avx512-bf16, 4 threads)", "cuda:0 (NVIDIA H200)"."""
    kind, _, index = device.partition(":")
    return _library.get().device(kind, int(index or 0)).name


def synchronize(device: str = "cpu", stream: int = 0) -> None:
    """Waits for the work enqueued on a stream of a GPU."""
    kind, _, index = device.partition(":")
    library = _library.get()
    status = library.fi_device_synchronize(library.device(kind, int(index or 0)).handle, stream)
    if status:
        library.fail(status)


def forget_stream(device: str, stream: int) -> None:
    """Drops what is kept for a stream; to be called before a stream is destroyed that was used here."""
    kind, _, index = device.partition(":")
    library = _library.get()
    status = library.fi_device_forget_stream(library.device(kind, int(index or 0)).handle, stream)
    if status:
        library.fail(status)


def report() -> dict[str, Any]:
    """Versions, the library's file and the devices."""
    gpus = gpu_count()
    names = []
    for index in range(gpus):
        try:
            names.append(device_name(f"cuda:{index}"))
        except Exception as error:  # a GPU that cannot be used is reported, not hidden
            names.append(f"cuda:{index}: {error}")
    return {
        "package": __version__, "library": library_version(), "file": str(_library.get().path), "cpu": device_name("cpu"),
        "gpus": names,
    }


__all__ = ["device_name", "forget_stream", "gpu_count", "library_version", "report", "synchronize"]
