#!/usr/bin/env python3
"""Times `generate` of Hugging Face transformers with SDPA and with this package, in turn, on the same weights and prompts.

    python3 transformers_generation.py [--device cuda|cpu] [--model FOLDER [--gguf FILE] | --config NAME...] [--batch 1 8 32]
                                       [--prompt 512] [--tokens 64] [--dtype NAME] [--json FILE]

* Prefill is `generate` of one token; decode is the further time of `generate` of `--tokens` more. Medians of `--repeats` rounds, each
  of which runs every way once. Prompts of a batch have different lengths (half of `--prompt` to all of it) and are padded on the left;
  tokens of padding are not counted.
* `--config` makes random weights from a seed: speed depends on the shapes alone. Then token ids say little, as random models hardly
  prefer a token, so the last column tells the greatest difference of a prefill's logits from SDPA's, beside how many requests got
  the same ids throughout.
"""

from __future__ import annotations

import argparse
import contextlib
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
import transformers

from flashinfer_swift.transformers import PagedKVCache, capture_decoding, register

#: Shapes of models that are known by these names; weights are random.
CONFIGS = {
    "tiny": dict(
        hidden_size=128, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2, head_dim=32, intermediate_size=256,
        vocab_size=1024),
    "smollm2-135m": dict(
        hidden_size=576, num_hidden_layers=30, num_attention_heads=9, num_key_value_heads=3, head_dim=64, intermediate_size=1536,
        vocab_size=49152, max_position_embeddings=8192),
    "llama-3.2-1b": dict(
        hidden_size=2048, num_hidden_layers=16, num_attention_heads=32, num_key_value_heads=8, head_dim=64,
        intermediate_size=8192, vocab_size=128256, max_position_embeddings=131072),
    "llama-3.1-8b": dict(
        hidden_size=4096, num_hidden_layers=32, num_attention_heads=32, num_key_value_heads=8, head_dim=128,
        intermediate_size=14336, vocab_size=128256, max_position_embeddings=131072),
}


def load(arguments, config, dtype):
    if arguments.model:
        options = {"gguf_file": arguments.gguf} if arguments.gguf else {}
        model = transformers.AutoModelForCausalLM.from_pretrained(arguments.model, dtype=dtype, **options)
        return model.eval().to(arguments.device)
    torch.manual_seed(0)
    config = transformers.LlamaConfig(**CONFIGS[config], tie_word_embeddings=True, bos_token_id=1, eos_token_id=2)
    with torch.device(arguments.device):
        return transformers.AutoModelForCausalLM.from_config(config, dtype=dtype).eval()


def make_inputs(batch, length, vocabulary, device):
    """Prompts of `length / 2` to `length` tokens, padded on the left."""
    generator = torch.Generator().manual_seed(batch)
    ids = torch.randint(3, vocabulary, (batch, length), generator=generator)
    mask = torch.ones_like(ids)
    for row in range(batch):
        mask[row, :(length // 2) * row // max(batch, 1)] = 0
    return dict(input_ids=(ids * mask).to(device), attention_mask=mask.to(device)), int(mask.sum())


def timed(device, call):
    if device == "cuda":
        torch.cuda.synchronize()
    begin = time.perf_counter()
    result = call()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - begin, result


def place(arguments):
    return torch.cuda.get_device_name() if arguments.device == "cuda" else f"cpu, {torch.get_num_threads()} threads"


def measure(arguments, config, dtype, name):
    """All batches and ways of one model."""
    model = load(arguments, config, dtype)
    print(
        f"{config}, {dtype}, {place(arguments)}; torch {torch.__version__}, transformers "
        f"{transformers.__version__}, flashinfer_swift {flashinfer_swift.__version__}; prompts of {arguments.prompt // 2} to "
        f"{arguments.prompt}, {arguments.tokens} tokens each", flush=True)
    print(f"{'batch':>5}  {'way':22}{'prefill tok/s':>14}{'decode tok/s':>14}{'x SDPA':>16}  logits, same ids", flush=True)
    rows = []
    # Pages stay allocated between rounds, as they would in a server.
    for batch in arguments.batch:
        inputs, prompt_tokens = make_inputs(batch, arguments.prompt, model.config.vocab_size, arguments.device)
        pages = PagedKVCache(max_tokens=batch * (arguments.prompt + arguments.tokens + 16))
        plain = contextlib.nullcontext()
        ways = {"sdpa": ("sdpa", None, plain), f"{name}": (name, None, plain), f"{name}, pages": (name, pages, plain)}
        if arguments.device == "cuda":
            decoding = capture_decoding(model)
            decoding.remove()
            ways[f"{name}, pages, graphs"] = (name, pages, decoding)
        times = {way: ([], []) for way in ways}
        ids, logits = {}, {}

        def run(way, tokens):
            attention, cache, captured = ways[way]
            if cache is not None:
                cache.reset()
            model.set_attn_implementation(attention)
            with captured:
                return timed(arguments.device, lambda: model.generate(
                    **inputs, max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False, past_key_values=cache,
                    pad_token_id=0))

        for way, (attention, cache, _) in ways.items():
            # Kernels are loaded, pages allocated, graphs captured, and for SDPA every length was there once, as cuDNN prepares each.
            run(way, arguments.tokens + 1)
            if cache is not None:
                cache.reset()
            model.set_attn_implementation(attention)
            with torch.no_grad():
                logits[way] = model(**inputs, past_key_values=cache, logits_to_keep=1).logits.float()
        for _ in range(arguments.repeats):
            for way in ways:
                first, _ = run(way, 1)
                whole, ids[way] = run(way, arguments.tokens + 1)
                times[way][0].append(first)
                times[way][1].append(whole - first)
        base = None
        for way in ways:
            first, rest = (statistics.median(values) for values in times[way])
            row = dict(
                model=config, batch=batch, way=way, prefill=prompt_tokens / first, decode=batch * arguments.tokens / rest,
                difference=float((logits[way] - logits["sdpa"]).abs().max()), scale=float(logits["sdpa"].abs().max()),
                same=int((ids[way] == ids["sdpa"]).all(1).sum()))
            base = base or row
            rows.append(row)
            ratio = f"{row['prefill'] / base['prefill']:.2f} / {row['decode'] / base['decode']:.2f}"
            print(
                f"{batch:5}  {way:22}{row['prefill']:14.0f}{row['decode']:14.1f}{ratio:>16}  {row['difference']:.3g} of "
                f"{row['scale']:.3g}, {row['same']} of {batch}", flush=True)
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--model")
    parser.add_argument("--gguf")
    parser.add_argument("--config", choices=CONFIGS, nargs="+", default=["smollm2-135m"])
    parser.add_argument("--dtype")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=pathlib.Path)
    arguments = parser.parse_args()
    dtype = getattr(torch, arguments.dtype or ("bfloat16" if arguments.device == "cuda" else "float32"))
    name = register()
    results = []
    for config in [arguments.model] if arguments.model else arguments.config:
        results += measure(arguments, config, dtype, name)
        if arguments.json:
            arguments.json.write_text(json.dumps(dict(
                dtype=str(dtype), device=place(arguments), prompt=arguments.prompt, tokens=arguments.tokens,
                torch=torch.__version__, transformers=transformers.__version__, rows=results), indent=1) + "\n")


if __name__ == "__main__":
    main()
