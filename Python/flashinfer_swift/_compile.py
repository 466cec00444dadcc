"""Whether torch.compile is tracing now: then calls go through `torch.ops.flashinfer_swift`, which it can put in a graph.

`torch_ops` fills this in, at the first torch tensor or when this package is imported after torch. Without torch nothing is.
"""

from __future__ import annotations

from typing import Any, Callable


def _never() -> bool:
    return False


is_compiling: Callable[[], bool] = _never

#: `torch.ops.flashinfer_swift`.
ops: Any = None
