#!/usr/bin/env python3
"""Runs the peer's own tests against flashinfer_swift and writes a table.

    python3 run.py PEER [--out FOLDER] [--cases-per-file N] [--seed N] [--jobs N] [--limit SECONDS] [--file-limit SECONDS]
                   [--only TEXT] [--cpu]

PEER is a folder with the peer's `tests/` and `flashinfer/trace/`, as `pack-tests` of this folder makes it. Nothing there is changed.
flashinfer_swift must be importable. Results: FOLDER/conformance.json and FOLDER/conformance.md.
"""

from __future__ import annotations

import argparse
import collections
import concurrent.futures
import json
import os
import pathlib
import re
import subprocess
import sys
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent

#: The peer's test files that are about what this library does. Those about other things (matrix products, mixtures of experts,
#: communication, Blackwell's backends) are not listed.
FILES = [
    "tests/attention/test_batch_decode_kernels.py", "tests/attention/test_batch_prefill_kernels.py",
    "tests/attention/test_batch_prefill.py", "tests/attention/test_single_prefill.py",
    "tests/attention/test_tensor_cores_decode.py", "tests/attention/test_shared_prefix_kernels.py",
    "tests/attention/test_block_sparse.py", "tests/attention/test_batch_attention.py", "tests/attention/test_attention_sink.py",
    "tests/attention/test_logits_cap.py", "tests/attention/test_sliding_window.py", "tests/attention/test_alibi.py",
    "tests/attention/test_decode_prefill_lse.py", "tests/attention/test_non_contiguous_prefill.py",
    "tests/attention/test_non_contiguous_decode.py", "tests/attention/test_batch_invariant_fa2.py",
    "tests/attention/test_fp8_prefill.py", "tests/attention/test_decode_fp8_calibration_scale.py",
    "tests/attention/test_workspace_size.py", "tests/attention/test_hopper.py", "tests/attention/test_rope.py",
    "tests/attention/test_page.py", "tests/attention/test_deepseek_mla.py", "tests/attention/test_mla_page.py",
    "tests/utils/test_norm.py", "tests/utils/test_activation.py", "tests/utils/test_quantization.py",
    "tests/utils/test_sampling.py", "tests/utils/test_topk.py", "tests/utils/test_logits_processor.py",
    "tests/utils/test_pod_kernels.py", "tests/utils/test_triton_cascade.py", "tests/utils/test_jit_example.py",
    "tests/utils/test_concat_mla.py",
]
#: One small file for each function of the peer; run as one.
TRACE = "tests/trace/test_*_reference_correctness.py"
#: Files whose cases loop thousands of times.
FEWER = {"tests/utils/test_sampling.py": 0.5, "tests/attention/test_rope.py": 1.5, "tests/attention/test_sliding_window.py": 1.5}

#: Combinations that are refused by a ValueError rather than by NotImplementedError, and why they are not supported.
DECLARED = [
    (r"query type is float8|q_data_type.*float8|q is of float8", "float8 e5m2 queries: no kernel takes them"),
    (r"output type is float8", "float8 outputs: no kernel writes them"),
    (r"cache type is uint8|tensor is of torch\.uint8.*cache", "NVFP4 caches: there are none"),
    (r"^k is uint8|^v is uint8|keys is uint8", "NVFP4 caches: there are none"),
    (r"ALiBi with a soft cap", "ALiBi with a soft cap: undefined in the peer (the scale is applied twice)"),
]
#: Cases that expect a limit of the peer's which is not here, by the name of their function.
DECLARED_CASES = {
    "test_batch_decode_rejects_unequal_kv_strides_nvfp4_contract":
        "expects that keys and values of different strides are refused; they are read",
    "test_tensor_core_decode_rejects_mismatched_q_len":
        "expects that q_len_per_req > 1 is refused without use_tensor_cores; it works (the other refusal of the case holds)",
    "test_layernorm_quant_invalid_inputs":
        "expects that float16 rows, and rows apart from each other, are refused; they are normalised",
    "test_fp8_kv_plan_rejects_fp16_q": "expects that float16 queries over a float8 latent cache are refused; they are taken",
    "test_fp8_kv_requires_scales": "expects that scales of a float8 latent cache must be given; none is 1",
    "test_batch_prefill_paged_cta_tile_q_smem_probe_qk448_vo256": "reads a private attribute of the peer's (_plan_info)",
} | dict.fromkeys((
    "test_batch_decode_workspace_size_plans_with_exact_buffers",
    "test_batch_prefill_workspace_size_plans_fixed_split_with_exact_buffers",
    "test_batch_prefill_workspace_size_plans_cuda_graph_with_exact_buffers",
    "test_batch_decode_workspace_size_rejects_unaligned_workspace_buffer",
    "test_batch_prefill_workspace_size_rejects_unaligned_workspace_buffer",
), "sizes the caller's workspace, which is not used: plans own theirs")
#: On the CPU: what is about CUDA itself.
DECLARED_CPU = [
    (r"Torch not compiled with CUDA|no NVIDIA driver|NVIDIA GPU|CUDA graph|_CudaStreamBase|_CUDAGraph|torch\.cuda|pin memory|pin_memory"
     r"|Found no NVIDIA|device type|CUDA|cuda device", "CUDA graphs, streams or devices"),
]


def classify(record: dict, cpu: bool) -> tuple[str, str]:
    """("passed" | "failed" | "not applicable" | "skipped", reason)."""
    if record["outcome"] == "passed":
        return "passed", ""
    message = record.get("message", "")
    if record["outcome"] == "skipped":
        return "skipped", message.removeprefix("Skipped: ")
    types = record.get("types", [])
    first = message.splitlines()[0] if message else ""
    if "NotImplementedError" in types or "is not in flashinfer_swift" in message or "what works instead" in message:
        # Also where the test expected another exception, from a function that is not there.
        return "not applicable", first if "NotImplementedError" in types else message.splitlines()[-1]
    if cpu and ("CaseTimeLimit" in types or message == "killed at the time limit"):
        return "not applicable", "too long on this CPU"
    declared = DECLARED_CASES.get(record["case"].split("::")[-1].split("[")[0])
    if declared:
        return "not applicable", declared
    for pattern, reason in DECLARED + (
            DECLARED_CPU if cpu and ("AssertionError" not in types or "compiled with CUDA" in message) else []):
        if re.search(pattern, message):
            return "not applicable", reason
    return "failed", f"{types[0] if types else 'error'}: {first}"


class Runner:
    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        self.peer = arguments.peer.resolve()
        self.out = arguments.out.resolve()
        self.out.mkdir(parents=True, exist_ok=True)
        self.end = time.time() + arguments.limit
        self.lock = threading.Lock()

    def environment(self, records: pathlib.Path, deadline: float, cases: int, skip: pathlib.Path) -> dict[str, str]:
        environment = dict(os.environ)
        # The shim's `flashinfer` comes first, the peer's `tests` package last.
        paths = [str(HERE / "shim"), str(HERE), str(self.peer)]
        if self.arguments.package:
            paths.insert(0, str(self.arguments.package.resolve()))
        if environment.get("PYTHONPATH"):
            paths.append(environment["PYTHONPATH"])
        environment.update(
            PYTHONPATH=os.pathsep.join(paths), FLASHINFER_CONFORMANCE_PEER=str(self.peer), FIC_OUT=str(records),
            FIC_SEED=str(self.arguments.seed), FIC_CASES=str(cases), FIC_DEADLINE=str(deadline), FIC_SKIP=str(skip),
            FIC_CASE_LIMIT=str(self.arguments.case_limit), FIC_CPU="1" if self.arguments.cpu else "0", OMP_NUM_THREADS="2", PYTHONUNBUFFERED="1")
        return environment

    def run_unit(self, name: str, files: list[str], cases: int) -> dict:
        """One pytest process for these files, begun again after a crash without the cases that ran."""
        stem = re.sub(r"\W+", "-", name)
        records, log, skip = (self.out / f"{stem}.{end}" for end in ("jsonl", "log", "skip"))
        for path in (records, log, skip):
            path.write_text("")
        began = time.time()
        deadline = min(self.end, began + self.arguments.file_limit)
        ending = "ended"
        for _ in range(4):
            left = deadline - time.time()
            if left <= 0:
                ending = "out of time"
                break
            with open(log, "a") as output:
                process = subprocess.Popen(
                    [sys.executable, "-m", "pytest", "-p", "conformance_plugin", "-p", "no:cacheprovider", "-q",
                     "--tb=short", "--no-header", "--rootdir", str(self.peer), "--continue-on-collection-errors", *files],
                    cwd=self.peer, env=self.environment(records, deadline, cases, skip), stdout=output, stderr=subprocess.STDOUT)
                try:
                    code = process.wait(timeout=left + 30)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
                    code = -9
                    ending = "out of time"
            lines = [json.loads(line) for line in records.read_text().splitlines() if line.startswith("{")]
            started = [line["start"] for line in lines if "start" in line]
            done = {line["case"] for line in lines if "case" in line}
            lost = [case for case in started if case not in done and not any(line.get("stopped") == case for line in lines)]
            if lost:
                with open(records, "a") as file:
                    for case in lost:
                        text = "killed at the time limit" if code == -9 else f"the process died (exit {code})"
                        file.write(json.dumps({"case": case, "outcome": "failed", "types": ["Crash"], "message": text, "seconds": 0}) + "\n")
            if code == -9 or (code in (0, 1, 2, 4, 5) and not lost):
                break
            skip.write_text("\n".join(done | set(lost)))
        lines = [json.loads(line) for line in records.read_text().splitlines() if line.startswith("{")]
        result = self.summary(name, lines, ending, time.time() - began)
        with self.lock:
            print(
                f"{name}: {result['passed']} passed, {result['failed']} failed, {result['not applicable']} not applicable, "
                f"{result['skipped']} skipped, {result['seconds']:.0f} s", flush=True)
        return result

    def summary(self, name: str, lines: list[dict], ending: str, seconds: float) -> dict:
        counts: collections.Counter = collections.Counter()
        reasons: dict[str, collections.Counter] = {kind: collections.Counter() for kind in ("failed", "not applicable", "skipped")}
        failures = []
        seen = set()
        for line in lines:
            if "case" not in line or line["case"] in seen:
                continue
            seen.add(line["case"])
            kind, reason = classify(line, self.arguments.cpu)
            counts[kind] += 1
            if kind in reasons:
                reasons[kind][re.sub(r"\s+", " ", reason)[:160]] += 1
            if kind == "failed":
                failures.append({"case": line["case"], "message": line.get("message", ""), "where": line.get("where", "")})
        if any("stopped" in line for line in lines):
            ending = "out of time"
        return {
            "name": name, "collected": sum({line["file"]: line["collected"] for line in lines if "file" in line}.values()),
            "passed": counts["passed"], "failed": counts["failed"], "not applicable": counts["not applicable"],
            "skipped": counts["skipped"], "ending": ending, "seconds": round(seconds, 1),
            "reasons": {kind: dict(counter.most_common()) for kind, counter in reasons.items()}, "failures": failures,
            "collection errors": [line["message"] for line in lines if "collect" in line],
        }

    def units(self) -> list[tuple[str, list[str], int]]:
        cases = self.arguments.cases_per_file
        units = []
        for file in FILES:
            if (self.peer / file).exists():
                units.append((file, [file], max(int(cases * FEWER.get(file, 1)), 1) if cases else 0))
        trace = sorted(str(path.relative_to(self.peer)) for path in self.peer.glob(TRACE))
        if trace:
            units.append((f"{TRACE} ({len(trace)} files)", trace, 0))
        return [unit for unit in units if not self.arguments.only or self.arguments.only in unit[0]]


def markdown(results: list[dict], arguments: argparse.Namespace, machine: str) -> str:
    text = (
        f"{machine}; {arguments.cases_per_file or 'all'} cases a file at random (seed {arguments.seed}).\n\n"
        "| file | of | passed | failed | not applicable | skipped by the test | why not |\n| --- | ---: | ---: | ---: | ---: | ---: | --- |\n")
    for result in results:
        why = []
        for kind, mark in (("failed", "FAILED "), ("not applicable", "")):
            why += [f"{mark}{count} × {reason}" for reason, count in list(result["reasons"][kind].items())[:4]]
        if result["collection errors"]:
            why.append("could not be collected: " + result["collection errors"][0].strip().splitlines()[-1])
        if result["ending"] != "ended":
            why.append(result["ending"])
        cell = "; ".join(why).replace("|", "\\|")
        text += (
            f"| {result['name'].removeprefix('tests/')} | {result['collected']} | {result['passed']} | {result['failed']} | "
            f"{result['not applicable']} | {result['skipped']} | {cell} |\n")
    total = {kind: sum(result[kind] for result in results) for kind in ("passed", "failed", "not applicable", "skipped")}
    return text + (
        f"| all | | {total['passed']} | {total['failed']} | {total['not applicable']} | {total['skipped']} | |\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peer", type=pathlib.Path)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("conformance"))
    parser.add_argument("--package", type=pathlib.Path, help="a folder to import flashinfer_swift from")
    parser.add_argument("--cases-per-file", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=8)
    parser.add_argument("--limit", type=float, default=440, help="seconds for everything")
    parser.add_argument("--file-limit", type=float, default=170, help="seconds for a file")
    parser.add_argument("--case-limit", type=int, default=60, help="seconds for a case")
    parser.add_argument("--only", default="")
    parser.add_argument("--cpu", action="store_true", help="what the tests put on cuda runs on the CPU")
    arguments = parser.parse_args()
    runner = Runner(arguments)
    units = runner.units()
    if not units:
        raise SystemExit(f"run.py: no test files below {arguments.peer}")
    with concurrent.futures.ThreadPoolExecutor(arguments.jobs) as pool:
        results = list(pool.map(lambda unit: runner.run_unit(*unit), units))
    import importlib.util

    machine = "CPU" if arguments.cpu else "GPU"
    if importlib.util.find_spec("torch") is not None:
        import torch

        if not arguments.cpu and torch.cuda.is_available():
            machine = f"{torch.cuda.get_device_name(0)}, torch {torch.__version__}"
        else:
            machine = f"CPU, torch {torch.__version__}"
    (runner.out / "conformance.json").write_text(json.dumps({"machine": machine, "results": results}, indent=1))
    table = markdown(results, arguments, machine)
    (runner.out / "conformance.md").write_text(table)
    print(table)
    for result in results:
        for failure in result["failures"][:3]:
            print("FAILED", failure["case"], failure["where"], re.sub(r"\s+", " ", failure["message"])[:300])
    return 1 if any(result["failed"] or result["collection errors"] for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
