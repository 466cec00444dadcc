#!/usr/bin/env python3
"""torch's FlexAttention, compiled, on the cases of `FlashInferBenchmarks cuda-variants`, as JSON of the same keys.

    FlashInferBenchmarks cuda-variants --json ours.json
    flex_peer.py --json flex.json --ours ours.json            times the same, and prints the two beside each other

Times are of CUDA graphs of several launches whose inputs rotate past the L2 cache: the median of several replays, as the benchmark
itself does; the mask of blocks is made before and timed apart. "new" is the first call of a compiled attention whose score function
torch has not seen, its block mask not counted. Needs torch 2.5 or later with CUDA and Triton.
"""

import argparse
import json
import math
import sys
import time

import flashinfer_peer as peer

HEADS, DIM = 32, 128
WINDOW, DOCUMENT, CAP = 1023, 1024, 50.0


def cases(length):
    """(key, score function, mask function); the keys are the benchmark's."""
    import torch

    ids = (torch.arange(length, device="cuda") // DOCUMENT).to(torch.int32)
    # ALiBi's slopes of 32 heads.
    slopes = torch.tensor([2 ** (-8 * (h + 1) / HEADS) for h in range(HEADS)], device="cuda")

    def causal(b, h, q, k):
        return q >= k

    def cap(score, b, h, q, k):
        return CAP * torch.tanh(score / CAP)

    def alibi(score, b, h, q, k):
        return score + slopes[h] * (k - q)

    def window(b, h, q, k):
        return (q >= k) & (q - k <= WINDOW)

    def documents(b, h, q, k):
        return (q >= k) & (ids[q] == ids[k])

    def streaming(b, h, q, k):
        return (q >= k) & ((q - k <= WINDOW) | (k < 4))

    bias = ((torch.arange(HEADS * 32, device="cuda") % 7) / 7).reshape(HEADS, 32)

    def t5(score, b, h, q, k):
        # Hidden keys after the query are asked for too.
        distance = torch.clamp(q - k, min=0)
        far = 16 + (torch.log(torch.clamp(distance, min=1) / 16) * (16 / math.log(8))).to(torch.int32)
        return score + bias[h, torch.where(distance < 16, distance, torch.clamp(far, max=31))]

    # What is judged first, as the time may not be enough for all.
    return [
        (f"documents of {DOCUMENT}", None, documents), (f"window {WINDOW}", None, window), ("alibi", alibi, causal),
        ("causal", None, causal), ("soft cap", cap, causal), (f"streaming {WINDOW} + 4", None, streaming),
        ("t5", t5, causal),
    ]


def measure(length, samples, only, save, has_eager_masks):
    """Times the cases, and saves the report after each."""
    import torch
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    report = {
        "device": torch.cuda.get_device_name(), "peer": f"flex_attention of torch {torch.__version__}", "length": length,
        "rows": {}, "failures": {}, "newSeconds": [],
    }
    byte_count = length * HEADS * DIM * 2
    sets = max(1, -(-peer.ROTATION_BYTES // (4 * byte_count)))
    inputs = [
        tuple(torch.randn(1, HEADS, length, DIM, dtype=torch.bfloat16, device="cuda") for _ in range(3)) for _ in range(sets)]
    # Compiled, masks need no memory of all pairs, and some time the first time.
    make_mask = create_block_mask if has_eager_masks else torch.compile(create_block_mask)
    with torch.no_grad():
        for key, score, mask in cases(length):
            if only not in key:
                continue
            torch._dynamo.reset()
            try:
                start = time.perf_counter()
                blocks = make_mask(mask, None, None, length, length, device="cuda")
                torch.cuda.synchronize()
                masked = time.perf_counter() - start
                attention = torch.compile(flex_attention, dynamic=False)
                start = time.perf_counter()
                found = attention(*inputs[0], score_mod=score, block_mask=blocks)
                torch.cuda.synchronize()
                compiled = time.perf_counter() - start
                error = check(found, inputs[0], score, mask)
                seconds = peer.timed(
                    lambda i: attention(*inputs[i], score_mod=score, block_mask=blocks), sets, samples)
                report["rows"][key] = {
                    "microseconds": seconds * 1e6, "compileSeconds": compiled, "maskSeconds": masked, "error": error}
                print(f"{key}: {seconds * 1e6:.1f} us, compiled in {compiled:.1f} s, error {error:.4f}", flush=True)
            except Exception as error:  # what the peer cannot run is a fact about the peer
                report["failures"][key] = f"{type(error).__name__}: {error}"[:300]
                torch.cuda.synchronize()
            save(report)
        if not only:
            for number in range(2):
                report["newSeconds"].append(new_variant(inputs[0], length, number, make_mask, cases(length)[0][2]))
                save(report)
    return report


def new_variant(inputs, length, number, make_mask, mask):
    """Seconds of the first call of a score function that no cache has."""
    import torch
    from torch.nn.attention.flex_attention import flex_attention

    blocks = make_mask(mask, None, None, length, length, device="cuda")
    unique = 1e-9 * (time.time() % 1000 + number)

    def score_mod(score, b, h, q, k):
        return score + unique * (k - q)

    torch._dynamo.reset()
    attention = torch.compile(flex_attention, dynamic=False)
    torch.cuda.synchronize()
    start = time.perf_counter()
    attention(*inputs, score_mod=score_mod, block_mask=blocks)
    torch.cuda.synchronize()
    return time.perf_counter() - start


def check(found, inputs, score, mask):
    """The largest difference from plain attention of some rows of one head, so that a figure is not of something else."""
    import torch

    q, k, v = (x[0, 3].float() for x in inputs)
    rows = torch.tensor([0, 1, 777, len(q) // 2, len(q) - 1], device="cuda")
    keys = torch.arange(len(k), device="cuda")
    scores = q[rows] @ k.T / DIM**0.5
    zero, head = torch.tensor(0, device="cuda"), torch.tensor(3, device="cuda")
    if score is not None:
        scores = score(scores, zero, head, rows[:, None], keys[None])
    scores = scores.masked_fill(~mask(zero, head, rows[:, None], keys[None]), float("-inf"))
    return float((torch.softmax(scores, -1) @ v - found[0, 3, rows].float()).abs().max())


def compare(ours, flex):
    """Prints the two beside each other: the peer's time over ours."""
    print(f"{'variant':<22}{'ours us':>10}{'flex us':>10}{'flex/ours':>11}{'flex compile s':>16}")
    for row in ours["rows"]:
        theirs = flex["rows"].get(row["key"])
        if theirs is None:
            continue
        ratio = theirs["microseconds"] / row["microseconds"]
        print(
            f"{row['key']:<22}{row['microseconds']:>10.1f}{theirs['microseconds']:>10.1f}{ratio:>11.2f}"
            f"{theirs['compileSeconds']:>16.1f}")

    def seconds(values):
        return ", ".join(f"{value:.2f}" for value in values) or "-"

    print(f"a new variant's first result, seconds: ours {seconds(ours['newVariantSeconds'])}; flex {seconds(flex['newSeconds'])}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", default="flex.json")
    parser.add_argument("--ours", help="the benchmark's JSON, to be printed beside")
    parser.add_argument("--length", type=int, default=8192)
    parser.add_argument("--samples", type=int, default=7)
    parser.add_argument("--eager-masks", action="store_true", help="make masks of blocks without the compiler")
    parser.add_argument("--filter", default="", help="only cases whose keys contain this")
    arguments = parser.parse_args()

    def save(report):
        with open(arguments.json, "w") as file:
            json.dump(report, file, indent=1)

    report = measure(arguments.length, arguments.samples, arguments.filter, save, arguments.eager_masks)
    for name, text in report["failures"].items():
        print(f"{name}: {text}")
    if arguments.ours:
        with open(arguments.ours) as file:
            compare(json.load(file), report)
    return 0


if __name__ == "__main__":
    sys.exit(main())
