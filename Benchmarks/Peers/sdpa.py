#!/usr/bin/env python3
"""PyTorch CPU attention on the shapes of the `attention` benchmark, as a JSON object of rates.

Prefill: causal, 32 query heads over 8 key/value heads, head dim 128, the better of enable_gqa and expanded keys; GFLOP/s.
Decode: 16 requests of 4,096 keys, the best of enable_gqa, heads packed as queries, and plain matmul + softmax; GB/s of
the unexpanded cache. Needs only torch (pip install torch); `--threads N`.
"""

import argparse
import json
import statistics
import sys
import time

try:
    import torch
    import torch.nn.functional as F
except ImportError:
    sys.exit("sdpa.py: needs PyTorch: pip install torch")


def median_seconds(body, runs):
    body()
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        body()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def prefill(dtype, length):
    q = torch.randn(1, 32, length, 128, dtype=dtype)
    k, v = (torch.randn(1, 8, length, 128, dtype=dtype) for _ in range(2))
    ke, ve = (t.repeat_interleave(4, dim=1).contiguous() for t in (k, v))
    runs = 3 if length >= 4096 else 5
    best = min(
        median_seconds(lambda: F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True), runs),
        median_seconds(lambda: F.scaled_dot_product_attention(q, ke, ve, is_causal=True), runs),
    )
    return 4 * length * length * 128 * 32 / 2 / best / 1e9


def decode(dtype):
    q = torch.randn(16, 32, 1, 128, dtype=dtype)
    k, v = (torch.randn(16, 8, 4096, 128, dtype=dtype) for _ in range(2))
    packed = q.reshape(16, 8, 4, 128)

    def matmul():
        weights = torch.softmax(packed @ k.transpose(-1, -2) * 128**-0.5, dim=-1)
        return weights @ v

    forms = [
        lambda: F.scaled_dot_product_attention(q, k, v, enable_gqa=True),
        lambda: F.scaled_dot_product_attention(packed, k, v),
        matmul,
    ]
    best = min(median_seconds(form, 3) for form in forms)
    return 2 * k.numel() * k.element_size() / best / 1e9


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    threads = parser.parse_args().threads
    torch.set_num_threads(threads)
    names = {torch.bfloat16: "bfloat16", torch.float16: "float16", torch.float32: "float32"}
    rates = {}
    with torch.inference_mode():
        for dtype in (torch.bfloat16, torch.float32):
            for length in (1024, 2048, 4096):
                rates[f"prefill/{names[dtype]}/{length}"] = prefill(dtype, length)
        for dtype in names:
            rates[f"decode/{names[dtype]}"] = decode(dtype)
    json.dump(rates, sys.stdout)


if __name__ == "__main__":
    main()
