"""What the tests of generation with transformers share: small random models, padded prompts, greedy generation."""

import unittest

from support import torch

try:
    import transformers
except ImportError:
    transformers = None

needs_transformers = unittest.skipIf(torch is None or transformers is None, "torch and transformers are not both installed")

#: Of small models: every head dim, group and layer kind that they share.
SHAPE = dict(
    hidden_size=128, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2, head_dim=32, intermediate_size=192,
    vocab_size=320, initializer_range=0.3, pad_token_id=0, bos_token_id=1, eos_token_id=2)


def config(name):
    """A small model of an architecture; windows are shorter than the prompts."""
    if name == "llama":
        return transformers.LlamaConfig(**SHAPE)
    if name == "mistral":
        return transformers.MistralConfig(**SHAPE, sliding_window=9)
    if name == "qwen2":
        return transformers.Qwen2Config(
            **SHAPE, use_sliding_window=True, sliding_window=11,
            layer_types=["full_attention", "sliding_attention", "full_attention"])
    if name == "qwen3":
        return transformers.Qwen3Config(**SHAPE)
    if name == "gemma2":
        return transformers.Gemma2Config(
            **SHAPE, sliding_window=8, attn_logit_softcapping=4.0, final_logit_softcapping=None, query_pre_attn_scalar=50)
    if name == "gpt_oss":
        return transformers.GptOssConfig(
            **SHAPE, sliding_window=8, num_local_experts=4, num_experts_per_tok=2,
            layer_types=["sliding_attention", "full_attention", "sliding_attention"])
    raise ValueError(name)


def make_model(name, seed=0, dtype=None, device="cpu"):
    torch.manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_config(config(name)).eval()
    for parameter_name, parameter in model.named_parameters():
        if parameter_name.endswith("sinks"):
            torch.nn.init.normal_(parameter)
    return model.to(device=device, dtype=dtype)


#: What a model is compared with: SDPA knows neither soft caps nor sinks.
REFERENCE = {"gemma2": "eager", "gpt_oss": "eager"}
GREEDY = dict(do_sample=False, pad_token_id=0, eos_token_id=None)


def prompts(lengths=(20, 13, 7), seed=1, device="cpu", side="left"):
    """Random prompts as one batch, padded."""
    generator = torch.Generator().manual_seed(seed)
    width = max(lengths)
    ids = torch.randint(3, SHAPE["vocab_size"], (len(lengths), width), generator=generator)
    mask = torch.zeros_like(ids)
    for row, length in enumerate(lengths):
        mask[row, width - length if side == "left" else 0:width if side == "left" else length] = 1
    return dict(input_ids=(ids * mask).to(device), attention_mask=mask.to(device))


def generate(model, attention, inputs, tokens=24, **options):
    model.set_attn_implementation(attention)
    return model.generate(**inputs, max_new_tokens=tokens, **{**GREEDY, **options})
