"""Operators for torch.compile: `torch.ops.flashinfer_swift.*`, with what they return worked out without running them.

Registered at the first torch tensor, or when this package is imported after torch; `import flashinfer_swift.torch_ops` and
`register()` do it at any time.
"""

from __future__ import annotations

import sys
from typing import Any, Callable

from . import _compile

_library: Any = None


def register(torch: Any = None) -> None:
    """Registers the operators, once."""
    global _library
    if _library is not None:
        return
    if torch is None:
        import torch
    if not hasattr(torch, "library") or not hasattr(torch.library, "register_fake"):
        return  # before torch 2.4 there is no torch.compile of such operators
    _library = torch.library.Library("flashinfer_swift", "DEF")
    tags = tuple(
        getattr(torch.Tag, name) for name in ("pt2_compliant_tag", "needs_fixed_stride_order") if hasattr(torch.Tag, name))
    for schema, implementation, fake in _operators(torch):
        name = schema.partition("(")[0]
        _library.define(schema, tags=tags)
        _library.impl(name, implementation, "CompositeExplicitAutograd")
        torch.library.register_fake(f"flashinfer_swift::{name}", fake, lib=_library)
    _compile.ops = torch.ops.flashinfer_swift
    _compile.is_compiling = torch.compiler.is_compiling


def register_if_torch_is_imported() -> None:
    torch = sys.modules.get("torch")
    if torch is not None and hasattr(torch, "Tensor"):
        register(torch)


def _nothing(*_: Any) -> None:
    return None


def _discard(_: Any) -> None:
    return None


_ROPE = (
    "int rotary_dim, bool interleave, int scaling, float rope_scale, float rope_theta, float low_freq_factor, "
    "float high_freq_factor, int context")


def _operators(torch: Any) -> list[tuple[str, Callable, Callable]]:
    from . import activation, cascade, decode, norm, page, prefill, quantization, rope, sampling
    from ._wrapper import wrappers

    def half_width(input: Any, function: int) -> Any:
        return input.new_empty((*input.shape[:-1], input.shape[-1] // 2))

    def act_and_mul_out(input: Any, out: Any, function: int) -> None:
        activation._act_and_mul(function, "act_and_mul", input, out)

    def rmsnorm_out(input: Any, weight: Any, eps: float, out: Any, offset: float) -> None:
        norm._rmsnorm(input, weight, eps, out, offset)

    def options(rotary_dim: int, interleave: bool, scaling: int, *rest: Any) -> Any:
        return rope.rope_options(rotary_dim or None, interleave, scaling, *rest)

    def rope_(q: Any, k: Any, pos_ids: Any, *given: Any) -> None:
        rope.rotate(q, k, pos_ids, options(*given), True)

    def rope_out(q: Any, k: Any, pos_ids: Any, *given: Any) -> Any:
        return rope.rotate(q, k, pos_ids, options(*given), False)

    def rope_ragged(q: Any, k: Any, indptr: Any, offsets: Any, *given: Any) -> Any:
        return rope.rotate(q, k, rope.ragged_positions(q, indptr, offsets), options(*given), False)

    def rope_ragged_(q: Any, k: Any, indptr: Any, offsets: Any, *given: Any) -> None:
        rope.rotate(q, k, rope.ragged_positions(q, indptr, offsets), options(*given), True)

    def like_both(q: Any, k: Any, *_: Any) -> Any:
        return torch.empty(q.shape, dtype=q.dtype, device=q.device), torch.empty(k.shape, dtype=k.dtype, device=k.device)

    def softmax(logits: Any, temperatures: Any, temperature: float) -> Any:
        return sampling.softmax(logits, temperatures if temperatures is not None else temperature)

    def merged(v: Any, s: Any, *_: Any) -> Any:
        return torch.empty(v.shape, dtype=v.dtype, device=v.device), v.new_empty(v.shape[:2], dtype=torch.float32)

    def merged_states(v: Any, s: Any) -> Any:
        return (
            v.new_empty((v.shape[0], v.shape[2], v.shape[3])),
            v.new_empty((v.shape[0], v.shape[2]), dtype=torch.float32))

    def append(
        key: Any, value: Any, batch_indices: Any, positions: Any, cache: Any, v_cache: Any, kv_indices: Any, kv_indptr: Any,
        kv_last_page_len: Any, kv_layout: str,
    ) -> None:
        page.append_paged_kv_cache(
            key, value, batch_indices, positions, cache if v_cache is None else (cache, v_cache), kv_indices, kv_indptr,
            kv_last_page_len, kv_layout)

    def single_decode(
        q: Any, k: Any, v: Any, kv_layout: str, mode: str, q_scale: Any, k_scale: Any, v_scale: Any, window_left: int, cap: Any,
        sm_scale: Any, rope_scale: Any, rope_theta: Any,
    ) -> Any:
        return decode.single_decode_with_kv_cache(
            q, k, v, kv_layout, mode, False, q_scale, k_scale, v_scale, window_left, cap, sm_scale, rope_scale, rope_theta, True)

    def single_prefill(
        q: Any, k: Any, v: Any, mask: Any, packed: Any, causal: bool, kv_layout: str, mode: str, sm_scale: Any,
        window_left: int, cap: Any, rope_scale: Any, rope_theta: Any,
    ) -> Any:
        return prefill.single_prefill_with_kv_cache(
            q, k, v, custom_mask=mask, packed_custom_mask=packed, causal=causal, kv_layout=kv_layout, pos_encoding_mode=mode,
            sm_scale=sm_scale, window_left=window_left, logits_soft_cap=cap, rope_scale=rope_scale, rope_theta=rope_theta,
            return_lse=True)

    def single_like(q: Any, k: Any, v: Any, *_: Any) -> Any:
        return (
            q.new_empty((*q.shape[:-1], v.shape[-1])), q.new_empty(q.shape[:-1], dtype=torch.float32))

    def attention_run(
        q: Any, k: Any, v: Any, out: Any, lse: Any, sinks: Any, q_scale: float, k_scale: float, v_scale: float, wrapper: int
    ) -> None:
        wrappers[wrapper]._run(
            q, k if v is None else (k, v), out, lse, lse is not None, sinks, q_scale or None, k_scale or None, v_scale or None)

    def packbits(x: Any, big: int) -> Any:
        return quantization.packbits(x, "big" if big else "little")

    def packed(x: Any, big: int) -> Any:
        return x.new_empty(((x.numel() + 7) // 8,), dtype=torch.uint8)

    return [
        ("act_and_mul(Tensor input, int function) -> Tensor",
         lambda input, function: activation._act_and_mul(function, "act_and_mul", input, None), half_width),
        ("act_and_mul_out(Tensor input, Tensor(a!) out, int function) -> ()", act_and_mul_out, _nothing),
        ("rmsnorm(Tensor input, Tensor weight, float eps, float weight_offset) -> Tensor",
         lambda input, weight, eps, offset: norm._rmsnorm(input, weight, eps, None, offset),
         lambda input, weight, eps, offset: torch.empty(input.shape, dtype=input.dtype, device=input.device)),
        ("rmsnorm_out(Tensor input, Tensor weight, float eps, Tensor(a!) out, float weight_offset) -> ()", rmsnorm_out, _nothing),
        ("fused_add_rmsnorm(Tensor(a!) input, Tensor(b!) residual, Tensor weight, float eps, float weight_offset) -> ()",
         norm._fused_add, _nothing),
        ("rmsnorm_quant(Tensor(a!) out, Tensor input, Tensor weight, Tensor? scale_tensor, float scale, float eps) -> ()",
         lambda out, input, weight, tensor, scale, eps: norm._quantised(
             out, input, None, weight, scale if tensor is None else tensor, eps), _nothing),
        ("fused_add_rmsnorm_quant(Tensor(a!) out, Tensor input, Tensor(b!) residual, Tensor weight, Tensor? scale_tensor, "
         "float scale, float eps) -> ()",
         lambda out, input, residual, weight, tensor, scale, eps: norm._quantised(
             out, input, residual, weight, scale if tensor is None else tensor, eps), _nothing),
        ("layernorm(Tensor input, Tensor gemma, Tensor beta, float eps) -> Tensor", norm._layernorm,
         lambda input, gemma, beta, eps: torch.empty(input.shape, dtype=input.dtype, device=input.device)),
        ("layernorm_quant(Tensor(a!) out, Tensor input, Tensor gemma, Tensor beta, Tensor? scale_tensor, float scale, float eps) "
         "-> ()",
         lambda out, input, gemma, beta, tensor, scale, eps: norm._layernorm_quantised(
             out, input, gemma, beta, scale if tensor is None else tensor, eps), _nothing),
        ("rope_by_table(Tensor positions, Tensor query, Tensor key, int head_size, Tensor cos_sin_cache, bool is_neox) -> "
         "(Tensor, Tensor)",
         lambda *given: rope.rotate_by_table(*given, False),
         lambda positions, query, key, *_: like_both(query, key)),
        ("rope_by_table_(Tensor positions, Tensor(a!) query, Tensor(b!) key, int head_size, Tensor cos_sin_cache, bool is_neox) "
         "-> ()", lambda *given: _discard(rope.rotate_by_table(*given, True)), _nothing),
        (f"rope(Tensor q, Tensor k, Tensor pos_ids, {_ROPE}) -> (Tensor, Tensor)", rope_out, like_both),
        (f"rope_(Tensor(a!) q, Tensor(b!) k, Tensor pos_ids, {_ROPE}) -> ()", rope_, _nothing),
        (f"rope_ragged(Tensor q, Tensor k, Tensor indptr, Tensor offsets, {_ROPE}) -> (Tensor, Tensor)", rope_ragged, like_both),
        (f"rope_ragged_(Tensor(a!) q, Tensor(b!) k, Tensor indptr, Tensor offsets, {_ROPE}) -> ()", rope_ragged_, _nothing),
        ("softmax(Tensor logits, Tensor? temperatures, float temperature) -> Tensor", softmax,
         lambda logits, temperatures, temperature: torch.empty(logits.shape, dtype=torch.float32, device=logits.device)),
        ("merge_state(Tensor v_a, Tensor s_a, Tensor v_b, Tensor s_b) -> (Tensor, Tensor)", cascade.merge_state, merged),
        ("merge_state_in_place(Tensor(a!) v, Tensor(b!) s, Tensor v_other, Tensor s_other, Tensor? mask) -> ()",
         cascade.merge_state_in_place, _nothing),
        ("merge_states(Tensor v, Tensor s) -> (Tensor, Tensor)", cascade.merge_states, merged_states),
        ("append_paged_kv_cache(Tensor append_key, Tensor append_value, Tensor batch_indices, Tensor positions, "
         "Tensor(a!) cache, Tensor(b!)? v_cache, Tensor kv_indices, Tensor kv_indptr, Tensor kv_last_page_len, str kv_layout) "
         "-> ()", append, _nothing),
        ("single_decode(Tensor q, Tensor k, Tensor v, str kv_layout, str pos_encoding_mode, float? q_scale, float? k_scale, "
         "float? v_scale, int window_left, float? logits_soft_cap, float? sm_scale, float? rope_scale, float? rope_theta) -> "
         "(Tensor, Tensor)", single_decode, single_like),
        ("single_prefill(Tensor q, Tensor k, Tensor v, Tensor? custom_mask, Tensor? packed_custom_mask, bool causal, "
         "str kv_layout, str pos_encoding_mode, float? sm_scale, int window_left, float? logits_soft_cap, float? rope_scale, "
         "float? rope_theta) -> (Tensor, Tensor)", single_prefill, single_like),
        ("attention_run(Tensor q, Tensor k, Tensor? v, Tensor(a!) out, Tensor(b!)? lse, Tensor? sinks, float q_scale, "
         "float k_scale, float v_scale, int wrapper) -> ()", attention_run, _nothing),
        ("packbits(Tensor x, int big) -> Tensor", packbits, packed),
    ]


__all__ = ["register", "register_if_torch_is_imported"]
