#!/usr/bin/env python3
"""FlashInfer's and PyTorch's samplers on the rows of `FlashInferBenchmarks sampling`, as a table and JSON.

    sampling_peer.py --json peer-sampling.json [--batches 1,64,256,512] [--vocabulary 128256] [--ours sampling.json] [--limit 38]

Times are of CUDA graphs of several launches whose rows rotate past the L2 cache, the median of several replays, as the benchmark
has them. With --ours, its JSON, each line has the ratio of the peer's time to ours. Rows are normal logits and their softmax.

Each figure is printed and written as soon as it is there, and after --limit seconds from the start no more are begun: what is left
is named. Cases go from the ones that are compared most to those that are compared least, each at all batches.

Needs torch with CUDA and flashinfer-python 0.6.13, with its modules `sampling` and `topk` compiled in its folder for them
(flashinfer/data/aot/NAME/NAME.so); else it compiles them by nvcc first, for a minute or two each, and says so.
"""

import argparse
import json
import sys
import time

from figures import START, Figures, say
from flashinfer_peer import ROTATION_BYTES, timed

TOP_K, TOP_P, DRAFTS = 50, 0.9, 4


def inputs(batch, vocabulary):
    """Sets of rows that outrun the L2 cache together: (logits, probabilities) of each."""
    import torch

    sets = max(1, min(64, -(-ROTATION_BYTES // (batch * vocabulary * 4))))
    logits = [torch.randn(batch, vocabulary, device="cuda") * 3 for _ in range(sets)]
    return logits, [torch.softmax(x, -1) for x in logits]


def drafts(batch, vocabulary):
    """A run of the chain on distributions of its own, made before it is captured: nine rows a request, so there are two sets."""
    import flashinfer.sampling as peer
    import torch

    def rows(count):
        return [torch.softmax(torch.randn(batch, count, vocabulary, device="cuda"), -1) for _ in range(2)]

    draft, target = rows(DRAFTS), rows(DRAFTS + 1)
    tokens = torch.randint(vocabulary, (batch, DRAFTS), dtype=torch.int32, device="cuda")
    return lambda i: peer.chain_speculative_sampling(draft[i], tokens, target[i], **SEEDED)


# Seeds are of the host: a generator's state may not be read while a graph is captured.
SEEDED = dict(deterministic=True, seed=1, offset=0)


def operations():
    """(our name of the operation, library, call of logits and probabilities), in the order in which they are measured."""
    import flashinfer
    import flashinfer.sampling as peer
    import torch

    return [
        ("probabilities plain", "flashinfer", lambda x, p: peer.sampling_from_probs(p, **SEEDED)),
        ("logits plain", "flashinfer", lambda x, p: peer.sampling_from_logits(x, **SEEDED)),
        ("probabilities top-p 0.9", "flashinfer", lambda x, p: peer.top_p_sampling_from_probs(p, TOP_P, **SEEDED)),
        ("softmax", "flashinfer", lambda x, p: peer.softmax(x)),
        ("top-k 50", "flashinfer", lambda x, p: flashinfer.top_k(x, TOP_K)),
        ("top-k 2048", "flashinfer", lambda x, p: flashinfer.top_k(x, 2048)),
        ("renorm top-p 0.9", "flashinfer", lambda x, p: peer.top_p_renorm_probs(p, TOP_P)),
        ("renorm top-k 50", "flashinfer", lambda x, p: peer.top_k_renorm_probs(p, TOP_K)),
        ("mask top-k 50", "flashinfer", lambda x, p: peer.top_k_mask_logits(x, TOP_K)),
        ("probabilities top-k 50", "flashinfer", lambda x, p: peer.top_k_sampling_from_probs(p, TOP_K, **SEEDED)),
        ("probabilities min-p 0.05", "flashinfer", lambda x, p: peer.min_p_sampling_from_probs(p, 0.05, **SEEDED)),
        ("probabilities k50 p0.9", "flashinfer", lambda x, p: peer.top_k_top_p_sampling_from_probs(
            p, TOP_K, TOP_P, **SEEDED)),
        ("logits k50 p0.9", "flashinfer", lambda x, p: peer.top_k_top_p_sampling_from_logits(x, TOP_K, TOP_P, **SEEDED)),
        ("probabilities k50 p0.9 joint", "flashinfer", lambda x, p: peer.top_k_top_p_sampling_from_probs(
            p, TOP_K, TOP_P, filter_apply_order="joint", **SEEDED)),
        ("logits k50 p0.9 joint", "flashinfer", lambda x, p: peer.top_k_top_p_sampling_from_logits(
            x, TOP_K, TOP_P, filter_apply_order="joint", **SEEDED)),
        ("softmax", "torch", lambda x, p: torch.softmax(x, -1)),
        ("greedy", "torch", lambda x, p: torch.argmax(x, -1)),
        ("top-k 50 sorted", "torch", lambda x, p: torch.topk(x, TOP_K)),
        ("probabilities plain", "torch", lambda x, p: torch.multinomial(p, 1)),
    ]


def load_modules():
    """Loads the peer's modules, and says which of them must be compiled first."""
    from flashinfer.jit.sampling import gen_sampling_module

    makers = [gen_sampling_module]
    try:
        from flashinfer.jit.topk import gen_topk_module

        makers.append(gen_topk_module)
    except ImportError:
        pass
    for make in makers:
        module = make()
        if not getattr(module, "is_aot", False):
            say(f"{module.name} is not at {getattr(module, 'aot_path', 'hand')}: found in a cache or compiled now")
        module.build_and_load()
        say(f"{module.name} loaded")


class Results(Figures):
    def measure(self, name, library, batch, run, sets, samples):
        try:
            run(0)
            microseconds = timed(run, sets, samples) * 1e6
            self.rows.append({"operation": name, "library": library, "batch": batch, "microseconds": microseconds})
            own = self.ours.get((name, batch))
            ratio = f"  ours {own:8.1f}  {microseconds / own:5.2f}x" if own else ""
            say(f"{name:30s} {library:10s} {batch:4d} {microseconds:8.1f}{ratio}")
        except Exception as error:
            self.refused(f"{library} {name} {batch}", f"{name:30s} {library:10s} {batch:4d}", error)
        self.write()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", default="peer-sampling.json")
    parser.add_argument("--ours", help="JSON of FlashInferBenchmarks sampling")
    parser.add_argument("--batches", default="1,64,256,512")
    parser.add_argument("--vocabulary", type=int, default=128256)
    parser.add_argument("--samples", type=int, default=3)
    parser.add_argument("--only", default="", help="operations whose name has this")
    parser.add_argument("--limit", type=float, default=600, help="seconds from the start after which nothing is begun")
    arguments = parser.parse_args()
    import torch

    torch.zeros(1, device="cuda")
    say("torch is there")
    load_modules()
    ours = {}
    if arguments.ours:
        with open(arguments.ours) as file:
            for row in json.load(file)["rows"]:
                if row["kind"] == "normal":
                    ours[row["operation"], row["batch"]] = row["microseconds"]
    results = Results(arguments.json, ours)
    batches = [int(x) for x in arguments.batches.split(",")]
    rows = {batch: inputs(batch, arguments.vocabulary) for batch in batches}
    torch.cuda.synchronize()
    say("inputs are there")
    cases = [
        (name, library, batch, lambda i, run=run, of=rows[batch]: run(of[0][i], of[1][i]), len(rows[batch][0]))
        for name, library, run in operations() for batch in batches if arguments.only in name]
    left = []
    for name, library, batch, run, sets in cases:
        if time.perf_counter() - START > arguments.limit:
            left.append(f"{library} {name} {batch}")
            continue
        results.measure(name, library, batch, run, sets, arguments.samples)
    # Last, as it takes the memory of the others.
    rows.clear()
    cases.clear()
    torch.cuda.empty_cache()
    for batch in batches:
        if batch > 64 or arguments.only not in "chain n 4":
            continue
        if time.perf_counter() - START > arguments.limit:
            left.append(f"flashinfer chain n 4 {batch}")
            continue
        results.measure("chain n 4", "flashinfer", batch, drafts(batch, arguments.vocabulary), 2, arguments.samples)
    results.write()
    say(f"done; not measured for want of time: {', '.join(left) or 'nothing'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
