"""Generation with Hugging Face transformers on a GPU, against SDPA there."""

import unittest
import warnings

from support import needs_cuda, torch
from transformers_models import REFERENCE, generate, make_model, needs_transformers, prompts, transformers

if torch is not None and transformers is not None:
    from flashinfer_swift.errors import UnsupportedError
    from flashinfer_swift.transformers import NAME, PagedKVCache, capture_decoding, register


@needs_transformers
@needs_cuda
class CUDATests(unittest.TestCase):
    """On the GPU float16 and bfloat16: no further from float32 than twice SDPA, and ids differ only between near-equals."""

    def setUp(self):
        register()

    def check(self, name, dtype, lengths=(60, 41, 7), tokens=24):
        model, inputs = make_model(name, dtype=dtype, device="cuda"), prompts(lengths, device="cuda")
        reference = REFERENCE.get(name, "sdpa")
        truth = generate(make_model(name, dtype=dtype, device="cuda").float(), reference, inputs, tokens, **self.LOGITS)
        other = generate(model, reference, inputs, tokens, **self.LOGITS)
        for label, extra in (("dense", {}), ("pages", dict(past_key_values=PagedKVCache()))):
            with self.subTest(model=name, dtype=dtype, keys=label):
                self.as_good(generate(model, NAME, inputs, tokens, **self.LOGITS, **extra), other, truth, inputs)

    LOGITS = dict(output_logits=True, return_dict_in_generate=True)

    def as_good(self, found, other, truth, inputs):
        """No further from the truth than twice the other, and other ids only where the other saw near-equals."""
        limit = 2 * self.error(other, truth, inputs) + 2e-2
        self.assertLessEqual(self.error(found, truth, inputs), limit)
        self.same_but_for_ties(found, other, inputs, 2 * limit)

    @staticmethod
    def steps(result, inputs):
        begin = inputs["input_ids"].shape[1]
        return torch.stack([logits.float() for logits in result.logits], 1), result.sequences[:, begin:]

    def error(self, found, truth, inputs):
        """The greatest difference of logits over tokens that both came to in the same way."""
        (ours, our_ids), (theirs, their_ids) = self.steps(found, inputs), self.steps(truth, inputs)
        same = torch.cumprod((our_ids == their_ids).int(), 1).roll(1, 1)
        same[:, 0] = 1
        # Random models in bfloat16 come to near-equals after a few tokens; one decoded token is compared at the least.
        self.assertGreater(int(same.sum()), same.shape[0], "all requests differ at once")
        return float((ours - theirs).abs().amax(-1)[same.bool()].max())

    def same_but_for_ties(self, found, other, inputs, margin):
        (_, our_ids), (theirs, their_ids) = self.steps(found, inputs), self.steps(other, inputs)
        for request in range(our_ids.shape[0]):
            differ = (our_ids[request] != their_ids[request]).nonzero()
            if len(differ):
                at = int(differ[0])
                gap = theirs[request, at].max() - theirs[request, at, our_ids[request, at]]
                self.assertLess(float(gap), margin, f"request {request} differs at {at}")

    def test_llama(self):
        self.check("llama", torch.bfloat16)

    def test_float16(self):
        self.check("llama", torch.float16)

    def test_windows(self):
        self.check("mistral", torch.bfloat16)
        self.check("qwen2", torch.bfloat16)

    def test_normalised_heads(self):
        self.check("qwen3", torch.bfloat16)

    def test_soft_cap(self):
        self.check("gemma2", torch.bfloat16)

    def test_sinks(self):
        self.check("gpt_oss", torch.bfloat16)

    def test_long_prompts(self):
        self.check("llama", torch.bfloat16, (700, 333), 8)

    def test_8_bit_pages(self):
        model, inputs = make_model("llama", dtype=torch.bfloat16, device="cuda"), prompts((60, 41), device="cuda")
        rows = inputs["attention_mask"].bool()
        with torch.no_grad():
            expected = model(**inputs).logits[rows].float()
            model.set_attn_implementation(NAME)
            cache = PagedKVCache(dtype=torch.float8_e4m3fn, k_scale=0.05, v_scale=0.05)
            found = model(**inputs, past_key_values=cache).logits[rows].float()
        self.assertGreater(float(torch.cosine_similarity(found, expected, dim=-1).mean()), 0.95)

    def graphs(self, *names):
        """A captured pass replays as lengths, pages and batches change."""
        for name in names:
            model, exact = (make_model(name, dtype=torch.bfloat16, device="cuda") for _ in range(2))
            exact = exact.float()
            for cache in (PagedKVCache(max_tokens=2048), PagedKVCache(page_size=8)):
                for lengths in ((60, 41, 7), (33,), (20, 50, 9)):
                    inputs = prompts(lengths, device="cuda")
                    truth = generate(exact, REFERENCE.get(name, "sdpa"), inputs, 40, **self.LOGITS)
                    cache.reset()
                    other = generate(model, NAME, inputs, 40, past_key_values=cache, **self.LOGITS)
                    cache.reset()
                    with capture_decoding(model) as decoding, self.subTest(model=name, lengths=lengths):
                        found = generate(model, NAME, inputs, 40, past_key_values=cache, **self.LOGITS)
                        self.assertGreater(decoding.replays, 20)
                        self.as_good(found, other, truth, inputs)
                    cache.table.check_invariants()

    def test_graphs(self):
        self.graphs("llama", "mistral")

    def test_graphs_of_two_kinds_of_layers(self):
        self.graphs("gemma2")

    def test_experts(self):
        """Where experts are chosen on the host capture fails, and generation goes on without."""
        model, cache, inputs = make_model("gpt_oss", dtype=torch.bfloat16, device="cuda"), PagedKVCache(), prompts(device="cuda")
        exact = make_model("gpt_oss", dtype=torch.bfloat16, device="cuda").float()
        truth = generate(exact, "eager", inputs, **self.LOGITS)
        other = generate(model, NAME, inputs, past_key_values=cache, **self.LOGITS)
        cache.reset()
        with warnings.catch_warnings(record=True), capture_decoding(model):
            warnings.simplefilter("always")
            found = generate(model, NAME, inputs, past_key_values=cache, **self.LOGITS)
        self.as_good(found, other, truth, inputs)
        cache.table.check_invariants()

    def test_float32_is_refused(self):
        model = make_model("llama", device="cuda")
        with self.assertRaisesRegex(UnsupportedError, "float32"):
            generate(model, NAME, prompts(device="cuda"), past_key_values=PagedKVCache())


if __name__ == "__main__":
    unittest.main()
