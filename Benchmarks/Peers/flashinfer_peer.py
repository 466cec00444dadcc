#!/usr/bin/env python3
"""FlashInfer on the cases of `FlashInferBenchmarks cuda-attention`, as JSON of the same keys.

    FlashInferBenchmarks cuda-attention --list cases.json     writes the cases (needs no GPU)
    flashinfer_peer.py build cases.json                       compiles the modules they need, all at once
    flashinfer_peer.py run cases.json --json peer.json        times them

Prefill runs the fa2 and fa3 backends and, over ragged requests of one length, PyTorch's cuDNN attention; fa3 alone where queries are
float8, as it is the one that takes them. Decode runs the tensor-core kernel (fa2), the CUDA-core kernel and BatchAttention. The
fastest is reported, with all of them beside it. --only names the kernels to run. Times are of CUDA graphs of several launches whose inputs rotate past the L2 cache: the median
of several replays, as the benchmark itself does. Ceilings (copy, read, matrix product) are PyTorch's, in the same run.

Needs torch with CUDA, flashinfer-python 0.6.13 and nvcc; see Docs/gpu-machine.md.
"""

import argparse
import json
import math
import os
import statistics
import sys
import time

# Rotation must outrun the L2 cache of any GPU of today.
ROTATION_BYTES = 256 << 20
# A replay lasts about this long, so that its launch is lost in it.
REPLAY_SECONDS = 0.02
MAXIMUM_LAUNCHES = 400
CUDA_CORE_GROUPS = (1, 2, 3, 4, 6, 8)
ELEMENT_BYTES = {"float16": 2, "bfloat16": 2, "float8-e4m3": 1, "float8-e5m2": 1, "int8": 1, "float32": 4}


def running_sum(lengths):
    """[3, 5] -> [0, 3, 8]"""
    sums = [0]
    for length in lengths:
        sums.append(sums[-1] + length)
    return sums


def page_counts(lengths, page_size):
    return [-(-length // page_size) for length in lengths]


def set_bytes(case):
    """Bytes of one set of inputs and outputs of a case."""
    query = sum(case["queryLengths"]) * case["queryHeads"] * case["headDim"] * max(ELEMENT_BYTES[case["queryType"]], 2)
    if case["pageSize"]:
        rows = sum(page_counts(case["kvLengths"], case["pageSize"])) * case["pageSize"]
    else:
        rows = sum(case["kvLengths"])
    return 2 * query + 2 * rows * case["kvHeads"] * case["headDim"] * ELEMENT_BYTES[case["kvType"]]


def set_count(case):
    """How many sets of inputs outrun the cache."""
    return max(1, -(-ROTATION_BYTES // set_bytes(case)))


def launch_count(sets, seconds):
    """Launches of a graph: all sets at least once, and enough to last."""
    return max(sets, min(MAXIMUM_LAUNCHES, math.ceil(REPLAY_SECONDS / seconds)))


def is_decode(case):
    return case["kind"] == "decode"


def kernels(case, only=()):
    """The peers' kernels that can run a case."""
    return [name for name in possible_kernels(case) if not only or name in only]


def possible_kernels(case):
    if case["kvType"] == "int8":
        return []
    if case["queryType"] == "float8-e4m3":
        return [] if is_decode(case) else ["fa3"]
    if not is_decode(case):
        names = ["fa2"]
        if case["kvType"] == case["queryType"] and case["headDim"] in (64, 128, 256):
            names.append("fa3")
            if not case["pageSize"] and len(set(case["queryLengths"] + case["kvLengths"])) == 1:
                names.append("cuDNN")
        return names
    names = ["tensor-core"]
    if case["queryHeads"] // case["kvHeads"] in CUDA_CORE_GROUPS:
        names.append("cuda-core")
    if case["kvType"] == case["queryType"]:
        names.append("BatchAttention")
    return names


def module_keys(cases, only=()):
    """(kernel, query type, cache type, head dim) of every module the cases need, each once."""
    found = []
    for case in cases:
        for kernel in kernels(case, only):
            if kernel == "cuDNN":
                continue
            # Tensor-core decode is the prefill module with one query a request.
            family = "fa2" if kernel == "tensor-core" else kernel
            key = (family, case["queryType"], case["kvType"], case["headDim"])
            if key not in found:
                found.append(key)
    return found


def torch_type(name):
    import torch

    return {
        "float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32,
        "float8-e4m3": torch.float8_e4m3fn, "float8-e5m2": torch.float8_e5m2,
    }[name]


def output_type(query):
    """Of queries; what the peer's own tests give out of float8 ones is float16."""
    import torch

    return torch.float16 if query.itemsize == 1 else query


def build_side_by_side(specs):
    """Each by its own ninja: of what is built together, each wrapper later finds no record and builds it again."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(max(1, len(specs))) as pool:
        list(pool.map(lambda spec: spec.build(verbose=False), specs))


def build(cases, only):
    import torch
    from flashinfer.jit.attention import (
        gen_batch_attention_module, gen_batch_decode_module, gen_batch_prefill_module)

    specs = []
    for kernel, query, kv, dim in module_keys(cases, only):
        query, kv = torch_type(query), torch_type(kv)
        if kernel in ("fa2", "fa3"):
            specs.append(gen_batch_prefill_module(
                kernel, query, kv, output_type(query), torch.int32, dim, dim, 0, False, False, False))
        elif kernel == "cuda-core":
            specs.append(gen_batch_decode_module(query, kv, query, torch.int32, dim, dim, 0, False, False))
        else:
            specs.append(gen_batch_attention_module(query, kv, query, torch.int32, dim, dim, 0, False, False))
    start = time.perf_counter()
    build_side_by_side(specs)
    print(f"{len(specs)} modules in {time.perf_counter() - start:.1f} s")
    for spec in specs:
        print(spec.name)


class Inputs:
    """The tensors of a case, `sets` times."""

    def __init__(self, case):
        import torch

        self.case = case
        self.sets = set_count(case)
        query, kv = torch_type(case["queryType"]), torch_type(case["kvType"])
        tokens, heads, dim = sum(case["queryLengths"]), case["kvHeads"], case["headDim"]

        def random(shape, dtype):
            if dtype.itemsize >= 2:
                return torch.randn(shape, dtype=dtype, device="cuda")
            tensor = torch.empty(shape, dtype=dtype, device="cuda")
            flat = tensor.view(-1)
            for start in range(0, flat.numel(), 1 << 26):
                part = flat[start:start + (1 << 26)]
                part.copy_(torch.randn(part.shape, dtype=torch.bfloat16, device="cuda"))
            return tensor

        self.queries = [random((tokens, case["queryHeads"], dim), query) for _ in range(self.sets)]
        self.outputs = [torch.empty_like(q, dtype=output_type(query)) for q in self.queries]
        # One a head, as the peer takes them.
        self.scales = [torch.ones(count, dtype=torch.float32, device="cuda") for count in (case["queryHeads"], heads, heads)]
        # The same order of pages as the benchmark has: a random permutation.
        if case["pageSize"]:
            counts = page_counts(case["kvLengths"], case["pageSize"])
            pages = sum(counts)
            shape = (pages, 2, case["pageSize"], heads, dim)
            self.caches = [random(shape, kv) for _ in range(self.sets)]
            generator = torch.Generator().manual_seed(1)
            self.indices = torch.randperm(pages, generator=generator).to(torch.int32)
            self.page_indptr = torch.tensor(running_sum(counts), dtype=torch.int32)
            self.last_page = torch.tensor(
                [(n - 1) % case["pageSize"] + 1 for n in case["kvLengths"]], dtype=torch.int32)
        else:
            rows = sum(case["kvLengths"])
            self.keys = [random((rows, heads, dim), kv) for _ in range(self.sets)]
            self.values = [random((rows, heads, dim), kv) for _ in range(self.sets)]
        self.query_indptr = torch.tensor(running_sum(case["queryLengths"]), dtype=torch.int32)
        self.kv_indptr = torch.tensor(running_sum(case["kvLengths"]), dtype=torch.int32)
        self.kv_lengths = torch.tensor(case["kvLengths"], dtype=torch.int32)


def planned(kernel, inputs, workspace):
    """(plan, run of set i) of one kernel of the peer."""
    import flashinfer

    case = inputs.case
    query, kv = torch_type(case["queryType"]), torch_type(case["kvType"])
    heads = (case["queryHeads"], case["kvHeads"])
    dim = case["headDim"]
    if case["queryType"] == "float8-e4m3":
        return planned_float8(inputs, workspace)
    if kernel == "cuDNN":
        return planned_cudnn(inputs)
    if kernel in ("fa2", "fa3") and not case["pageSize"]:
        wrapper = flashinfer.BatchPrefillWithRaggedKVCacheWrapper(workspace, "NHD", backend=kernel)

        def plan():
            wrapper.plan(
                inputs.query_indptr, inputs.kv_indptr, *heads, dim, causal=case["causal"], q_data_type=query,
                kv_data_type=kv)

        def run(i):
            wrapper.run(inputs.queries[i], inputs.keys[i], inputs.values[i], out=inputs.outputs[i])
    elif kernel in ("fa2", "fa3"):
        wrapper = flashinfer.BatchPrefillWithPagedKVCacheWrapper(workspace, "NHD", backend=kernel)

        def plan():
            wrapper.plan(
                inputs.query_indptr, inputs.page_indptr, inputs.indices, inputs.last_page, *heads, dim,
                case["pageSize"], causal=case["causal"], q_data_type=query, kv_data_type=kv)

        def run(i):
            wrapper.run(inputs.queries[i], inputs.caches[i], out=inputs.outputs[i])
    elif kernel == "BatchAttention":
        wrapper = flashinfer.BatchAttention("NHD")
        indices = inputs.indices.cuda()

        def plan():
            wrapper.plan(
                inputs.query_indptr, inputs.page_indptr, indices, inputs.kv_lengths, *heads, dim, dim,
                case["pageSize"], causal=False, q_data_type=query, kv_data_type=kv)

        def run(i):
            wrapper.run(inputs.queries[i], inputs.caches[i], out=inputs.outputs[i])
    else:
        is_tensor_core = kernel == "tensor-core"
        wrapper = flashinfer.BatchDecodeWithPagedKVCacheWrapper(
            workspace, "NHD", use_tensor_cores=is_tensor_core, backend="fa2" if is_tensor_core else "auto")

        def plan():
            wrapper.plan(
                inputs.page_indptr, inputs.indices, inputs.last_page, *heads, dim, case["pageSize"],
                q_data_type=query, kv_data_type=kv)

        def run(i):
            wrapper.run(inputs.queries[i], inputs.caches[i], out=inputs.outputs[i])
    return plan, run


def planned_cudnn(inputs):
    """The same of cuDNN's kernel by PyTorch: a dense batch of requests of one length, read in place."""
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel

    case = inputs.case
    length, count = case["queryLengths"][0], len(case["queryLengths"])

    def batched(tensor):
        return tensor.view(count, length, -1, case["headDim"]).transpose(1, 2)

    sets = [tuple(map(batched, tensors)) for tensors in zip(inputs.queries, inputs.keys, inputs.values)]
    is_grouped = case["queryHeads"] != case["kvHeads"]

    def run(i):
        with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
            torch.nn.functional.scaled_dot_product_attention(
                *sets[i], is_causal=case["causal"], enable_gqa=is_grouped)

    return lambda: None, run


def planned_float8(inputs, workspace):
    """The same of float8 queries, keys and values."""
    import flashinfer

    case = inputs.case
    kind = torch_type(case["queryType"])
    heads = (case["queryHeads"], case["kvHeads"])
    types = dict(causal=case["causal"], q_data_type=kind, kv_data_type=kind, o_data_type=output_type(kind))
    dim = case["headDim"]
    # The wrapper copies lengths to the GPU where they are on the host; this backend wants them there.
    if not case["pageSize"]:
        wrapper = flashinfer.BatchPrefillWithRaggedKVCacheWrapper(workspace, "NHD", backend="fa3")

        def plan():
            wrapper.plan(inputs.query_indptr.cuda(), inputs.kv_indptr.cuda(), *heads, dim, dim, **types)

        def run(i):
            wrapper.run(inputs.queries[i], inputs.keys[i], inputs.values[i], *inputs.scales, out=inputs.outputs[i])
    else:
        wrapper = flashinfer.BatchPrefillWithPagedKVCacheWrapper(workspace, "NHD", backend="fa3")

        def plan():
            wrapper.plan(
                inputs.query_indptr.cuda(), inputs.page_indptr.cuda(), inputs.indices.cuda(), inputs.last_page.cuda(), *heads,
                dim, case["pageSize"], **types)

        def run(i):
            wrapper.run(inputs.queries[i], inputs.caches[i], *inputs.scales, out=inputs.outputs[i])
    return plan, run


def timed(run, sets, samples):
    """Seconds of one launch: the median replay of a graph over its launches."""
    import torch

    def events(body):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        body()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1e3

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for i in range(min(sets, 3)):
            run(i)
        estimate = events(lambda: [run(i % sets) for i in range(4)]) / 4
    torch.cuda.synchronize()
    launches = launch_count(sets, estimate)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        for i in range(launches):
            run(i % sets)
    for _ in range(2):
        graph.replay()
    torch.cuda.synchronize()
    return statistics.median(events(graph.replay) for _ in range(samples)) / launches


def host_times(plan, run, sets):
    """Microseconds of plan() and of the Python call of run(), medians."""
    import torch

    def each(body, count):
        times = []
        for i in range(count):
            start = time.perf_counter()
            body(i)
            times.append((time.perf_counter() - start) * 1e6)
            if i % 32 == 31:
                torch.cuda.synchronize()
        return statistics.median(times)

    return {"plan": each(lambda _: plan(), 20), "run": each(lambda i: run(i % sets), 100)}


def ceilings():
    """GB/s of a copy (read and written) and of a read, TFLOP/s of a bfloat16 product, by PyTorch."""
    import torch

    source = torch.randn(1 << 30, dtype=torch.bfloat16, device="cuda")
    target = torch.empty_like(source)
    copy = timed(lambda i: target.copy_(source), 1, 7)
    floats = source.view(torch.float32)
    read = timed(lambda i: torch.sum(floats), 1, 7)
    count = source.numel() * 2
    a, b = (torch.randn(8192, 8192, dtype=torch.bfloat16, device="cuda") for _ in range(2))
    c = torch.empty_like(a)
    product = timed(lambda i: torch.matmul(a, b, out=c), 1, 7)
    return {"copy": 2 * count / copy / 1e9, "read": count / read / 1e9, "product": 2 * 8192**3 / product / 1e12}


def measure(cases, path, budget, samples, only):
    import torch
    import flashinfer

    start = time.perf_counter()
    report = {
        "device": torch.cuda.get_device_name(), "peer": f"flashinfer {flashinfer.__version__}",
        "torch": torch.__version__, "rows": {}, "failures": {},
    }

    def save():
        with open(path + ".part", "w") as file:
            json.dump(report, file, indent=1)
        os.replace(path + ".part", path)

    report["ceilings"] = ceilings()
    torch.cuda.empty_cache()
    workspace = torch.zeros(256 << 20, dtype=torch.uint8, device="cuda")
    for case in cases:
        if not kernels(case, only):
            continue
        if time.perf_counter() - start > budget:
            report["stopped"] = f"after {budget} s"
            break
        inputs = Inputs(case)
        times, host = {}, {}
        for kernel in kernels(case, only):
            try:
                plan, run = planned(kernel, inputs, workspace)
                plan()
                times[kernel] = timed(run, inputs.sets, samples) * 1e6
                if case.get("measuresHost"):
                    host[kernel] = host_times(plan, run, inputs.sets)
            except Exception as error:  # a kernel that the peer cannot build or run is a fact about the peer
                report["failures"][f"{case['key']} {kernel}"] = f"{type(error).__name__}: {error}"[:300]
                torch.cuda.synchronize()
        if times:
            best = min(times, key=times.get)
            report["rows"][case["key"]] = {"microseconds": times[best], "kernel": best, "all": times}
            if host:
                report["rows"][case["key"]]["host"] = host
        del inputs
        torch.cuda.empty_cache()
        save()
    save()
    print(f"{len(report['rows'])} cases, {len(report['failures'])} failures in {time.perf_counter() - start:.0f} s")
    for name, text in report["failures"].items():
        print(f"{name}: {text}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["build", "modules", "run"])
    parser.add_argument("cases")
    parser.add_argument("--json", default="peer.json")
    parser.add_argument("--budget", type=float, default=300, help="seconds after which no further case is begun")
    parser.add_argument("--samples", type=int, default=7, help="timed replays of each graph")
    parser.add_argument("--filter", default="", help="only cases whose keys contain this")
    parser.add_argument("--only", default="", help="only these kernels, with commas between: fa3,cuDNN")
    arguments = parser.parse_args()
    with open(arguments.cases) as file:
        cases = [case for case in json.load(file) if arguments.filter in case["key"]]
    only = [name for name in arguments.only.split(",") if name]
    if arguments.action == "modules":
        for key in module_keys(cases, only):
            print(*key)
    elif arguments.action == "build":
        build(cases, only)
    else:
        measure(cases, arguments.json, arguments.budget, arguments.samples, only)
    return 0


if __name__ == "__main__":
    sys.exit(main())
