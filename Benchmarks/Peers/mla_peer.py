#!/usr/bin/env python3
"""FlashInfer's latent attention on the cases of `FlashInferBenchmarks cuda-mla`, as JSON of the same keys.

    FlashInferBenchmarks cuda-mla --list cases.json     writes the cases (needs no GPU)
    mla_peer.py cases.json --json peer.json             times them with the backend that the peer takes for the GPU

Times are of CUDA graphs of several launches whose inputs rotate past the L2 cache: the median of several replays, as the benchmark
itself does. float8 caches need queries of bfloat16 and one scale, 1. Needs torch with CUDA, flashinfer-python and nvcc.
"""

import argparse
import json
import math
import statistics
import time

ROTATION_BYTES = 256 << 20
REPLAY_SECONDS = 0.02
MAXIMUM_LAUNCHES = 400


def measure(case, samples, backend):
    import torch
    from flashinfer.mla import BatchMLAPagedAttentionWrapper

    batch, queries, keys, heads, page = (case[k] for k in ("batch", "queryLength", "kvLength", "heads", "pageSize"))
    kv_type = torch.bfloat16 if case["kvType"] == "bfloat16" else torch.float8_e4m3fn
    each = -(-keys // page)
    pages = each * batch
    torch.manual_seed(0)
    workspace = torch.empty(128 << 20, dtype=torch.int8, device="cuda")
    wrapper = BatchMLAPagedAttentionWrapper(workspace, backend=backend)
    arange = torch.arange(batch + 1, dtype=torch.int32, device="cuda")
    wrapper.plan(
        arange * queries, arange * each, torch.randperm(pages, device="cuda").int(),
        torch.full((batch,), keys, dtype=torch.int32, device="cuda"), heads, 512, 64, page, True, 1 / math.sqrt(192),
        torch.bfloat16, kv_type)
    bytes_of_set = pages * page * 576 * kv_type.itemsize + 2 * batch * queries * heads * 576 * 2
    sets = []
    for _ in range(max(1, -(-ROTATION_BYTES // bytes_of_set))):
        sets.append((
            torch.randn(batch * queries, heads, 512, dtype=torch.bfloat16, device="cuda"),
            torch.randn(batch * queries, heads, 64, dtype=torch.bfloat16, device="cuda"),
            torch.randn(pages, page, 512, dtype=torch.bfloat16, device="cuda").to(kv_type),
            torch.randn(pages, page, 64, dtype=torch.bfloat16, device="cuda").to(kv_type)))
    out = torch.empty_like(sets[0][0])
    scales = {} if kv_type == torch.bfloat16 else {"ckv_scale": 1.0, "kpe_scale": 1.0}

    def launch(index):
        wrapper.run(*sets[index % len(sets)], out=out, **scales)

    for index in range(3):
        launch(index)
    torch.cuda.synchronize()
    start = time.perf_counter()
    for index in range(4):
        launch(index)
    torch.cuda.synchronize()
    estimate = (time.perf_counter() - start) / 4
    launches = max(len(sets), min(MAXIMUM_LAUNCHES, math.ceil(REPLAY_SECONDS / estimate)))
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for index in range(launches):
            launch(index)
    for _ in range(2):
        graph.replay()
    torch.cuda.synchronize()
    times = []
    for _ in range(samples):
        start = time.perf_counter()
        graph.replay()
        torch.cuda.synchronize()
        times.append((time.perf_counter() - start) / launches)
    seconds = statistics.median(times)
    seen = batch * (queries * keys - queries * (queries - 1) / 2)
    return {
        "key": case["key"], "microseconds": seconds * 1e6, "teraflops": 2 * heads * 1088 * seen / seconds / 1e12,
        "gigabytesPerSecond": batch * keys * 576 * kv_type.itemsize / seconds / 1e9,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", help="what cuda-mla --list wrote")
    parser.add_argument("--json", help="write the figures to this file")
    parser.add_argument("--samples", type=int, default=7)
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--filter", default="", help="only cases whose name contains this")
    arguments = parser.parse_args()
    with open(arguments.cases) as file:
        cases = [case for case in json.load(file) if arguments.filter in case["key"]]
    rows, failures = [], {}
    for case in cases:
        try:
            row = measure(case, arguments.samples, arguments.backend)
            rows.append(row)
            print(f"{row['key']:40} {row['microseconds']:8.1f} us {row['teraflops']:6.0f} TFLOP/s "
                  f"{row['gigabytesPerSecond']:6.0f} GB/s", flush=True)
        except Exception as error:  # a case that the peer refuses is a finding, not the end
            failures[case["key"]] = str(error).splitlines()[0] if str(error) else type(error).__name__
            print(f"{case['key']:40} {failures[case['key']]}", flush=True)
    if arguments.json:
        with open(arguments.json, "w") as file:
            json.dump({"rows": rows, "failures": failures}, file, indent=1)


if __name__ == "__main__":
    main()
