#!/usr/bin/env python3
"""How long FlashInfer takes from a new variant's source to its first result, as JSON: beside "a new variant" of `cuda-variants`.

    FlashInferBenchmarks cuda-variants --json ours.json
    variant_peer.py --json peer.json

The variant adds a slope by distance to scores, in bfloat16 with heads of 128, causal. Its number is new each time, so that no cache
has it; what every later variant would find ready (ninja, headers in the system's cache) is warmed by a first one, which is not counted.
FlashInfer compiles all four kinds of mask of a module, side by side on as many processors as there are: it has no smaller unit.
"""

import argparse
import json
import time

HEADS, DIM, LENGTH = 8, 128, 256

TRANSFORM = """
  REGISTER_LOGITS_TRANSFORM(params, logits, batch_idx, qo_idx, kv_idx, qo_head_idx, kv_head_idx, {
    return logits + %sf * float(int(kv_idx) - int(qo_idx));
  });
"""

SOURCES = {
    "fa2": """
struct Sloped : AttentionVariantBase {
  static constexpr bool use_softmax = true;
  uint32_t qo_len, kv_len, window_left;
  float sm_scale_log2;
  template <typename Params>
  __device__ __host__ Sloped(const Params& params, uint32_t batch_idx, uint8_t* smem_ptr) {
    qo_len = params.get_qo_len(batch_idx);
    kv_len = params.get_kv_len(batch_idx);
    window_left = kv_len;
    sm_scale_log2 = params.sm_scale * math::log2e;
  }
""" + TRANSFORM + "};",
    "fa3": """
struct Sloped : AttentionVariantBase {
  float sm_scale_log2;
  template <typename MainloopParams, typename BlockCoord>
  __device__ Sloped(const MainloopParams& params, const BlockCoord& block_coord) {
    sm_scale_log2 = params.additional_params.sm_scale * math::log2e;
  }
  template <int NUM_ROWS_PER_THREAD>
  __device__ auto GetAttentionUpdater() {
    return OnlineSoftmax<NUM_ROWS_PER_THREAD, true>(sm_scale_log2);
  }
""" + TRANSFORM + "};",
}


def first_result(backend, slope, inputs):
    """Seconds to the first result, of which the compiler's, and how far the result is from torch's."""
    import torch
    from flashinfer.jit.attention import gen_customize_single_prefill_module
    from flashinfer.prefill import single_prefill_with_kv_cache_with_jit_module

    q, k, v = inputs
    scale = DIM ** -0.5
    start = time.perf_counter()
    module = gen_customize_single_prefill_module(
        backend, f"sloped_{backend}_{time.time_ns()}", torch.bfloat16, torch.bfloat16, torch.bfloat16, DIM, DIM, [], [], ["sm_scale"],
        ["double"], "Sloped", SOURCES[backend] % slope).build_and_load()
    compiled = time.perf_counter() - start
    found = single_prefill_with_kv_cache_with_jit_module(module, q, k, v, scale, mask_mode=1)
    torch.cuda.synchronize()
    seconds = time.perf_counter() - start
    place = torch.arange(LENGTH, device="cuda")
    distance = place[None, :] - place[:, None]
    scores = scale * (torch.einsum("qhd,khd->hqk", q.float(), k.float()) + slope * distance)
    scores = scores.masked_fill(distance > 0, float("-inf"))
    expected = torch.einsum("hqk,khd->qhd", torch.softmax(scores, -1), v.float())
    return seconds, compiled, (found.float() - expected).abs().max().item()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", help="where to write the report")
    parser.add_argument("--backends", default="fa2,fa3", help="of fa2 and fa3, those to be timed")
    parser.add_argument("--samples", type=int, default=1, help="variants of each, after the first")
    arguments = parser.parse_args()
    import flashinfer
    import torch

    inputs = [torch.randn(LENGTH, HEADS, DIM, dtype=torch.bfloat16, device="cuda") for _ in range(3)]
    report = {
        "device": torch.cuda.get_device_name(), "peer": f"FlashInfer {flashinfer.__version__}", "rows": {}, "failures": {},
    }
    number = time.time() % 1
    for backend in arguments.backends.split(","):
        for sample in range(arguments.samples + 1):
            try:
                seconds, compiled, error = first_result(backend, round(0.001 * (number + sample), 9), inputs)
                kind = "first variant of a machine" if sample == 0 else "new variant"
                print(f"{backend}: {kind} {seconds:.1f} s, compiled in {compiled:.1f} s, error {error:.4f}", flush=True)
                report["rows"].setdefault(backend, []).append(
                    {"seconds": seconds, "compileSeconds": compiled, "error": error, "isFirst": sample == 0})
            except Exception as error:  # what the peer cannot do is a fact about the peer
                report["failures"][backend] = f"{type(error).__name__}: {error}"[:400]
                print(f"{backend}: {report['failures'][backend]}", flush=True)
                break
            if arguments.json:
                with open(arguments.json, "w") as file:
                    json.dump(report, file, indent=1)


if __name__ == "__main__":
    main()
