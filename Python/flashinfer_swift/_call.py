"""Calls of the C library: tensors into preallocated `fi_tensor`s, one call, a status.

`Slot` is one `fi_tensor` with its shape and strides behind it, in memory that is allocated once. Filling it for a tensor like the
last one writes the address only.
"""

from __future__ import annotations

import ctypes
import struct
import threading
from typing import Any, Sequence

from . import _abi, _library
from ._arrays import CPU, ArrayLibrary, TorchLibrary, View, contiguous_strides, is_contiguous, library_of
from .errors import InvalidArgumentError

_MAX_RANK = 5
# data, device type and id, ndim, dtype (code, bits, lanes), shape, strides, byte offset; then the two arrays.
_LAYOUT = struct.Struct("<QiiiBBHQQQ10q")
_SHAPE_OFFSET = 48
_STRIDES_OFFSET = _SHAPE_OFFSET + 8 * _MAX_RANK
_PADDING = (0,) * _MAX_RANK


class Slot:
    """One `fi_tensor`. It keeps no memory alive but another library's: the caller holds the tensors until the call returns."""

    __slots__ = ("buffer", "address", "data", "key", "torch_key", "held")

    def __init__(self) -> None:
        self.buffer = ctypes.create_string_buffer(_LAYOUT.size)
        self.address = ctypes.addressof(self.buffer)
        self.data = ctypes.c_uint64.from_buffer(self.buffer)
        self.key: Any = None
        self.torch_key: Any = None
        self.held: View | None = None

    def fill(self, view: View, name: str) -> int:
        key = view[1:6]
        if key != self.key:
            self._describe(view, name)
            self.key = key
            self.torch_key = None
        self.data.value = view.pointer
        return self.address

    def fill_torch(self, tensor: Any, library: TorchLibrary, name: str) -> None:
        try:
            key = (tensor.dtype, tensor.shape, tensor.stride(), tensor.get_device())
        except AttributeError:
            # Another library's tensor beside torch's, or none at all, which the view says.
            self.held = library.view(tensor, name)
            self.fill(self.held, name)
            return
        if key == self.torch_key:
            self.data.value = tensor.data_ptr()
        else:
            self.fill(library.view(tensor, name), name)
            self.torch_key = key

    def _describe(self, view: View, name: str) -> None:
        rank = len(view.shape)
        if rank > _MAX_RANK:
            raise InvalidArgumentError(f"{name} is of shape {view.shape}, but must have at most {_MAX_RANK} dimensions")
        code, bits = _abi.DTYPES[view.dtype]
        _LAYOUT.pack_into(
            self.buffer, 0, 0, _abi.DEVICE_CPU if view.device == CPU else _abi.DEVICE_CUDA, view.index, rank, code, bits, 1,
            self.address + _SHAPE_OFFSET, self.address + _STRIDES_OFFSET, 0, *view.shape, *_PADDING[rank:], *view.strides,
            *_PADDING[rank:])


class _Slots(threading.local):
    """Slots of a thread: calls release the interpreter's lock, so threads must not share them."""

    def __init__(self) -> None:
        self.free = [Slot() for _ in range(24)]


_slots = _Slots()


class Call:
    """The tensors of one call of the C library, all on one device.

    The first tensor given is the one that says which library, device and stream.
    """

    __slots__ = ("library", "arrays", "_held", "_used", "_pool", "like", "first", "name")

    def __init__(self, like: Any, name: str) -> None:
        self.library = _library.get()
        self.arrays: ArrayLibrary = library_of(like, name)
        self.like = like
        self.name = name
        self.first: View = self.arrays.view(like, name)
        self._pool = _slots.free
        self._used = 0
        self._held: list[View] = []  # until the call has returned

    def tensor(self, array: Any, name: str) -> int:
        """The address of the `fi_tensor` of an array, read or index; 0 for None."""
        if array is None:
            return 0
        return self.view(self.read(array, name), name)

    def index(self, array: Any, name: str) -> int:
        """As `tensor`, for int32; int64 is converted, not misread."""
        if self.read(array, name).dtype == "int64":
            array = self.arrays.cast(array, "int32")
        return self.tensor(array, name)

    def output(self, array: Any, name: str) -> int:
        """As `tensor`, for an array that is written."""
        view = self.read(array, name)
        if view.readonly:
            raise InvalidArgumentError(f"{name} is read-only memory, but is written")
        return self.view(view, name)

    def read(self, array: Any, name: str = "tensor") -> View:
        if array is self.like:
            return self.first
        if isinstance(array, View):
            return array
        return self.arrays.view(array, name)

    def view(self, view: View, name: str) -> int:
        slot = self._pool[self._used]
        self._used += 1
        self._held.append(view)
        return slot.fill(view, name)

    def empty(self, shape: Sequence[int], dtype: str | None = None) -> Any:
        return self.arrays.empty(shape, dtype or self.first.dtype, self.like)

    def device(self) -> int:
        return self.library.device(self.first.device, self.first.index).handle

    def run(self, function: str, *arguments: Any) -> None:
        """Calls `function(device, stream, *arguments)` and raises what its status says."""
        status = getattr(self.library, function)(self.device(), self.arrays.stream(self.like), *arguments)
        if status:
            self.library.fail(status, first=self.name)


def as_rows(view: View, name: str) -> View:
    """At most three dimensions: leading ones are joined where their strides allow it."""
    if 1 <= len(view.shape) <= 3:
        return view
    if not is_contiguous(view) or not view.shape:
        raise InvalidArgumentError(
            f"{name} is of shape {view.shape} with strides {view.strides}, but must have 1 to 3 dimensions, or be contiguous")
    rows = 1
    for extent in view.shape[:-1]:
        rows *= extent
    width = view.shape[-1]
    return view.with_shape((rows, width), (width, 1))


def host_view(buffer: Any, dtype: str, shape: Sequence[int]) -> View:
    """A view of a ctypes array."""
    return View(ctypes.addressof(buffer), dtype, tuple(shape), contiguous_strides(shape), CPU, 0, buffer)


def host_floats(values: Sequence[float]) -> View:
    buffer = (ctypes.c_float * max(len(values), 1))(*values)
    return host_view(buffer, "float32", (len(values),))


def host_ints(values: Sequence[int]) -> View:
    buffer = (ctypes.c_int32 * max(len(values), 1))(*values)
    return host_view(buffer, "int32", (len(values),))
