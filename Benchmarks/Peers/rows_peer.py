#!/usr/bin/env python3
"""FlashInfer's small operations, and PyTorch's where FlashInfer has none, on the cases of `FlashInferBenchmarks cuda-rows`.

    rows_peer.py --build                                   compiles FlashInfer's modules, side by side
    rows_peer.py --json peer-rows.json [--ours rows.json] [--tokens 1,64,4096] [--filter rope] [--limit 60]

Times are of CUDA graphs of several launches whose tensors rotate past the L2 cache where a set of them is large enough for that: the
median of several replays, as the benchmark has them. Names, token counts, `byteCount` and `microseconds` of the JSON are those of
cuda-rows; bytes are each input and each output once. With --ours, its JSON, each line has the ratio of the peer's time to ours.

What stands for an operation that the peer does in several calls is all of them, in their order: a rotation and an append, two norms and a
rotation. Where PyTorch stands for it, that is said: a chain of its own operations, as eager code has it.

Each figure is printed and written as soon as it is there, and after --limit seconds from the start none is begun. Needs torch with CUDA,
flashinfer-python 0.6.13 and, unless its modules are there, nvcc.
"""

import argparse
import json
import math
import sys
import time

from figures import START, Figures, say
from flashinfer_peer import MAXIMUM_LAUNCHES, ROTATION_BYTES, build_side_by_side, timed

# An 8B decoder's shapes, and latent attention's.
WIDTH, GATE, QUERY_HEADS, HEADS, DIM, PAGE = 4096, 14336, 32, 8, 128, 16
LATENT_HEADS, LATENT, ROTARY = 128, 512, 64
GROUP, TABLE_ROWS, SCALE = 128, 32768, 0.05


class Memory:
    """Tensors of one set, and how many bytes of inputs and outputs they are."""

    def __init__(self):
        self.bytes = 0

    def input(self, *shape, counts=True):
        import torch

        return self.counted(torch.randn(*shape, dtype=torch.bfloat16, device="cuda"), counts)

    def output(self, dtype, *shape, counts=True):
        import torch

        return self.counted(torch.empty(*shape, dtype=dtype, device="cuda"), counts)

    def counted(self, tensor, counts=True):
        self.bytes += tensor.numel() * tensor.element_size() if counts else 0
        return tensor


class Shared:
    """What all sets read alike: weights, a table of rotations, places in a cache."""

    def __init__(self):
        import torch

        self.weight = torch.randn(WIDTH, dtype=torch.bfloat16, device="cuda")
        self.head_weight = torch.randn(DIM, dtype=torch.bfloat16, device="cuda")
        self.floats = torch.randn(2, WIDTH, device="cuda")
        self.table = torch.rand(TABLE_ROWS, DIM, device="cuda")
        self.rotary_table = torch.rand(TABLE_ROWS, ROTARY, device="cuda")
        self.scale = torch.full((1,), SCALE, device="cuda")

    def positions(self, tokens):
        import torch

        return torch.arange(1000, 1000 + tokens, dtype=torch.int32, device="cuda")

    def places(self, tokens):
        """One request whose pages are in another order than its tokens: (pages, batch_indices, positions, indices, indptr, last)."""
        import torch

        pages = -(-tokens // PAGE)
        # 7919 is a prime above the number of pages.
        indices = torch.tensor([i * 7919 % pages for i in range(pages)], dtype=torch.int32, device="cuda")
        ends = [torch.tensor(x, dtype=torch.int32, device="cuda") for x in ([0, pages], [tokens - PAGE * (pages - 1)])]
        rows = torch.arange(tokens, dtype=torch.int32, device="cuda")
        return pages, torch.zeros_like(rows), rows, indices, *ends


def norms(shared):
    import flashinfer
    import flashinfer.norm as peer
    import torch
    import torch.nn.functional as F

    fp8 = torch.float8_e4m3fn

    def rmsnorm(tokens, memory):
        x, out = memory.input(tokens, WIDTH), memory.output(torch.bfloat16, tokens, WIDTH)
        return lambda: flashinfer.rmsnorm(x, shared.weight, out=out)

    def gemma(tokens, memory):
        x, out = memory.input(tokens, WIDTH), memory.output(torch.bfloat16, tokens, WIDTH)
        return lambda: flashinfer.gemma_rmsnorm(x, shared.weight, out=out)

    def added(tokens, memory):
        x, residual = memory.input(tokens, WIDTH), memory.input(tokens, WIDTH)
        # Both are written as well.
        memory.bytes *= 2
        return lambda: flashinfer.fused_add_rmsnorm(x, residual, shared.weight)

    def quantised(tokens, memory):
        x, out = memory.input(tokens, WIDTH), memory.output(fp8, tokens, WIDTH)
        return lambda: peer.rmsnorm_quant(out, x, shared.weight, shared.scale)

    def by_group(tokens, memory):
        x, mid = memory.input(tokens, WIDTH), memory.output(torch.bfloat16, tokens, WIDTH, counts=False)
        memory.bytes += tokens * (WIDTH + 4 * WIDTH // GROUP)

        def run():
            flashinfer.rmsnorm(x, shared.weight, out=mid)
            return quantise_groups(mid, GROUP)

        return run

    def layernorm(tokens, memory):
        x = memory.input(tokens, WIDTH)
        memory.bytes *= 2
        return lambda: flashinfer.layernorm(x, shared.floats[0], shared.floats[1])

    return [
        ("rmsnorm h4096", "flashinfer", rmsnorm), ("fused_add_rmsnorm h4096", "flashinfer", added),
        ("gemma_rmsnorm h4096", "flashinfer", gemma), ("rmsnorm to fp8 h4096", "flashinfer", quantised),
        ("rmsnorm to fp8 by 128 h4096", "flashinfer + torch", by_group),
        ("layernorm h4096", "flashinfer", layernorm),
    ]


def quantise(x, scale):
    """Of one scale, as eager PyTorch has it."""
    import torch

    return (x.float() / scale).clamp(-448, 448).to(torch.float8_e4m3fn)


def quantise_groups(x, group):
    """Scales of groups of a row, or of whole rows, as eager PyTorch has it."""
    import torch

    parts = x.float().view(x.shape[0], -1, group)
    scale = parts.abs().amax(-1, keepdim=True) / 448
    return (parts / scale).to(torch.float8_e4m3fn).view_as(x), scale.squeeze(-1)


def activations(shared):
    import flashinfer
    import torch

    fp8 = torch.float8_e4m3fn

    def gated(call):
        def make(tokens, memory):
            x, out = memory.input(tokens, 2 * GATE), memory.output(torch.bfloat16, tokens, GATE)
            return lambda: call(x, out=out)

        return make

    def gated_groups(group):
        def make(tokens, memory):
            x, mid = memory.input(tokens, 2 * GATE), memory.output(torch.bfloat16, tokens, GATE, counts=False)
            memory.bytes += tokens * (GATE + 4 * GATE // group)

            def run():
                flashinfer.silu_and_mul(x, out=mid)
                return quantise_groups(mid, group)

            return run

        return make

    def one_scale(tokens, memory):
        x = memory.input(tokens, WIDTH)
        memory.bytes += tokens * WIDTH
        return lambda: quantise(x, shared.scale)

    def groups(group):
        def make(tokens, memory):
            x = memory.input(tokens, WIDTH)
            memory.bytes += tokens * (WIDTH + 4 * WIDTH // group)
            return lambda: quantise_groups(x, group)

        return make

    return [
        ("silu_and_mul 14336", "flashinfer", gated(flashinfer.silu_and_mul)),
        ("gelu_and_mul 14336", "flashinfer", gated(flashinfer.gelu_and_mul)),
        ("silu_and_mul to fp8 by row 14336", "flashinfer + torch", gated_groups(GATE)),
        ("silu_and_mul to fp8 by 128 14336", "flashinfer + torch", gated_groups(GROUP)),
        ("quantize to fp8 h4096", "torch", one_scale), ("quantize to fp8 by row h4096", "torch", groups(WIDTH)),
        ("quantize to fp8 by 128 h4096", "torch", groups(GROUP)),
    ]


def rotations(shared):
    import flashinfer
    import flashinfer.rope as peer
    import torch

    fp8 = torch.float8_e4m3fn

    def heads(tokens, memory):
        return memory.input(tokens, QUERY_HEADS, DIM), memory.input(tokens, HEADS, DIM)

    def rope(tokens, memory):
        q, k = heads(tokens, memory)
        memory.bytes *= 2
        positions = shared.positions(tokens)
        return lambda: flashinfer.apply_rope_pos_ids_inplace(q, k, positions)

    def tabled(tokens, memory):
        q, k = heads(tokens, memory)
        memory.bytes *= 2
        positions = shared.positions(tokens)
        return lambda: flashinfer.apply_rope_with_cos_sin_cache_inplace(
            positions, q.view(tokens, -1), k.view(tokens, -1), DIM, shared.table)

    def normalised(tokens, memory):
        q, k = heads(tokens, memory)
        memory.bytes *= 2
        positions = shared.positions(tokens)

        def run():
            flashinfer.rmsnorm(q, shared.head_weight, out=q)
            flashinfer.rmsnorm(k, shared.head_weight, out=k)
            flashinfer.apply_rope_pos_ids_inplace(q, k, positions)

        return run

    def appended(is_normalised):
        def make(tokens, memory):
            q, k = heads(tokens, memory)
            v = memory.input(tokens, HEADS, DIM)
            memory.bytes *= 2
            pages, batches, rows, indices, indptr, last = shared.places(tokens)
            cache = memory.output(torch.bfloat16, pages, 2, PAGE, HEADS, DIM, counts=False)
            positions = shared.positions(tokens)

            def run():
                if is_normalised:
                    flashinfer.rmsnorm(q, shared.head_weight, out=q)
                    flashinfer.rmsnorm(k, shared.head_weight, out=k)
                flashinfer.apply_rope_pos_ids_inplace(q, k, positions)
                flashinfer.append_paged_kv_cache(k, v, batches, rows, cache, indices, indptr, last)

            return run

        return make

    def appended_fp8(tokens, memory):
        # The peer's has queries of float8 as well, where ours are bfloat16.
        q, k = heads(tokens, memory)
        v = memory.input(tokens, HEADS, DIM)
        pages, batches, rows, indices, indptr, _ = shared.places(tokens)
        caches = tuple(memory.output(fp8, pages, PAGE, HEADS, DIM) for _ in range(2))
        out = memory.output(fp8, tokens, QUERY_HEADS, DIM)
        nothing = memory.output(fp8, tokens, QUERY_HEADS, 0)
        positions = shared.positions(tokens)
        return lambda: peer.rope_quantize_fp8_append_paged_kv_cache(
            q, k, None, None, v, shared.table, positions, caches, indices, indptr, batches, rows, page_size=PAGE,
            q_rope_out=out, q_nope_out=nothing)

    def latent(tokens, memory):
        q_rope, q_nope = memory.input(tokens, LATENT_HEADS, ROTARY), memory.input(tokens, LATENT_HEADS, LATENT)
        k_rope, k_nope = memory.input(tokens, ROTARY), memory.input(tokens, LATENT)
        pages, batches, rows, indices, indptr, _ = shared.places(tokens)
        caches = memory.output(fp8, pages, PAGE, LATENT), memory.output(fp8, pages, PAGE, ROTARY)
        outs = memory.output(fp8, tokens, LATENT_HEADS, ROTARY), memory.output(fp8, tokens, LATENT_HEADS, LATENT)
        positions = shared.positions(tokens)
        return lambda: peer.rope_quantize_fp8_append_paged_kv_cache(
            q_rope, k_rope, q_nope, k_nope, None, shared.rotary_table, positions, caches, indices, indptr, batches, rows,
            page_size=PAGE, q_rope_out=outs[0], q_nope_out=outs[1])

    return [
        ("rope 32q+8k d128", "flashinfer", rope), ("rope_cos_sin_cache 32q+8k d128", "flashinfer", tabled),
        ("qk_norm_rope 32q+8k d128", "flashinfer", normalised),
        ("rope_append 32q+8k d128", "flashinfer", appended(False)),
        ("rope_append fp8 32q+8k d128", "flashinfer", appended_fp8),
        ("qk_norm_rope_append 32q+8k d128", "flashinfer", appended(True)),
        ("mla rope_quantize_append fp8 128q 512+64", "flashinfer", latent),
    ]


def caches(shared):
    import flashinfer
    import flashinfer.page as peer
    import torch

    def append(tokens, memory):
        k, v = memory.input(tokens, HEADS, DIM), memory.input(tokens, HEADS, DIM)
        pages, batches, rows, indices, indptr, last = shared.places(tokens)
        cache = memory.output(torch.bfloat16, pages, 2, PAGE, HEADS, DIM)
        return lambda: flashinfer.append_paged_kv_cache(k, v, batches, rows, cache, indices, indptr, last)

    def append_latent(tokens, memory):
        c, r = memory.input(tokens, LATENT), memory.input(tokens, ROTARY)
        pages, batches, rows, indices, indptr, last = shared.places(tokens)
        pair = memory.output(torch.bfloat16, pages, PAGE, LATENT), memory.output(torch.bfloat16, pages, PAGE, ROTARY)
        return lambda: peer.append_paged_mla_kv_cache(c, r, batches, rows, *pair, indices, indptr, last)

    def merge(tokens, memory):
        a, b = (memory.input(tokens, QUERY_HEADS, DIM) for _ in range(2))
        lse = [memory.counted(torch.rand(tokens, QUERY_HEADS, device="cuda"), False) for _ in range(2)]
        # What is returned: values and sums.
        memory.bytes += tokens * QUERY_HEADS * (2 * DIM + 4)
        return lambda: flashinfer.merge_state(a, lse[0], b, lse[1])

    def pack(tokens, memory):
        flags = memory.counted(torch.rand(tokens * WIDTH, device="cuda") < 0.5)
        memory.bytes += tokens * WIDTH // 8
        return lambda: flashinfer.packbits(flags, bitorder="little")

    return [
        ("append_paged_kv_cache 8kv d128", "flashinfer", append),
        ("append_paged_mla_kv_cache 512+64", "flashinfer", append_latent),
        ("merge_state 32x128", "flashinfer", merge), ("packbits 4096 a token", "flashinfer", pack),
    ]


def build():
    """Compiles the modules at once, each of which would else be compiled when it is first called."""
    from flashinfer.jit import activation, cascade, norm, page, quantization, rope

    specs = [norm.gen_norm_module(), rope.gen_rope_module(), page.gen_page_module(), cascade.gen_cascade_module(),
             quantization.gen_quantization_module(), activation.gen_act_and_mul_module("silu"),
             activation.gen_act_and_mul_module("gelu")]
    build_side_by_side(specs)
    say(f"compiled {', '.join(spec.name for spec in specs)}")


class Results(Figures):
    def measure(self, name, library, tokens, make, samples):
        try:
            memory = Memory()
            runs = [make(tokens, memory)]
            count = memory.bytes
            sets = max(1, min(MAXIMUM_LAUNCHES, -(-ROTATION_BYTES // count)))
            runs += [make(tokens, Memory()) for _ in range(sets - 1)]
            microseconds = timed(lambda i: runs[i](), sets, samples) * 1e6
            self.rows.append({
                "name": name, "library": library, "tokens": tokens, "byteCount": count, "microseconds": microseconds,
                "gigabytesPerSecond": count / microseconds / 1e3})
            own = self.ours.get((name, tokens))
            if own:
                self.rows[-1]["peerOverOurs"] = microseconds / own
            ratio = f"  ours {own:8.2f}  {microseconds / own:5.2f}x" if own else ""
            say(f"{name:42s} {library:18s} {tokens:5d} {microseconds:8.2f} us {count / microseconds / 1e3:6.0f} GB/s{ratio}")
        except Exception as error:
            self.refused(f"{library} {name} {tokens}", f"{name:42s} {library:18s} {tokens:5d}", error)
        self.write()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", action="store_true", help="compile the peer's modules and end")
    parser.add_argument("--json", help="write the figures to this file")
    parser.add_argument("--ours", help="JSON of FlashInferBenchmarks cuda-rows")
    parser.add_argument("--tokens", default="1,64,4096")
    parser.add_argument("--samples", type=int, default=5)
    parser.add_argument("--filter", default="", help="only cases whose name contains this")
    parser.add_argument("--limit", type=float, default=math.inf, help="seconds from the start after which nothing is begun")
    arguments = parser.parse_args()
    if arguments.build:
        build()
        return 0
    import torch

    torch.manual_seed(0)
    ours = {}
    if arguments.ours:
        with open(arguments.ours) as file:
            ours = {(row["name"], row["tokens"]): row["microseconds"] for row in json.load(file)["rows"]}
    results, shared = Results(arguments.json, ours), Shared()
    cases = norms(shared) + activations(shared) + rotations(shared) + caches(shared)
    left = []
    for name, library, make in cases:
        for tokens in (int(x) for x in arguments.tokens.split(",")):
            if arguments.filter not in name:
                continue
            if time.perf_counter() - START > arguments.limit:
                left.append(f"{name} {tokens}")
                continue
            results.measure(name, library, tokens, make, arguments.samples)
    results.write()
    say(f"done; not measured for want of time: {', '.join(left) or 'nothing'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
