"""Runs on the CPU what tests put on "cuda": every torch call that names a CUDA device gets the CPU instead.

So that the peer's tests, unedited, show results where there is no GPU. What is about CUDA itself (graphs, streams) still fails.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.overrides import TorchFunctionMode


def _is_cuda(value: Any) -> bool:
    return (isinstance(value, str) and value.startswith("cuda")) or (isinstance(value, torch.device) and value.type == "cuda")


class _OnCPU(TorchFunctionMode):
    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        device = kwargs.get("device")
        if _is_cuda(device) or (isinstance(device, int) and not isinstance(device, bool)):
            kwargs["device"] = "cpu"
        if function is torch.Tensor.cuda:
            return args[0]
        if function is torch.Tensor.to and len(args) > 1 and (_is_cuda(args[1]) or (isinstance(args[1], int))):
            args = (args[0], "cpu", *args[2:])
        elif any(_is_cuda(arg) for arg in args if isinstance(arg, (str, torch.device))):
            args = tuple("cpu" if isinstance(arg, (str, torch.device)) and _is_cuda(arg) else arg for arg in args)
        return function(*args, **kwargs)


def enable() -> None:
    _OnCPU().__enter__()
    generator = torch.Generator

    class CPUGenerator(generator):  # type: ignore[misc, valid-type]
        def __new__(cls, device: Any = "cpu") -> Any:
            return generator("cpu" if _is_cuda(device) else device)

    torch.Generator = CPUGenerator  # type: ignore[misc]
    torch.cuda.get_device_capability = lambda device=None: (9, 0)
    for name in ("synchronize", "empty_cache", "manual_seed", "manual_seed_all"):
        setattr(torch.cuda, name, lambda *args, **kwargs: None)
    torch.cuda.get_device_properties = lambda device=None: type(
        "Properties", (), {"multi_processor_count": 132, "total_memory": 8 << 30, "name": "cpu"})()
    torch.cuda.mem_get_info = lambda device=None: (1 << 20, 1 << 20)
    torch.set_num_threads(1)
