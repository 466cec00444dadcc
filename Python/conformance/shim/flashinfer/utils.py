"""The helpers of the peer's `utils` that its tests use."""

from __future__ import annotations

import enum
import math
from typing import Any

import torch


class PosEncodingMode(enum.Enum):
    NONE = 0
    ROPE_LLAMA = 1
    ALIBI = 2


class MaskMode(enum.Enum):
    NON_CAUSAL = 0
    CAUSAL = 1
    CUSTOM = 2
    MULTIITEMSCORING = 3


class TensorLayout(enum.Enum):
    NHD = 0
    HND = 1


class GPUArchitectureError(Exception):
    pass


class LibraryError(Exception):
    pass


class BackendSupportedError(Exception):
    pass


log2e = math.log2(math.e)


def has_flashinfer_jit_cache() -> bool:
    """True: there is nothing to warm up before the tests."""
    return True


def get_compute_capability(device: Any) -> tuple[int, int]:
    return torch.cuda.get_device_capability(device)


def _capability(device: Any) -> tuple[int, int]:
    return torch.cuda.get_device_capability(device) if torch.cuda.is_available() else (0, 0)


def is_sm90a_supported(device: Any) -> bool:
    return _capability(device)[0] == 9


def is_sm100a_supported(device: Any) -> bool:
    return _capability(device)[0] == 10


def is_sm100f_supported(device: Any) -> bool:
    return _capability(device)[0] == 10


def is_sm110a_supported(device: Any) -> bool:
    return _capability(device)[0] == 11


def is_sm120a_supported(device: Any) -> bool:
    return _capability(device) == (12, 0)


def is_sm120f_supported(device: Any) -> bool:
    return _capability(device)[0] == 12


def is_sm121a_supported(device: Any) -> bool:
    return _capability(device) == (12, 1)


def is_sm12x_supported(device: Any) -> bool:
    return _capability(device)[0] == 12


def is_cvt_rs_supported(device: Any = None) -> bool:
    return False


def device_support_pdl(device: Any) -> bool:
    return _capability(device)[0] >= 9


def is_fa3_prefill_head_dim_supported(head_dim_qk: int, head_dim_vo: int) -> bool:
    return (head_dim_qk, head_dim_vo) in ((64, 64), (128, 128), (256, 256), (192, 128))


def is_fa3_backend_supported(*args: Any, **kwargs: Any) -> bool:
    return False


def determine_attention_backend(*args: Any, **kwargs: Any) -> str:
    return "fa2"


def get_device_sm_count(device: Any) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count


def next_positive_power_of_2(x: int) -> int:
    return 1 if x < 1 else 1 << (x - 1).bit_length()


def last_positive_power_of_2(x: int) -> int:
    return 1 if x < 1 else 1 << (x.bit_length() - 1)


def ceil_div(x: int, y: int) -> int:
    return (x + y - 1) // y


def round_up(x: int, y: int) -> int:
    return ceil_div(x, y) * y


def is_float8(x: Any) -> bool:
    return x.dtype in (torch.float8_e4m3fn, torch.float8_e5m2)


def canonicalize_torch_dtype(dtype: Any) -> torch.dtype:
    return getattr(torch, dtype) if isinstance(dtype, str) else dtype


def version_at_least(version: str, base_version: str) -> bool:
    def numbers(text: str) -> tuple:
        return tuple(int(part) for part in text.split("+")[0].split(".")[:3] if part.isdigit())

    return numbers(version) >= numbers(base_version)


def get_alibi_slopes(n_heads: int, device: Any = None) -> torch.Tensor:
    closest = 1 << (n_heads.bit_length() - 1)
    exponents = [
        -8 * (head + 1) / closest if head < closest else -4 * (2 * (head - closest) + 1) / closest for head in range(n_heads)]
    return torch.tensor([2.0 ** exponent for exponent in exponents], dtype=torch.float32, device=device)


def check_shape_dtype_device(x: Any, shape: Any, dtype: Any, device: Any, name: str) -> None:
    for what, found, expected in (("shape", tuple(x.shape), shape and tuple(shape)), ("dtype", x.dtype, dtype), ("device", x.device, device)):
        if expected is not None and found != expected:
            raise ValueError(f"{name}: {what} is {found}, but must be {expected}")


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    from flashinfer import _Missing

    return _Missing(f"flashinfer.utils.{name}")
