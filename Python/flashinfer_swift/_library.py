"""Finding and loading `libflashinfer_swift.so`, devices, and the one place where a status becomes an exception."""

from __future__ import annotations

import ctypes
import os
import pathlib
import sys
import threading
from typing import Any, Callable, NoReturn

from . import _abi
from .errors import (
    DeviceError, FlashInferError, InvalidArgumentError, LibraryNotFoundError, OutOfMemoryError, RankError, UnsupportedError)
from .version import ABI_VERSION

FILE_NAME = "libflashinfer_swift.so"
#: The one environment variable of this package: the file of the library, before all other places.
VARIABLE = "FLASHINFER_SWIFT_LIBRARY"

_KINDS: dict[int, type[FlashInferError]] = {
    _abi.UNSUPPORTED: UnsupportedError, _abi.OUT_OF_MEMORY: OutOfMemoryError, _abi.DEVICE_FAILURE: DeviceError,
    _abi.ABI_MISMATCH: LibraryNotFoundError, _abi.RANK_MISMATCH: RankError, _abi.RANK_FAILURE: RankError,
}


def library_path() -> pathlib.Path:
    """The file that will be loaded."""
    chosen = os.environ.get(VARIABLE)
    if chosen:
        return pathlib.Path(chosen)
    return pathlib.Path(__file__).parent / "lib" / FILE_NAME


def help_find_compiler() -> None:
    """Says to the library where this Python has a bundle of kernels, or NVRTC, unless the environment says so already.

    The library looks beside the program and in usual places, and cannot know which Python it was loaded by.
    """
    bundle = pathlib.Path(__file__).parent / "lib" / "flashinfer.bundle"
    if "FLASHINFER_BUNDLE" not in os.environ and bundle.exists():
        os.environ["FLASHINFER_BUNDLE"] = str(bundle)
    if "FLASHINFER_NVRTC" not in os.environ:
        for folder in sys.path:
            for name in ("nvidia/cu13/lib/libnvrtc.so.13", "nvidia/cuda_nvrtc/lib/libnvrtc.so.12"):
                path = pathlib.Path(folder or ".") / name
                if path.exists():
                    os.environ["FLASHINFER_NVRTC"] = str(path)
                    return


class Library:
    """The loaded library: every function of the header as an attribute, with its argument types set."""

    def __init__(self) -> None:
        path = library_path()
        if not path.exists():
            raise LibraryNotFoundError(
                f"{path} does not exist; install the wheel, or say in {VARIABLE} where {FILE_NAME} is")
        help_find_compiler()
        try:
            # CDLL releases the interpreter's lock during calls, so other threads go on.
            self.handle = ctypes.CDLL(str(path))
        except OSError as error:
            raise LibraryNotFoundError(f"{path} cannot be loaded: {error}") from error
        for name, arguments in _abi.FUNCTIONS.items():
            self._bind(name, ctypes.c_int32, arguments)
        for name, (result, arguments) in _abi.OTHER_FUNCTIONS.items():
            self._bind(name, result, arguments)
        version = self.fi_version()
        # Major and minor must agree while the major version is 0; a newer patch is a superset.
        if version // 100 != ABI_VERSION // 100 or version < ABI_VERSION:
            raise LibraryNotFoundError(
                f"{path} has version {version}, but this package is made for {ABI_VERSION}; install both from one wheel")
        self.path = path
        self._devices: dict[tuple[str, int], Device] = {}
        self._lock = threading.Lock()

    def _bind(self, name: str, result: Any, arguments: list) -> None:
        try:
            function = getattr(self.handle, name)
        except AttributeError:
            missing = name

            def function(*_: Any) -> NoReturn:
                raise UnsupportedError(f"the library has no {missing}; it is older than this package")
        else:
            function.restype = result
            function.argtypes = arguments
        setattr(self, name, function)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        raise AttributeError(name)

    def device(self, kind: str, index: int = 0) -> "Device":
        """The device of this kind and index; made at the first use, kept for the life of the process."""
        found = self._devices.get((kind, index))
        if found is None:
            with self._lock:
                found = self._devices.get((kind, index))
                if found is None:
                    found = Device(self, kind, index)
                    self._devices[(kind, index)] = found
        return found

    def fail(self, status: int, call: str = "", first: str = "") -> NoReturn:
        """Raises the exception of a status that is not OK; `first` is the caller's name for what the header calls `in`."""
        message = (self.fi_last_error_message() or b"").decode("utf-8", "replace")
        if first and message.startswith("in "):
            message = first + message[2:]
        raise _KINDS.get(status, InvalidArgumentError)(f"{call}: {message}" if call else message)


class Device:
    """The CPU, or one GPU with the kernels loaded on it."""

    def __init__(self, library: Library, kind: str, index: int) -> None:
        options = _abi.DeviceOptions(
            ctypes.sizeof(_abi.DeviceOptions), _abi.DEVICE_CPU if kind == "cpu" else _abi.DEVICE_CUDA, index, 0, 0)
        handle = ctypes.c_void_p()
        status = library.fi_device_create(ctypes.byref(options), ctypes.byref(handle))
        if status:
            library.fail(status, f"device {kind}:{index}")
        self.library = library
        self.handle: int = handle.value or 0
        self.kind = kind
        self.index = index

    @property
    def name(self) -> str:
        return self.library.fi_device_name(self.handle).decode()

    def info(self) -> _abi.DeviceInfo:
        info = _abi.DeviceInfo(ctypes.sizeof(_abi.DeviceInfo))
        status = self.library.fi_device_get_info(self.handle, ctypes.byref(info))
        if status:
            self.library.fail(status)
        return info


_loaded: Library | None = None
_loading = threading.Lock()


def get() -> Library:
    """The library, loaded at the first call."""
    global _loaded
    if _loaded is None:
        with _loading:
            if _loaded is None:
                _loaded = Library()
    return _loaded
