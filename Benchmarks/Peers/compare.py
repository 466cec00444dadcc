#!/usr/bin/env python3
"""Joins the JSON of `FlashInferBenchmarks cuda-attention` with that of flashinfer_peer.py, as one table.

    compare.py ours.json peer.json [--markdown] [--below RATIO]

The ratio is the peer's time over ours: above 1.0 we are faster. The last lines are what an average hides: the worst case of each
kind, and each case in which the peer is ahead.
"""

import argparse
import json
import math
import sys


def joined(ours, peer):
    """Rows of (key, our row, the peer's row or None), in our order."""
    return [(row["key"], row, peer["rows"].get(row["key"])) for row in ours["rows"]]


def ratio(row, other):
    return other["microseconds"] / row["microseconds"] if other else None


def summary(rows):
    """{kind: (cases, geometric mean, worst ratio, its key, how many below 1)}"""
    found = {}
    for key, row, other in rows:
        value = ratio(row, other)
        if value is not None:
            found.setdefault(row["kind"], []).append((value, key))
    return {
        kind: (
            len(values), math.exp(sum(math.log(v) for v, _ in values) / len(values)), *min(values),
            sum(v < 1 for v, _ in values))
        for kind, values in found.items()
    }


def cells(key, row, other):
    value = ratio(row, other)
    rate = f"{row['teraflops']:.0f} TF" if row["kind"] == "prefill" else f"{row['gigabytesPerSecond']:.0f} GB/s"
    return [
        key, f"{row['microseconds']:.1f}", rate, f"{other['microseconds']:.1f}" if other else "-",
        other["kernel"] if other else "-", f"{value:.2f}x" if value else "-"]


def table(lines, markdown):
    heads = ["case", "us", "rate", "peer us", "peer kernel", "ratio"]
    if markdown:
        print("| " + " | ".join(heads) + " |")
        print("|---" * 1 + "|---:" * (len(heads) - 1) + "|")
        for line in lines:
            print("| " + " | ".join(line) + " |")
        return
    widths = [max(len(line[column]) for line in [heads] + lines) for column in range(len(heads))]
    for line in [heads] + lines:
        print(line[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:])), sep="  ")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ours")
    parser.add_argument("peer")
    parser.add_argument("--markdown", action="store_true")
    parser.add_argument("--below", type=float, help="only cases whose ratio is below this")
    arguments = parser.parse_args()
    with open(arguments.ours) as first, open(arguments.peer) as second:
        ours, peer = json.load(first), json.load(second)
    rows = joined(ours, peer)
    if arguments.below is not None:
        shown = [r for r in rows if (ratio(r[1], r[2]) or math.inf) < arguments.below]
    else:
        shown = rows
    table([cells(*row) for row in shown], arguments.markdown)
    print()
    print(f"{ours['device']}, against {peer['peer']} on {peer['device']}")
    names = {"copy": "GB/s copy", "read": "GB/s read", "product": "TFLOP/s bf16 product"}
    for name, found in (("ours", ours.get("ceilings")), ("peer's", peer.get("ceilings"))):
        if found:
            print(f"ceilings, {name}: " + ", ".join(
                f"{found[k]:.0f} {unit}" for k, unit in names.items() if found.get(k)))
    for kind, (count, mean, worst, key, below) in summary(rows).items():
        print(f"{kind}: {count} cases, mean ratio {mean:.2f}, worst {worst:.2f} ({key}), {below} below 1.0")
    for key, row, other in rows:
        value = ratio(row, other)
        if value is not None and value < 1:
            print(f"the peer is ahead: {key}, {value:.2f} ({other['kernel']})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
