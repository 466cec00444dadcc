"""Multi-head latent attention (DeepSeek). The library has no kernel of its own for it yet."""

from __future__ import annotations

from typing import Any

from .errors import unsupported

_REASON = "there is no kernel for latent attention with separate ckv and kpe caches"
_INSTEAD = (
    "BatchAttention or BatchPrefillWithPagedKVCacheWrapper on decompressed keys and values (head_dim_qk 192, head_dim_vo 128)")


class BatchMLAPagedAttentionWrapper:
    """Raises ``NotImplementedError``."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise unsupported("BatchMLAPagedAttentionWrapper", _REASON, _INSTEAD)


class BatchDecodeMlaWithPagedKVCacheWrapper:
    """Raises ``NotImplementedError``."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise unsupported("BatchDecodeMlaWithPagedKVCacheWrapper", _REASON, _INSTEAD)


def append_paged_mla_kv_cache(*args: Any, **kwargs: Any) -> None:
    """Raises ``NotImplementedError``."""
    raise unsupported("append_paged_mla_kv_cache", "there is no append to ckv and kpe caches", "append_paged_kv_cache")


__all__ = ["BatchDecodeMlaWithPagedKVCacheWrapper", "BatchMLAPagedAttentionWrapper", "append_paged_mla_kv_cache"]
