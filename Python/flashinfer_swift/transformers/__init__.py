"""Attention for Hugging Face transformers: this package's kernels behind `attn_implementation`, and a paged cache for `generate`.

    from flashinfer_swift.transformers import PagedKVCache, register

    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation=register())
    model.generate(**inputs, past_key_values=PagedKVCache())

With a ``PagedKVCache`` keys and values lie in pages, without padding, and each pass is planned once for all its layers. Without one,
whatever cache the model uses hands over dense keys and values, which are read in place. On a GPU ``capture_decoding(model)`` makes
decoding with a ``PagedKVCache`` replay CUDA graphs.

Left padding, several prompts, beams, sampling, assisted decoding, sliding windows, soft caps, grouped heads, sinks and masks that
show or hide work; rows of padding get zeros. What does not work raises an error that says so: dropout, backward passes,
`output_attentions`, biases that are added to logits, transformers' continuous batching, and types that the device has no kernels for
(on GPUs: float32).

Needs torch and transformers 5. Importing `flashinfer_swift` does not import this.
"""

from __future__ import annotations

import torch
from transformers import AttentionInterface, AttentionMaskInterface

from ..errors import InvalidArgumentError
from ._attention import attention_forward
from ._cache import PagedKVCache
from ._graphs import GraphDecoding, capture_decoding
from ._mask import batch_mask

#: What ``register`` calls this attention. transformers takes a name with "flash" in it for a package of kernels that it must import.
NAME = "fi_swift"


def register(name: str = NAME) -> str:
    """Makes this attention known to transformers; returns its name, for ``attn_implementation``. May be called again."""
    if "flash" in name or "|" in name or "/" in name:
        raise InvalidArgumentError(
            f'name is {name!r}, but transformers takes names with "flash", "|" or "/" for kernels that it must import; {NAME!r} works')
    # Plans are made on the host and kernels launched by the C library, which a traced graph cannot hold.
    AttentionInterface.register(name, torch.compiler.disable(attention_forward))
    AttentionMaskInterface.register(name, batch_mask)
    return name


__all__ = ["NAME", "GraphDecoding", "PagedKVCache", "attention_forward", "batch_mask", "capture_decoding", "register"]
