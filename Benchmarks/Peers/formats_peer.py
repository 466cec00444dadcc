#!/usr/bin/env python3
"""FlashInfer on the cases of `FlashInferBenchmarks cuda-cascade` and `cuda-block-sparse`, as JSON of the same keys.

    FlashInferBenchmarks cuda-cascade --list cascade.json          writes the cases (needs no GPU)
    FlashInferBenchmarks cuda-block-sparse --list sparse.json
    formats_peer.py cascade cascade.json --json peer.json          times MultiLevelCascadeAttentionWrapper, and plain decode
    formats_peer.py sparse sparse.json --json peer.json            times BlockSparseAttentionWrapper

Both of the peer's backends that a Hopper GPU has (fa2, fa3) are timed, and the faster one counts. Times are as in flashinfer_peer.py: of
CUDA graphs of several launches whose inputs rotate past the L2 cache. Plan times are medians of the host's.

Needs torch with CUDA, flashinfer-python 0.6.13 and nvcc; see Docs/gpu-machine.md.
"""

import argparse
import json
import statistics
import sys
import time

from flashinfer_peer import ROTATION_BYTES, timed

BACKENDS = ("fa2", "fa3")


def set_count(byte_count):
    return max(1, -(-ROTATION_BYTES // byte_count))


def plan_microseconds(plan):
    """The host's median, the device waited for: some plans copy from it."""
    import torch

    times = []
    for _ in range(9):
        torch.cuda.synchronize()
        start = time.perf_counter()
        plan()
        torch.cuda.synchronize()
        times.append((time.perf_counter() - start) * 1e6)
    return statistics.median(times)


def of_level(wrapper, backend):
    """Forces the backend of a cascade's levels, which its constructor does not take."""
    for level in wrapper._batch_prefill_wrappers:
        level._backend = backend


def cascade(case, workspace, samples):
    import flashinfer
    import torch

    prefix, own, batch, page = case["prefix"], case["own"], case["batch"], case["pageSize"]
    heads, kv_heads, dim = case["queryHeads"], case["kvHeads"], case["headDim"]
    pages = (prefix + batch * own) // page
    sets = set_count(4 * (prefix + batch * own) * kv_heads * dim)
    generator = torch.Generator().manual_seed(1)
    ids = torch.randperm(pages, generator=generator).to(torch.int32)
    shared, each = prefix // page, own // page
    queries = [torch.randn(batch, heads, dim, device="cuda", dtype=torch.bfloat16) for _ in range(sets)]
    caches = [torch.randn(pages, 2, page, kv_heads, dim, device="cuda", dtype=torch.bfloat16) for _ in range(sets)]
    rows = torch.arange(batch + 1, dtype=torch.int32)
    last = torch.full((batch,), page, dtype=torch.int32)
    tables = [ids[shared + b * each:shared + (b + 1) * each] for b in range(batch)]
    out = {}

    decode = flashinfer.BatchDecodeWithPagedKVCacheWrapper(workspace, "NHD", use_tensor_cores=True)
    decode.plan(
        rows * (shared + each), torch.cat([torch.cat([ids[:shared], table]) for table in tables]), last, heads, kv_heads, dim,
        page, q_data_type=torch.bfloat16, kv_data_type=torch.bfloat16)
    out["plain"] = timed(lambda i: decode.run(queries[i], caches[i]), sets, samples) * 1e6
    for backend in BACKENDS:
        wrapper = flashinfer.MultiLevelCascadeAttentionWrapper(2, workspace, "NHD")
        of_level(wrapper, backend)

        def plan():
            wrapper.plan(
                [torch.tensor([0, batch], dtype=torch.int32), rows], [torch.tensor([0, shared], dtype=torch.int32), rows * each],
                [ids[:shared], torch.cat(tables)], [last[:1], last], heads, kv_heads, dim, page, causal=True,
                q_data_type=torch.bfloat16)

        plan()
        out[backend] = timed(lambda i: wrapper.run(queries[i], caches[i]), sets, samples) * 1e6
        out[f"{backend} plan"] = plan_microseconds(plan)
    return out


def sparse(case, workspace, samples):
    import flashinfer
    import torch

    length, heads, dim = case["length"], case["heads"], case["headDim"]
    R, C = case["rowBlock"], case["columnBlock"]
    generator = torch.Generator().manual_seed(9)
    kept = torch.rand(length // R, length // C, generator=generator) < case["density"]
    kept[torch.arange(length // R), torch.arange(length // R) * R // C] = True
    indptr = torch.cat([torch.zeros(1), kept.sum(1).cumsum(0)]).to(torch.int32).cuda()
    indices = kept.nonzero()[:, 1].to(torch.int32).cuda()
    sets = set_count(8 * length * heads * dim)
    tensors = [[torch.randn(length, heads, dim, device="cuda", dtype=torch.bfloat16) for _ in range(3)] for _ in range(sets)]
    out = {"kept": kept.float().mean().item()}
    for backend in BACKENDS:
        wrapper = flashinfer.BlockSparseAttentionWrapper(workspace, backend=backend)

        def plan():
            wrapper.plan(
                indptr, indices, length, length, R, C, heads, heads, dim, causal=case["causal"], q_data_type=torch.bfloat16,
                o_data_type=torch.bfloat16)

        plan()
        out[backend] = timed(lambda i: wrapper.run(*tensors[i]), sets, samples) * 1e6
        out[f"{backend} plan"] = plan_microseconds(plan)
    return out


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=("cascade", "sparse"))
    parser.add_argument("cases")
    parser.add_argument("--json", required=True)
    parser.add_argument("--samples", type=int, default=7)
    parser.add_argument("--budget", type=float, default=300)
    options = parser.parse_args()
    import flashinfer
    import torch

    with open(options.cases) as file:
        cases = json.load(file)
    workspace = torch.zeros(256 << 20, dtype=torch.uint8, device="cuda")
    report = {"device": torch.cuda.get_device_name(), "peer": f"flashinfer {flashinfer.__version__}", "rows": {}, "failures": {}}
    start = time.perf_counter()
    for case in cases:
        if time.perf_counter() - start > options.budget:
            report["stopped"] = f"after {options.budget} s"
            break
        try:
            row = (cascade if options.kind == "cascade" else sparse)(case, workspace, options.samples)
            row["best"] = min(row[backend] for backend in BACKENDS if backend in row)
            report["rows"][case["key"]] = row
            print(case["key"], {name: round(value, 3) for name, value in row.items()})
        except Exception as error:
            report["failures"][case["key"]] = f"{type(error).__name__}: {error}"
        with open(options.json, "w") as file:
            json.dump(report, file, indent=1)
        torch.cuda.empty_cache()
    for key, text in report["failures"].items():
        print(f"{key}: {text}", file=sys.stderr)


if __name__ == "__main__":
    main()
