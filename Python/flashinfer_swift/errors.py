"""What goes wrong, as exceptions whose text is the library's own: argument, value found, value expected."""

from __future__ import annotations


class FlashInferError(Exception):
    """Every error of this package."""


class InvalidArgumentError(FlashInferError, ValueError):
    """An argument has a value, type, shape, stride or place that the call cannot take."""


class UnsupportedError(FlashInferError, NotImplementedError):
    """A valid request that this library, or this device, has no kernel for; the text names the nearest that works."""


class DeviceError(FlashInferError, RuntimeError):
    """A call into the driver or the operating system failed."""


class OutOfMemoryError(DeviceError, MemoryError):
    """The device has no room for an allocation."""


class RankError(DeviceError):
    """A rank of several is gone, was not there in time, or was given something else than the others; the text names it."""


class LibraryNotFoundError(FlashInferError, ImportError):
    """The shared library is missing, or of another version than this package."""


def unsupported(call: str, reason: str, instead: str) -> UnsupportedError:
    """The error of a call that the library lacks."""
    return UnsupportedError(f"{call}: {reason}; what works instead: {instead}")
