"""Tensors of torch, NumPy, CuPy and anything with DLPack, read where they lie.

A call looks up the adapter of its first tensor's type once (`library_of`) and uses that adapter for all of them: to read a
tensor's address, type, shape and strides, to make outputs, to find the current stream, and to bring index arrays to the host.
Nothing here imports an array library: an adapter is made from the module that a tensor came from.
"""

from __future__ import annotations

import ctypes
import sys
from typing import Any, Callable, NamedTuple, Sequence

from .errors import InvalidArgumentError, UnsupportedError

CPU = "cpu"
CUDA = "cuda"

#: Bits of an element, by the names that all adapters use.
ITEM_SIZE = {
    "float64": 8, "int64": 8, "uint64": 8, "float32": 4, "int32": 4, "uint32": 4, "float16": 2, "bfloat16": 2, "int16": 2,
    "uint16": 2, "float8_e4m3fn": 1, "float8_e5m2": 1, "int8": 1, "uint8": 1, "bool": 1,
}


class View(NamedTuple):
    """Where a tensor lies and how: what the C library is told of it."""

    pointer: int
    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]  # in elements
    device: str
    index: int  # type: ignore[assignment]  # of the GPU; a tuple's own method of that name is not wanted
    owner: Any  # keeps the memory alive while the view is used
    readonly: bool = False

    @property
    def place(self) -> str:
        return self.device if self.device == CPU else f"{self.device}:{self.index}"

    def with_shape(self, shape: Sequence[int], strides: Sequence[int], offset: int = 0) -> "View":
        """Other dimensions over the same memory, from `offset` elements on."""
        return self._replace(
            pointer=self.pointer + offset * ITEM_SIZE[self.dtype], shape=tuple(shape), strides=tuple(strides))


def contiguous_strides(shape: Sequence[int]) -> tuple[int, ...]:
    strides = [1] * len(shape)
    for axis in range(len(shape) - 2, -1, -1):
        strides[axis] = strides[axis + 1] * max(shape[axis + 1], 1)
    return tuple(strides)


def is_contiguous(view: View) -> bool:
    expected = 1
    for extent, stride in zip(reversed(view.shape), reversed(view.strides)):
        if extent > 1 and stride != expected:
            return False
        expected *= max(extent, 1)
    return True


def element_count(view: View) -> int:
    count = 1
    for extent in view.shape:
        count *= extent
    return count


class ArrayLibrary:
    """One array library, seen through what this package needs of it."""

    name = "array"

    def view(self, array: Any, name: str = "tensor") -> View:
        raise NotImplementedError

    def empty(self, shape: Sequence[int], dtype: str, like: Any) -> Any:
        """An uninitialised contiguous array on the device of `like`."""
        raise NotImplementedError

    def empty_rows(self, like: Any, width: int, dtype: str) -> Any:
        """The same for rows of `width` elements in the place of `like`'s."""
        return self.empty((*like.shape[:-1], width), dtype, like)

    def dtype_name(self, dtype: Any) -> str:
        """The name of a dtype object or string of this library."""
        raise NotImplementedError

    def stream(self, like: Any) -> int:
        """The handle of the current CUDA stream of the device of `like`; 0 on a CPU."""
        return 0

    def to_list(self, array: Any) -> list[Any]:
        """The numbers as Python's, flat; waits for a GPU."""
        raise NotImplementedError

    def from_host(self, values: bytes, dtype: str, shape: Sequence[int], like: Any) -> Any:
        """An array on the device of `like` with these bytes."""
        raise NotImplementedError

    def cast(self, array: Any, dtype: str) -> Any:
        """The array in another type; itself where it has that type."""
        raise NotImplementedError

    @property
    def module(self) -> Any:
        """The library's own module, for what is composed of its operations."""
        raise UnsupportedError(f"this call composes operations of torch, NumPy or CuPy, but got a tensor of {self.name}")

    def concat(self, arrays: Sequence[Any]) -> Any:
        return self.module.concatenate(list(arrays))

    def contiguous_vector(self, array: Any) -> Any:
        """The elements in order, one after another; the array's own memory where it is that already."""
        return self.module.ascontiguousarray(array.reshape(-1))


class TorchLibrary(ArrayLibrary):
    name = "torch"

    def __init__(self, torch: Any) -> None:
        self.torch = torch
        self.tensor = torch.Tensor
        self.names: dict[Any, str] = {}
        self.dtypes: dict[str, Any] = {}
        for name in ITEM_SIZE:
            dtype = getattr(torch, name, None)
            if dtype is not None:
                self.names[dtype] = name
                self.dtypes[name] = dtype
        self._raw_stream: Callable[[int], int] | None = None
        from . import torch_ops

        torch_ops.register(torch)

    @property
    def module(self) -> Any:
        return self.torch

    def view(self, array: Any, name: str = "tensor") -> View:
        if not isinstance(array, self.tensor):
            return foreign_view(array, name)
        dtype = self.names.get(array.dtype)
        if dtype is None:
            raise InvalidArgumentError(f"{name} is of {array.dtype}, a type that this library does not know")
        if array.is_cpu:
            return View(array.data_ptr(), dtype, array.shape, array.stride(), CPU, 0, array)
        if array.is_cuda:
            return View(array.data_ptr(), dtype, array.shape, array.stride(), CUDA, array.get_device(), array)
        raise UnsupportedError(f"{name} is on {array.device}; this library has kernels for cpu and cuda")

    def contiguous_vector(self, array: Any) -> Any:
        return array.reshape(-1).contiguous()

    def empty(self, shape: Sequence[int], dtype: str, like: Any) -> Any:
        return self.torch.empty(shape, dtype=self.dtypes[dtype], device=like.device)

    def empty_rows(self, like: Any, width: int, dtype: str) -> Any:
        wanted = self.dtypes[dtype]
        if like.shape[-1] == width and like.dtype is wanted:
            # Half the time of a tensor that is described anew.
            return self.torch.empty_like(like, memory_format=self.torch.contiguous_format)
        return self.torch.empty((*like.shape[:-1], width), dtype=wanted, device=like.device)

    def dtype_name(self, dtype: Any) -> str:
        if isinstance(dtype, str):
            return _canonical_name(dtype)
        name = self.names.get(dtype)
        if name is None:
            raise InvalidArgumentError(f"dtype is {dtype}, a type that this library does not know")
        return name

    def stream(self, like: Any) -> int:
        if not like.is_cuda:
            return 0
        if self._raw_stream is None:
            # The private function costs 0.1 us where current_stream() makes an object in 1 us.
            self._raw_stream = getattr(self.torch._C, "_cuda_getCurrentRawStream", None) or (
                lambda index: self.torch.cuda.current_stream(index).cuda_stream)
        return self._raw_stream(like.get_device())

    def to_list(self, array: Any) -> list[Any]:
        if not isinstance(array, self.tensor):
            return _any_to_list(array)
        return array.detach().reshape(-1).tolist()

    def from_host(self, values: bytes, dtype: str, shape: Sequence[int], like: Any) -> Any:
        if not values:
            return self.torch.empty(tuple(shape), dtype=self.dtypes[dtype], device=like.device)
        host = self.torch.frombuffer(bytearray(values), dtype=self.dtypes[dtype]).reshape(tuple(shape))
        return host if like.device.type == "cpu" else host.to(like.device)

    def cast(self, array: Any, dtype: str) -> Any:
        return array.to(self.dtypes[dtype])


class NumPyLibrary(ArrayLibrary):
    name = "numpy"

    def __init__(self, numpy: Any) -> None:
        self.numpy = numpy
        self.ndarray = numpy.ndarray

    @property
    def module(self) -> Any:
        return self.numpy

    def view(self, array: Any, name: str = "tensor") -> View:
        if not isinstance(array, self.ndarray):
            return foreign_view(array, name)
        interface = array.__array_interface__
        size = array.itemsize
        strides = array.strides
        kind = array.dtype.name
        if kind not in ITEM_SIZE or not array.dtype.isnative:
            raise InvalidArgumentError(f"{name} is of {array.dtype}, a type that this library does not know")
        if any(stride % size for stride in strides):
            raise InvalidArgumentError(f"{name} has strides of {strides} bytes, but they must be multiples of the item's {size}")
        pointer, readonly = interface["data"]
        return View(
            pointer, kind, array.shape, tuple(stride // size for stride in strides), CPU, 0, array, readonly)

    def empty(self, shape: Sequence[int], dtype: str, like: Any) -> Any:
        return self.numpy.empty(tuple(shape), dtype=self.native_dtype(dtype))

    def native_dtype(self, name: str) -> Any:
        if name in ("bfloat16", "float8_e4m3fn", "float8_e5m2"):
            try:
                import ml_dtypes
            except ImportError as error:
                raise UnsupportedError(
                    f"NumPy has no {name} of its own; install ml_dtypes for {name} arrays") from error
            return self.numpy.dtype(getattr(ml_dtypes, name))
        return self.numpy.dtype(name)

    def dtype_name(self, dtype: Any) -> str:
        if isinstance(dtype, str):
            return _canonical_name(dtype)
        name = self.numpy.dtype(dtype).name
        if name not in ITEM_SIZE:
            raise InvalidArgumentError(f"dtype is {dtype}, a type that this library does not know")
        return name

    def to_list(self, array: Any) -> list[Any]:
        if not isinstance(array, self.ndarray):
            return _any_to_list(array)
        return array.reshape(-1).tolist()

    def from_host(self, values: bytes, dtype: str, shape: Sequence[int], like: Any) -> Any:
        return self.numpy.frombuffer(bytearray(values), dtype=self.native_dtype(dtype)).reshape(tuple(shape))

    def cast(self, array: Any, dtype: str) -> Any:
        return array.astype(self.native_dtype(dtype), copy=False)


class CuPyLibrary(ArrayLibrary):
    name = "cupy"

    def __init__(self, cupy: Any) -> None:
        self.cupy = cupy
        self.ndarray = cupy.ndarray

    @property
    def module(self) -> Any:
        return self.cupy

    def view(self, array: Any, name: str = "tensor") -> View:
        if not isinstance(array, self.ndarray):
            return foreign_view(array, name)
        size = array.itemsize
        kind = array.dtype.name
        if kind not in ITEM_SIZE:
            raise InvalidArgumentError(f"{name} is of {array.dtype}, a type that this library does not know")
        return View(
            array.data.ptr, kind, tuple(array.shape), tuple(stride // size for stride in array.strides), CUDA,
            array.device.id, array)

    def empty(self, shape: Sequence[int], dtype: str, like: Any) -> Any:
        with self.cupy.cuda.Device(like.device.id):
            return self.cupy.empty(tuple(shape), dtype=dtype)

    def dtype_name(self, dtype: Any) -> str:
        if isinstance(dtype, str):
            return _canonical_name(dtype)
        return self.cupy.dtype(dtype).name

    def stream(self, like: Any) -> int:
        return int(self.cupy.cuda.get_current_stream().ptr)

    def to_list(self, array: Any) -> list[Any]:
        if not isinstance(array, self.ndarray):
            return _any_to_list(array)
        return array.reshape(-1).tolist()

    def from_host(self, values: bytes, dtype: str, shape: Sequence[int], like: Any) -> Any:
        import numpy

        with self.cupy.cuda.Device(like.device.id):
            return self.cupy.asarray(numpy.frombuffer(values, dtype=dtype).reshape(tuple(shape)))

    def cast(self, array: Any, dtype: str) -> Any:
        return array.astype(dtype, copy=False)


class ForeignLibrary(ArrayLibrary):
    """Anything with `__dlpack__`: read in place; outputs on the CPU are NumPy's, elsewhere the caller gives them."""

    name = "dlpack"

    def view(self, array: Any, name: str = "tensor") -> View:
        return foreign_view(array, name)

    def empty(self, shape: Sequence[int], dtype: str, like: Any) -> Any:
        if foreign_view(like).device != CPU:
            raise UnsupportedError(
                f"outputs like {type(like).__name__} on a GPU cannot be made here; give them as out= (and lse=)")
        return library("numpy").empty(shape, dtype, None)

    def dtype_name(self, dtype: Any) -> str:
        return _canonical_name(dtype if isinstance(dtype, str) else getattr(dtype, "name", str(dtype)))

    def to_list(self, array: Any) -> list[Any]:
        return _any_to_list(array)

    def cast(self, array: Any, dtype: str) -> Any:
        if foreign_view(array).dtype != dtype:
            raise InvalidArgumentError(f"array is of {foreign_view(array).dtype}, but must be of {dtype}")
        return array


_ALIASES = {
    "half": "float16", "fp16": "float16", "bf16": "bfloat16", "float": "float32", "fp32": "float32",
    "fp8_e4m3": "float8_e4m3fn", "e4m3": "float8_e4m3fn", "float8_e4m3": "float8_e4m3fn", "fp8": "float8_e4m3fn",
    "fp8_e5m2": "float8_e5m2", "e5m2": "float8_e5m2",
}


def _canonical_name(name: str) -> str:
    plain = name.removeprefix("torch.")
    plain = _ALIASES.get(plain, plain)
    if plain not in ITEM_SIZE:
        raise InvalidArgumentError(f"dtype is {name!r}, a type that this library does not know")
    return plain


_libraries: dict[type, ArrayLibrary] = {}
_by_name: dict[str, ArrayLibrary] = {}


def library(name: str) -> ArrayLibrary:
    """The adapter of torch, numpy, cupy or dlpack, importing nothing that is not imported or installed."""
    found = _by_name.get(name)
    if found is None:
        if name == "numpy":
            import numpy

            found = NumPyLibrary(numpy)
        elif name == "torch":
            import torch

            found = TorchLibrary(torch)
        elif name == "cupy":
            import cupy

            found = CuPyLibrary(cupy)
        else:
            found = ForeignLibrary()
        _by_name[name] = found
    return found


def library_of(array: Any, name: str = "tensor") -> ArrayLibrary:
    """The adapter for the type of `array`."""
    found = _libraries.get(type(array))
    if found is None:
        found = _find_library(array, name)
        _libraries[type(array)] = found
    return found


def _find_library(array: Any, name: str) -> ArrayLibrary:
    for base in type(array).__mro__:
        root = (base.__module__ or "").partition(".")[0]
        if root in ("torch", "numpy", "cupy") and root in sys.modules:
            candidate = library(root)
            kind = getattr(candidate, "tensor", None) or getattr(candidate, "ndarray", None)
            if kind is not None and isinstance(array, kind):
                return candidate
    if hasattr(array, "__dlpack__"):
        return library("dlpack")
    raise not_a_tensor(array, name)


def not_a_tensor(array: Any, name: str) -> InvalidArgumentError:
    """What to raise for an argument without a shape, or without dimensions."""
    shape = getattr(array, "shape", None)
    if hasattr(array, "__dlpack__"):
        what = "without a shape" if shape is None else f"of shape {tuple(shape)}"
        return InvalidArgumentError(f"{name} is a {type(array).__name__} {what}, but must have at least one dimension")
    return InvalidArgumentError(
        f"{name} is a {type(array).__name__}, but must be a tensor of torch, NumPy or CuPy, or an object with __dlpack__")


_CTYPES: dict[str, Any] = {
    "int8": ctypes.c_int8, "uint8": ctypes.c_uint8, "int16": ctypes.c_int16, "uint16": ctypes.c_uint16,
    "int32": ctypes.c_int32, "uint32": ctypes.c_uint32, "int64": ctypes.c_int64, "uint64": ctypes.c_uint64,
    "float32": ctypes.c_float, "float64": ctypes.c_double, "bool": ctypes.c_bool,
}


def _any_to_list(array: Any) -> list[Any]:
    if isinstance(array, (list, tuple)):
        return list(array)
    other = library_of(array)
    if not isinstance(other, ForeignLibrary):
        return other.to_list(array)
    view = foreign_view(array)
    if view.device != CPU or not is_contiguous(view) or view.dtype not in _CTYPES:
        raise InvalidArgumentError(f"{view.dtype} {view.shape} on {view.place} cannot be read here, as it is not plain host memory")
    return list((_CTYPES[view.dtype] * element_count(view)).from_address(view.pointer)) if element_count(view) else []


# ---------------------------------------------------------------------------------------------------------------- DLPack

class _DLDevice(ctypes.Structure):
    _fields_ = [("device_type", ctypes.c_int32), ("device_id", ctypes.c_int32)]


class _DLDataType(ctypes.Structure):
    _fields_ = [("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16)]


class _DLTensor(ctypes.Structure):
    _fields_ = [
        ("data", ctypes.c_void_p), ("device", _DLDevice), ("ndim", ctypes.c_int32), ("dtype", _DLDataType),
        ("shape", ctypes.POINTER(ctypes.c_int64)), ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    ]


class _DLManagedTensor(ctypes.Structure):
    _fields_ = [("dl_tensor", _DLTensor), ("manager_ctx", ctypes.c_void_p), ("deleter", ctypes.c_void_p)]


class _DLManagedTensorVersioned(ctypes.Structure):
    _fields_ = [
        ("major", ctypes.c_uint32), ("minor", ctypes.c_uint32), ("manager_ctx", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p), ("flags", ctypes.c_uint64), ("dl_tensor", _DLTensor),
    ]


#: (code, bits) of DLPack's DLDataType.
_DLPACK_DTYPES = {
    (0, 8): "int8", (0, 16): "int16", (0, 32): "int32", (0, 64): "int64",
    (1, 8): "uint8", (1, 16): "uint16", (1, 32): "uint32", (1, 64): "uint64",
    (2, 16): "float16", (2, 32): "float32", (2, 64): "float64", (4, 16): "bfloat16", (6, 8): "bool",
    (10, 8): "float8_e4m3fn", (12, 8): "float8_e5m2",
}
_DLPACK_DEVICES = {1: CPU, 2: CUDA, 3: CPU, 11: CPU, 13: CUDA}  # pinned host memory is host memory; managed is the GPU's

_get_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_get_pointer.restype = ctypes.c_void_p
_get_pointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
_is_valid = ctypes.pythonapi.PyCapsule_IsValid
_is_valid.restype = ctypes.c_int
_is_valid.argtypes = [ctypes.py_object, ctypes.c_char_p]


def foreign_view(array: Any, name: str = "tensor") -> View:
    """A view by DLPack, versioned or not, or by another adapter where the type has one.

    The capsule is held, not consumed: its own destructor gives the tensor back when the view goes.
    """
    other = _libraries.get(type(array)) or (library_of(array, name) if not isinstance(array, View) else None)
    if other is not None and not isinstance(other, ForeignLibrary):
        return other.view(array, name)
    if not hasattr(array, "__dlpack__"):
        raise not_a_tensor(array, name)
    try:
        capsule = array.__dlpack__(max_version=(1, 0))
    except TypeError:
        capsule = array.__dlpack__()
    readonly = False
    if _is_valid(capsule, b"dltensor_versioned"):
        managed = _DLManagedTensorVersioned.from_address(_get_pointer(capsule, b"dltensor_versioned"))
        if managed.major > 1:
            raise UnsupportedError(f"DLPack {managed.major}.{managed.minor} is newer than the 1.x that is known here")
        readonly = bool(managed.flags & 1)
        tensor = managed.dl_tensor
    elif _is_valid(capsule, b"dltensor"):
        tensor = _DLManagedTensor.from_address(_get_pointer(capsule, b"dltensor")).dl_tensor
    else:
        raise InvalidArgumentError(f"{type(array).__name__}.__dlpack__ gave something else than a fresh DLPack capsule")
    key = (tensor.dtype.code, tensor.dtype.bits)
    if tensor.dtype.lanes != 1 or key not in _DLPACK_DTYPES:
        raise InvalidArgumentError(f"{name} is of DLPack's type code {key[0]} with {key[1]} bits, which this library does not know")
    kind = _DLPACK_DEVICES.get(tensor.device.device_type)
    if kind is None:
        raise UnsupportedError(f"{name} is on DLPack's device type {tensor.device.device_type}, which is neither a CPU nor CUDA")
    shape = tuple(tensor.shape[axis] for axis in range(tensor.ndim))
    strides = (
        tuple(tensor.strides[axis] for axis in range(tensor.ndim)) if tensor.strides else contiguous_strides(shape))
    return View(
        (tensor.data or 0) + tensor.byte_offset, _DLPACK_DTYPES[key], shape, strides, kind,
        tensor.device.device_id if kind == CUDA else 0, (array, capsule), readonly)
