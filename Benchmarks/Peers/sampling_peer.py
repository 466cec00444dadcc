#!/usr/bin/env python3
"""FlashInfer's and PyTorch's samplers on the rows of `FlashInferBenchmarks sampling`, as a table and JSON.

    sampling_peer.py --json peer-sampling.json [--batches 1,64,256,512] [--vocabulary 128256] [--ours sampling.json]

Times are of CUDA graphs of several launches whose rows rotate past the L2 cache, the median of several replays, as the benchmark
has them. With --ours, its JSON, the table has the ratio of the peer's time to ours. Rows are normal logits and their softmax.

Needs torch with CUDA, flashinfer-python 0.6.13 and nvcc; the first call compiles for about a minute.
"""

import argparse
import json
import sys

from flashinfer_peer import ROTATION_BYTES, timed

TOP_K, TOP_P, DRAFTS = 50, 0.9, 4


def operations(batch, vocabulary, sets):
    """(our name of the operation, library, run of set i)."""
    import flashinfer.sampling as peer
    import torch

    logits = [torch.randn(batch, vocabulary, device="cuda") * 3 for _ in range(sets)]
    probabilities = [torch.softmax(x, -1) for x in logits]
    # Seeds are read on the host before a graph is captured: a generator's state may not be advanced in one.
    seeded = dict(deterministic=True, seed=1, offset=0)
    uniform = torch.rand(batch, DRAFTS + 1, device="cuda")
    tokens = torch.randint(vocabulary, (batch, DRAFTS), dtype=torch.int32, device="cuda")
    workspaces = {}

    def drafts(i):
        # Only where it fits: five rows a request.
        if i not in workspaces:
            draft = torch.softmax(torch.randn(batch, DRAFTS, vocabulary, device="cuda"), -1)
            target = torch.softmax(torch.randn(batch, DRAFTS + 1, vocabulary, device="cuda"), -1)
            workspaces[i] = (draft, target)
        draft, target = workspaces[i]
        peer.chain_speculative_sampling(draft, tokens, target, **seeded)

    found = [
        ("softmax", "flashinfer", lambda i: peer.softmax(logits[i])),
        ("probabilities plain", "flashinfer", lambda i: peer.sampling_from_probs(probabilities[i], **seeded)),
        ("logits plain", "flashinfer", lambda i: peer.sampling_from_logits(logits[i], **seeded)),
        ("probabilities top-p 0.9", "flashinfer", lambda i: peer.top_p_sampling_from_probs(probabilities[i], TOP_P, **seeded)),
        ("probabilities top-k 50", "flashinfer", lambda i: peer.top_k_sampling_from_probs(probabilities[i], TOP_K, **seeded)),
        ("probabilities min-p 0.05", "flashinfer", lambda i: peer.min_p_sampling_from_probs(probabilities[i], 0.05, **seeded)),
        ("probabilities k50 p0.9 joint", "flashinfer", lambda i: peer.top_k_top_p_sampling_from_probs(
            probabilities[i], TOP_K, TOP_P, filter_apply_order="joint", **seeded)),
        ("probabilities k50 p0.9", "flashinfer", lambda i: peer.top_k_top_p_sampling_from_probs(
            probabilities[i], TOP_K, TOP_P, **seeded)),
        ("logits k50 p0.9", "flashinfer", lambda i: peer.top_k_top_p_sampling_from_logits(
            logits[i], TOP_K, TOP_P, **seeded)),
        ("logits k50 p0.9 joint", "flashinfer", lambda i: peer.top_k_top_p_sampling_from_logits(
            logits[i], TOP_K, TOP_P, filter_apply_order="joint", **seeded)),
        ("renorm top-p 0.9", "flashinfer", lambda i: peer.top_p_renorm_probs(probabilities[i], TOP_P)),
        ("renorm top-k 50", "flashinfer", lambda i: peer.top_k_renorm_probs(probabilities[i], TOP_K)),
        ("mask top-k 50", "flashinfer", lambda i: peer.top_k_mask_logits(logits[i], TOP_K)),
        ("top-k 50", "flashinfer", lambda i: __import__("flashinfer").top_k(logits[i], TOP_K)),
        ("softmax", "torch", lambda i: torch.softmax(logits[i], -1)),
        ("greedy", "torch", lambda i: torch.argmax(logits[i], -1)),
        ("top-k 50 sorted", "torch", lambda i: torch.topk(logits[i], TOP_K)),
        ("probabilities plain", "torch", lambda i: torch.multinomial(probabilities[i], 1)),
    ]
    if batch <= 64:
        found.append(("chain n 4", "flashinfer", drafts))
    return found


def measure(batches, vocabulary, samples):
    import torch

    rows, failures = [], {}
    for batch in batches:
        sets = max(1, min(64, -(-ROTATION_BYTES // (batch * vocabulary * 4))))
        for name, library, run in operations(batch, vocabulary, sets):
            try:
                run(0)
                seconds = timed(run, min(sets, 8) if name.startswith("chain") else sets, samples)
                rows.append({"operation": name, "library": library, "batch": batch, "microseconds": seconds * 1e6})
            except Exception as error:  # what a library cannot run is a fact about it
                failures[f"{library} {name} {batch}"] = f"{type(error).__name__}: {error}"[:200]
                torch.cuda.synchronize()
        torch.cuda.empty_cache()
    return rows, failures


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", default="peer-sampling.json")
    parser.add_argument("--ours", help="JSON of FlashInferBenchmarks sampling")
    parser.add_argument("--batches", default="1,64,256,512")
    parser.add_argument("--vocabulary", type=int, default=128256)
    parser.add_argument("--samples", type=int, default=5)
    arguments = parser.parse_args()
    import torch

    rows, failures = measure([int(x) for x in arguments.batches.split(",")], arguments.vocabulary, arguments.samples)
    with open(arguments.json, "w") as file:
        json.dump({"device": torch.cuda.get_device_name(), "rows": rows, "failures": failures}, file, indent=1)
    ours = {}
    if arguments.ours:
        with open(arguments.ours) as file:
            for row in json.load(file)["rows"]:
                if row["kind"] == "normal":
                    ours[row["operation"], row["batch"]] = row["microseconds"]
    for row in rows:
        own = ours.get((row["operation"], row["batch"]))
        ratio = f"  ours {own:8.1f}  {row['microseconds'] / own:5.2f}x" if own else ""
        print(f"{row['operation']:30s} {row['library']:10s} {row['batch']:4d} {row['microseconds']:8.1f}{ratio}")
    for name, text in failures.items():
        print(f"{name}: {text}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
