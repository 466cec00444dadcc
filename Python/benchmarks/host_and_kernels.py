#!/usr/bin/env python3
"""Times flashinfer_swift and, where it can be imported, FlashInfer, on the same torch tensors.

    python3 host_and_kernels.py [--device cuda|cpu] [--json FILE] [--peer NAME] [--quick]

* Host time of `plan`, of `run` and of single calls: wall time of the call alone, without waiting for the GPU, median of many. On the
  CPU `run` does its work before it returns, so the problem is as small as can be, and the time of the C call is measured beside it.
* Device time of decode and prefill: CUDA graphs of several launches whose caches rotate past the L2 cache, median of replays; on the
  CPU the wall time of a call.
"""

from __future__ import annotations

import argparse
import importlib
import json
import pathlib
import statistics
import sys
import time

try:
    import flashinfer_swift
except ImportError:
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
    import flashinfer_swift
import torch

#: Rotation must outrun the L2 cache of any GPU of today.
ROTATION_BYTES = 256 << 20
WORKSPACE_BYTES = 256 << 20


def host_time(call, device, repeats):
    """Microseconds of the call's own time: the GPU's queue is emptied now and then, so that it never fills up."""
    times = []
    for _ in range(20):
        call()
    for index in range(repeats):
        if device == "cuda" and index % 50 == 0:
            torch.cuda.synchronize()
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    if device == "cuda":
        torch.cuda.synchronize()
    return statistics.median(times) * 1e6


def device_time(calls, device):
    """Microseconds of one of `calls`, which take turns."""
    if device == "cpu":
        times = []
        for call in calls:
            call()
        end = time.perf_counter() + 0.5
        while time.perf_counter() < end or len(times) < 5:
            for call in calls:
                begin = time.perf_counter()
                call()
                times.append(time.perf_counter() - begin)
        return statistics.median(times) * 1e6
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for call in calls:
            call()
    stream.synchronize()
    launches = max(len(calls), 20)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        for index in range(launches):
            calls[index % len(calls)]()
    times = []
    for _ in range(3):
        graph.replay()
    for _ in range(15):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) * 1e3 / launches)
    return statistics.median(times)


class Tables:
    """A page table of a batch whose requests have these lengths, pages in random order."""

    def __init__(self, lengths, page_size, device):
        counts = [-(-length // page_size) for length in lengths]
        self.pages = sum(counts)
        self.indptr = torch.tensor([0, *torch.tensor(counts).cumsum(0).tolist()], dtype=torch.int32, device=device)
        self.indices = torch.randperm(self.pages, dtype=torch.int32).to(device)
        self.last = torch.tensor(
            [length - (count - 1) * page_size for length, count in zip(lengths, counts)], dtype=torch.int32, device=device)


def host_cases(library, device, quick):
    """Rows of host times."""
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    workspace = torch.zeros(WORKSPACE_BYTES if device == "cuda" else 1, dtype=torch.uint8, device=device)
    repeats = 300 if quick else 2000
    rows = {}
    batches = (1, 64, 256) if device == "cuda" else (1, 64)
    heads, kv_heads, dim, page = (32, 8, 128, 16) if device == "cuda" else (1, 1, 64, 16)
    for batch in batches:
        lengths = [page if device == "cpu" else 1024] * batch
        tables = Tables(lengths, page, device)
        host = Tables(lengths, page, "cpu")
        cache = torch.zeros(tables.pages, 2, page, kv_heads, dim, dtype=dtype, device=device)
        q = torch.zeros(batch, heads, dim, dtype=dtype, device=device)
        out = torch.empty_like(q)
        options = {"use_tensor_cores": True} if library is not flashinfer_swift else {}
        wrapper = library.BatchDecodeWithPagedKVCacheWrapper(workspace, "NHD", **options)

        def plan(table=tables):
            wrapper.plan(table.indptr, table.indices, table.last, heads, kv_heads, dim, page, q_data_type=dtype)

        plan()
        rows[f"plan, {batch} requests, tables on {device}"] = host_time(plan, device, repeats // 4)
        if device == "cuda":
            rows[f"plan, {batch} requests, tables on the host"] = host_time(lambda: plan(host), device, repeats // 4)
        plan()
        rows[f"run, {batch} requests"] = host_time(lambda: wrapper.run(q, cache), device, repeats)
        rows[f"run, {batch} requests, out="] = host_time(lambda: wrapper.run(q, cache, out=out), device, repeats)
        if library is flashinfer_swift and batch == 1:
            core = wrapper._core
            stream = torch.cuda.current_stream().cuda_stream if device == "cuda" else 0
            native = core.library.fi_attention_run
            rows["of run, 1 request: the C call"] = host_time(
                lambda: native(core.handle, stream, core._args_address), device, repeats)
    x, weight = torch.zeros(1, 64, dtype=dtype, device=device), torch.ones(64, dtype=dtype, device=device)
    residual = torch.zeros_like(x)
    rows["rmsnorm, one row"] = host_time(lambda: library.rmsnorm(x, weight), device, repeats)
    rows["fused_add_rmsnorm, one row"] = host_time(lambda: library.fused_add_rmsnorm(x, residual, weight), device, repeats)
    rows["silu_and_mul, one row"] = host_time(lambda: library.silu_and_mul(x), device, repeats)
    k = torch.zeros(16, 1, 64, dtype=dtype, device=device)
    single = torch.zeros(1, 64, dtype=dtype, device=device)
    rows["single_decode_with_kv_cache, 16 keys"] = host_time(
        lambda: library.single_decode_with_kv_cache(single, k, k), device, repeats // 4)
    return rows


def kernel_cases(library, device, quick):
    """Rows of device times: decode and causal prefill, 32/8 heads of 128, page 16."""
    dtype = torch.bfloat16
    heads, kv_heads, dim, page = (32, 8, 128, 16) if device == "cuda" else (8, 2, 128, 16)
    workspace = torch.zeros(WORKSPACE_BYTES if device == "cuda" else 1, dtype=torch.uint8, device=device)
    decodes = ((1, 4096), (16, 4096), (64, 4096), (128, 1024), (256, 1024)) if device == "cuda" else ((1, 512), (4, 512))
    prefills = ((1, 4096), (4, 2048), (16, 1024)) if device == "cuda" else ((1, 128),)
    if quick:
        decodes, prefills = decodes[:2], prefills[:1]
    rows = {}
    for batch, length in decodes:
        tables = Tables([length] * batch, page, device)
        size = tables.pages * 2 * page * kv_heads * dim * 2
        sets = max(1, -(-ROTATION_BYTES // size)) if device == "cuda" else 1
        caches = [torch.randn(tables.pages, 2, page, kv_heads, dim, device=device).to(dtype) for _ in range(min(sets, 40))]
        q = torch.randn(batch, heads, dim, device=device).to(dtype)
        out = torch.empty_like(q)
        options = {"use_tensor_cores": True} if library is not flashinfer_swift else {}
        wrapper = library.BatchDecodeWithPagedKVCacheWrapper(workspace, "NHD", **options)
        wrapper.plan(tables.indptr, tables.indices, tables.last, heads, kv_heads, dim, page, q_data_type=dtype)
        rows[f"decode, B {batch}, L {length}"] = device_time(
            [lambda cache=cache: wrapper.run(q, cache, out=out) for cache in caches], device)
    for batch, length in prefills:
        indptr = torch.arange(batch + 1, dtype=torch.int32, device=device) * length
        q, k, v = (torch.randn(batch * length, n, dim, device=device).to(dtype) for n in (heads, kv_heads, kv_heads))
        out = torch.empty_like(q)
        options = {"backend": "fa2"} if library is not flashinfer_swift else {}
        wrapper = library.BatchPrefillWithRaggedKVCacheWrapper(workspace, "NHD", **options)
        wrapper.plan(indptr, indptr, heads, kv_heads, dim, causal=True, q_data_type=dtype)
        rows[f"causal prefill, B {batch}, S {length}"] = device_time([lambda: wrapper.run(q, k, v, out=out)], device)
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=("cuda", "cpu"))
    parser.add_argument("--json", type=pathlib.Path)
    parser.add_argument("--peer", default="flashinfer", help="the peer's module; '' for none")
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    libraries = {"flashinfer_swift": flashinfer_swift}
    notes = []
    if arguments.peer and arguments.device == "cuda":
        try:
            libraries[arguments.peer] = importlib.import_module(arguments.peer)
        except Exception as error:
            notes.append(f"{arguments.peer} cannot be imported: {error}")
    elif arguments.peer:
        notes.append(f"{arguments.peer} has no CPU backend")
    results = {}
    for kind, cases in (("host", host_cases), ("device", kernel_cases)):
        results[kind] = {}
        for name, library in libraries.items():
            try:
                results[kind][name] = cases(library, arguments.device, arguments.quick)
            except Exception as error:
                if library is flashinfer_swift:
                    raise
                notes.append(f"{name}: {kind} times failed: {error}")
    machine = torch.cuda.get_device_name(0) if arguments.device == "cuda" else flashinfer_swift.info.device_name("cpu")
    print(f"{machine}, torch {torch.__version__}, flashinfer_swift {flashinfer_swift.__version__}; microseconds, medians\n")
    names = list(libraries)
    for kind, found in results.items():
        print(f"| {kind} time | " + " | ".join(names) + (" | ratio |" if len(names) > 1 else " |"))
        print("| --- |" + " ---: |" * (len(names) + (len(names) > 1)))
        for case, ours in found["flashinfer_swift"].items():
            cells = [f"{ours:.2f}"]
            for name in names[1:]:
                other = found.get(name, {}).get(case)
                cells.append("" if other is None else f"{other:.2f}")
                cells.append("" if other is None else f"{other / ours:.2f}")
            print(f"| {case} | " + " | ".join(cells) + " |")
        print()
    for note in notes:
        print("note:", note)
    if arguments.json:
        arguments.json.write_text(json.dumps(
            {"machine": machine, "torch": torch.__version__, "microseconds": results, "notes": notes}, indent=1))


if __name__ == "__main__":
    main()
