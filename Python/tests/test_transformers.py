"""Generation with Hugging Face transformers: this attention against SDPA (eager where a model has no SDPA), on the same weights."""

import copy
import os
import pathlib
import unittest
import warnings

from support import torch
from transformers_models import REFERENCE, generate, make_model, needs_transformers, prompts, transformers

if torch is not None and transformers is not None:
    from flashinfer_swift.errors import InvalidArgumentError, UnsupportedError
    from flashinfer_swift.transformers import NAME, PagedKVCache, register
    from flashinfer_swift.transformers._mask import CAUSAL, CUSTOM, FULL, BatchMask
    from flashinfer_swift.transformers._pages import PageTable

_threads = None


def setUpModule():
    """One thread: on small models torch's threads wait for each other most of the time."""
    global _threads
    if torch is not None:
        _threads = torch.get_num_threads()
        torch.set_num_threads(1)


def tearDownModule():
    if torch is not None:
        torch.set_num_threads(_threads)


@needs_transformers
class PageTableTests(unittest.TestCase):
    def table(self, requests=3, page_size=4):
        table = PageTable(page_size)
        table.begin(requests)
        return table

    def test_tokens_lie_without_gaps(self):
        table = self.table()
        holds = torch.tensor([[1, 1, 1, 1, 1], [0, 0, 1, 1, 1], [0, 0, 0, 0, 0]], dtype=torch.bool)
        step = table.advance(5, holds)
        table.check_invariants()
        self.assertEqual(step.counts, [5, 3, 0])
        self.assertEqual(step.qo_indptr.tolist(), [0, 5, 8, 8])
        self.assertEqual(step.kv_indptr.tolist(), [0, 2, 3, 3])
        self.assertEqual(step.last_page_len.tolist(), [1, 3, 0])
        self.assertEqual(step.rows.tolist(), [0, 1, 2, 3, 4, 7, 8, 9])
        pages, rows = step.slots[:, 7:10].tolist()
        self.assertEqual(pages, [table.pages[1][0]] * 3)
        self.assertEqual(rows, [0, 1, 2])
        self.assertEqual(step.slots[0, 10:].tolist(), [-1] * 5)
        self.assertFalse(table.has_gaps)
        step = table.advance(1, None)
        self.assertEqual(step.lengths, [6, 4, 1])
        self.assertTrue(table.has_gaps is False)
        table.advance(2, torch.tensor([[True, False]] * 3))
        table.advance(1, None)
        self.assertTrue(table.has_gaps)
        table.check_invariants()

    def test_random_histories(self):
        generator = torch.Generator().manual_seed(5)

        def number(limit):
            return int(torch.randint(0, limit, (1,), generator=generator))

        for page_size in (1, 3, 16):
            table = self.table(4, page_size)
            for _ in range(200):
                act = number(6)
                if act < 3:
                    length = (1, 1, 7)[act]
                    holds = torch.rand((table.requests, length), generator=generator) < 0.8 if number(2) else None
                    step = table.advance(length, holds)
                    self.assertEqual(int(step.kv_indptr[-1]), len(step.kv_indices))
                    used = step.slots[:, step.slots[0] >= 0].t().tolist()
                    self.assertEqual(len(used), len(set(map(tuple, used))), "two tokens in one place")
                elif act == 3:
                    table.crop(number(4))
                elif act == 4:
                    table.select([number(table.requests) for _ in range(4)])
                elif number(10) == 0:
                    table.clear()
                    table.begin(4)
                table.check_invariants()

    def test_sharing(self):
        table = self.table(2)
        table.advance(6, None)
        copies = table.select([0, 0, 1])
        table.check_invariants()
        self.assertEqual(len(copies), 1)
        self.assertEqual(table.pages[0][0], table.pages[1][0])
        self.assertNotEqual(table.pages[0][1], table.pages[1][1])
        self.assertEqual(table.crop(2), [(table.pages[0][0], table.pages[0][0])][1:], "a full page stays shared")
        self.assertEqual(len(table.crop(1)), 1, "one that is not full any more does not")
        table.check_invariants()
        with self.assertRaisesRegex(InvalidArgumentError, "request 5 is selected"):
            table.select([5])


@needs_transformers
class ModelTests(unittest.TestCase):
    """Small random models in float32: token ids are SDPA's."""

    def setUp(self):
        register()

    def check(self, name, inputs=None, **options):
        model, inputs = make_model(name), inputs or prompts()
        expected = generate(model, REFERENCE.get(name, "sdpa"), inputs, **options)
        self.assertGreater(len(expected.unique()), 20, "the model says one thing only")
        cache = PagedKVCache(page_size=4)
        for label, extra in (("dense keys", {}), ("pages", dict(past_key_values=cache))):
            with self.subTest(model=name, keys=label):
                self.assertEqual(generate(model, NAME, inputs, **options, **extra).tolist(), expected.tolist())
        cache.table.check_invariants()
        return model, cache

    def test_llama(self):
        _, cache = self.check("llama")
        self.assertEqual(cache.tokens, 20 + 13 + 7 + 3 * 23)  # no padding; the last token is never fed
        self.check("llama", prompts((9,)))

    def test_windows(self):
        self.check("mistral")
        self.check("qwen2")

    def test_normalised_heads(self):
        self.check("qwen3")

    def test_soft_cap(self):
        self.check("gemma2")

    def test_sinks(self):
        self.check("gpt_oss")

    def test_one_plan_a_pass(self):
        from flashinfer_swift.transformers import _attention

        calls = []
        original = _attention.plan
        _attention.plan = lambda *given: (calls.append(given[1]), original(*given))[1]
        try:
            generate(make_model("llama"), NAME, prompts(), tokens=5, past_key_values=PagedKVCache())
            self.assertEqual(len(calls), 5)
            calls.clear()
            generate(make_model("llama"), NAME, prompts(), tokens=5, past_key_values=None)
            self.assertEqual(len(calls), 5)
            calls.clear()
            generate(make_model("gemma2"), NAME, prompts(), tokens=5, past_key_values=PagedKVCache())
            self.assertEqual(len(calls), 10, "two kinds of layers")
        finally:
            _attention.plan = original

    def test_static_cache(self):
        for name in ("llama", "mistral", "gemma2"):
            model, inputs = make_model(name), prompts()
            options = dict(cache_implementation="static", disable_compile=True)
            expected = generate(model, REFERENCE.get(name, "sdpa"), inputs, **options)
            self.assertEqual(generate(model, NAME, inputs, **options).tolist(), expected.tolist())
            self.assertEqual(generate(model, NAME, prompts((9,)), **options).tolist(),
                             generate(model, REFERENCE.get(name, "sdpa"), prompts((9,)), **options).tolist())

    def test_beams(self):
        self.check("llama", num_beams=3, num_return_sequences=2)
        self.check("mistral", num_beams=2)

    def test_sampling(self):
        model, inputs = make_model("llama"), prompts()
        found = []
        for attention, cache in (("sdpa", None), (NAME, None), (NAME, PagedKVCache())):
            torch.manual_seed(3)
            found.append(generate(
                model, attention, inputs, do_sample=True, top_p=0.95, num_return_sequences=2, past_key_values=cache).tolist())
        self.assertEqual(found[1], found[0])
        self.assertEqual(found[2], found[0])

    def test_passes_in_fixed_buffers(self):
        """What CUDA graphs are made of, without a graph."""
        from flashinfer_swift.transformers import GraphDecoding

        for name in ("llama", "mistral", "gemma2", "gpt_oss"):
            model, inputs = make_model(name), prompts()
            expected = generate(model, REFERENCE.get(name, "sdpa"), inputs)
            cache = PagedKVCache(page_size=4, max_tokens=100)
            with GraphDecoding(model, on_cpu=True):
                self.assertEqual(generate(model, NAME, inputs, past_key_values=cache).tolist(), expected.tolist())
                self.assertEqual(len(cache.passes), 1, "pages were added once: the passes before are dropped")
                known = next(iter(cache.passes.values()))
                self.assertEqual(len(known.plans.plans), {"llama": 1, "mistral": 1}.get(name, 2))
                cache.reset()
                self.assertEqual(generate(model, NAME, inputs, past_key_values=cache).tolist(), expected.tolist())
                self.assertIs(next(iter(cache.passes.values())), known)
            self.assertNotIn("forward", model.__dict__)
        # A mask that no graph holds: the pass is taken back and run as ever.
        model, cache = make_model("llama"), PagedKVCache(page_size=4)
        with GraphDecoding(model, on_cpu=True) as decoding:
            from flashinfer_swift.transformers import _graphs

            model.set_attn_implementation(NAME)
            original, _graphs.GraphPlans.of = _graphs.GraphPlans.of, lambda *_: (_ for _ in ()).throw(_graphs.NotCapturable("no"))
            try:
                with warnings.catch_warnings(record=True) as said:
                    warnings.simplefilter("always")
                    found = generate(model, NAME, prompts(), past_key_values=cache)
                self.assertIn("decoding goes on without CUDA graphs: no", [str(warning.message) for warning in said])
            finally:
                _graphs.GraphPlans.of = original
            self.assertTrue(decoding._refused)
        self.assertEqual(found.tolist(), generate(model, "sdpa", prompts()).tolist())
        cache.table.check_invariants()

    def test_drafts_are_taken_back(self):
        model = make_model("llama")
        inputs = prompts((12,))
        inputs["input_ids"] = inputs["input_ids"].repeat(1, 3)
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
        expected = generate(model, "sdpa", inputs)
        cache = PagedKVCache(page_size=4)
        found = generate(model, NAME, inputs, prompt_lookup_num_tokens=4, past_key_values=cache)
        self.assertEqual(found.tolist(), expected.tolist())
        cache.table.check_invariants()

    def test_a_conversation_goes_on(self):
        model, cache = make_model("mistral"), PagedKVCache(page_size=4)
        inputs = prompts()
        first = generate(model, NAME, inputs, tokens=6, past_key_values=cache)
        more = torch.randint(3, 320, (3, 9), generator=torch.Generator().manual_seed(8))
        ids = torch.cat([first, more], 1)
        mask = torch.cat([inputs["attention_mask"], torch.ones_like(ids[:, 20:])], 1)
        expected = generate(model, "sdpa", dict(input_ids=ids, attention_mask=mask))
        found = generate(model, NAME, dict(input_ids=ids, attention_mask=mask), past_key_values=cache)
        self.assertEqual(found.tolist(), expected.tolist())
        cache.reset()
        self.assertEqual((cache.tokens, cache.get_seq_length(), cache.batch_size), (0, 0, -1))
        again = generate(model, NAME, prompts((5, 30)), past_key_values=cache)
        self.assertEqual(again.tolist(), generate(model, "sdpa", prompts((5, 30))).tolist())

    def test_a_copy_goes_its_own_way(self):
        model, cache, inputs = make_model("llama"), PagedKVCache(page_size=4), prompts((14,))
        model.set_attn_implementation(NAME)
        with torch.no_grad():
            model(input_ids=inputs["input_ids"][:, :10], past_key_values=cache)
        for seed in (4, 5):
            more = torch.randint(3, 320, (1, 6), generator=torch.Generator().manual_seed(seed))
            both = dict(input_ids=torch.cat([inputs["input_ids"][:, :10], more], 1), attention_mask=torch.ones((1, 16), dtype=torch.int64))
            found = generate(model, NAME, both, past_key_values=copy.deepcopy(cache))
            self.assertEqual(found.tolist(), generate(model, "sdpa", both).tolist())
        self.assertEqual(cache.get_seq_length(), 10)

    def test_other_attention_reads_a_paged_cache(self):
        for name in ("llama", "gemma2"):
            model, inputs = make_model(name), prompts()
            expected = generate(model, "eager", inputs)
            found = generate(model, "eager", inputs, past_key_values=PagedKVCache(page_size=4))
            self.assertEqual(found.tolist(), expected.tolist())

    def test_requests_come_and_go(self):
        model, cache, inputs = make_model("llama"), PagedKVCache(page_size=4), prompts()
        model.set_attn_implementation(NAME)
        with torch.no_grad():
            model(**inputs, position_ids=(inputs["attention_mask"].cumsum(1) - 1).clamp(min=0), past_key_values=cache)
            cache.batch_repeat_interleave(2)
            cache.batch_select_indices(torch.tensor([4, 0]))
            cache.crop(-2)
            cache.table.check_invariants()
            token = torch.tensor([[5], [6]])
            mask = inputs["attention_mask"][[2, 0]]
            found = model(input_ids=token, attention_mask=mask[:, :19], past_key_values=cache, position_ids=mask[:, :18].sum(1, True))
            model.set_attn_implementation("sdpa")
            ids = torch.cat([inputs["input_ids"][[2, 0], :18], token], 1)
            positions = (mask[:, :19].cumsum(1) - 1).clamp(min=0)
            expected = model(input_ids=ids, attention_mask=mask[:, :19], position_ids=positions)
        torch.testing.assert_close(found.logits[:, -1], expected.logits[:, -1], rtol=1e-4, atol=1e-4)


@needs_transformers
class ForwardTests(unittest.TestCase):
    """Single passes: masks of every kind."""

    def setUp(self):
        register()
        self.model = make_model("llama")

    def compare(self, model, rows=None, tolerance=1e-4, caches=True, **inputs):
        with torch.no_grad():
            model.set_attn_implementation("sdpa")
            expected = model(**inputs).logits
            model.set_attn_implementation(NAME)
            for cache in (dict(use_cache=False), {}, dict(past_key_values=PagedKVCache(page_size=4))) if caches else ({},):
                found = model(**inputs, **cache).logits
                if rows is None:
                    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)
                else:
                    torch.testing.assert_close(found[rows], expected[rows], rtol=tolerance, atol=tolerance)

    def test_padding_on_both_sides_and_between(self):
        for name in ("llama", "mistral"):
            inputs = prompts((12, 5, 9), side="right")
            inputs["attention_mask"][0, 4:6] = 0
            inputs["attention_mask"][2, :2] = 0
            self.compare(make_model(name), rows=inputs["attention_mask"].bool(), **inputs)

    def test_masks_of_the_callers(self):
        ids = prompts((9, 9))["input_ids"]
        shown = torch.rand((2, 1, 9, 9), generator=torch.Generator().manual_seed(2)) < 0.5
        shown |= torch.eye(9, dtype=torch.bool)
        self.compare(self.model, input_ids=ids, attention_mask=shown)
        self.compare(self.model, input_ids=ids, attention_mask=torch.where(shown, 0.0, torch.finfo(torch.float32).min))
        with self.assertRaisesRegex(InvalidArgumentError, "adds numbers to the logits"):
            self.model(input_ids=ids, attention_mask=torch.rand((2, 1, 9, 9)))

    def test_packed_sequences(self):
        ids = prompts((14,))["input_ids"]
        positions = torch.tensor([[0, 1, 2, 3, 4, 0, 1, 2, 0, 1, 2, 3, 4, 5]])
        self.model.config.use_cache = False
        self.compare(self.model, caches=False, input_ids=ids, position_ids=positions, use_cache=False)

    def test_prompts_in_pieces(self):
        inputs = prompts()
        for name in ("llama", "mistral"):
            model = make_model(name)
            with torch.no_grad():
                model.set_attn_implementation("sdpa")
                expected = model(**inputs).logits
                model.set_attn_implementation(NAME)
                cache, parts = PagedKVCache(page_size=4), []
                positions = (inputs["attention_mask"].cumsum(1) - 1).clamp(min=0)
                expected = model(**inputs, position_ids=positions).logits
                for begin, end in ((0, 8), (8, 9), (9, 17), (17, 20)):
                    parts.append(model(
                        input_ids=inputs["input_ids"][:, begin:end], attention_mask=inputs["attention_mask"][:, :end],
                        position_ids=positions[:, begin:end], past_key_values=cache).logits)
            rows = inputs["attention_mask"].bool()
            torch.testing.assert_close(torch.cat(parts, 1)[rows], expected[rows], rtol=1e-4, atol=1e-4)

    def test_encoders(self):
        torch.manual_seed(0)
        model = transformers.BertModel(transformers.BertConfig(
            hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, vocab_size=320)).eval()
        inputs = prompts((9, 4), side="right")
        with torch.no_grad():
            model.set_attn_implementation("sdpa")
            expected = model(**inputs).last_hidden_state
            model.set_attn_implementation(NAME)
            found = model(**inputs).last_hidden_state
        rows = inputs["attention_mask"].bool()
        torch.testing.assert_close(found[rows], expected[rows], rtol=1e-4, atol=1e-4)

    def test_half_precision(self):
        """No worse than twice SDPA's own distance from float32."""
        for dtype in (torch.bfloat16, torch.float16):
            model, inputs = make_model("llama", dtype=dtype), prompts()
            exact = make_model("llama", dtype=dtype).float()
            rows = inputs["attention_mask"].bool()
            with torch.no_grad():
                reference = exact(**inputs).logits[rows]
                model.set_attn_implementation("sdpa")
                limit = 2 * (model(**inputs).logits.float()[rows] - reference).abs().max()
                model.set_attn_implementation(NAME)
                for cache in (None, PagedKVCache()):
                    error = (model(**inputs, past_key_values=cache).logits.float()[rows] - reference).abs().max()
                    self.assertLess(float(error), float(limit) + 1e-2)

    def test_8_bit_pages(self):
        inputs = prompts()
        cache = PagedKVCache(dtype=torch.float8_e4m3fn, k_scale=0.05, v_scale=0.05)
        rows = inputs["attention_mask"].bool()
        with torch.no_grad():
            expected = self.model(**inputs).logits[rows]
            self.model.set_attn_implementation(NAME)
            found = self.model(**inputs, past_key_values=cache).logits[rows]
        self.assertEqual(cache.layers[0].pages[0].dtype, torch.float8_e4m3fn)
        self.assertGreater(float(torch.cosine_similarity(found, expected, dim=-1).mean()), 0.95)
        self.assertTrue(cache.layers[0].keys.isfinite().all())

    def test_patterns_are_recognised(self):
        from transformers import masking_utils

        seen = []

        def note(*args, **kwargs):
            from flashinfer_swift.transformers import batch_mask

            seen.append(batch_mask(*args, **kwargs))
            return seen[-1]

        transformers.AttentionMaskInterface.register(NAME, note)
        for name, expected in (("llama", {(CAUSAL, -1)}), ("mistral", {(CAUSAL, 8)}), ("gemma2", {(CAUSAL, -1), (CAUSAL, 7)})):
            seen.clear()
            model = make_model(name)
            model.set_attn_implementation(NAME)
            with torch.no_grad():
                model(**prompts())
            self.assertEqual({(mask.pattern, mask.window_left) for mask in seen}, expected)
            for mask in seen:
                self.assertIsInstance(mask, BatchMask)
                self.assertEqual(mask.dense().shape, mask.shape)
                self.assertEqual(mask[0, 0, -1].dtype, torch.bool)
        mask = masking_utils.create_bidirectional_mask(self.model.config, torch.zeros(1, 3, 4), None)
        self.assertIsNone(mask)  # sdpa's
        self.model.set_attn_implementation(NAME)
        self.assertEqual(masking_utils.create_bidirectional_mask(self.model.config, torch.zeros(1, 3, 4), None).pattern, FULL)
        mixed = masking_utils.create_causal_mask(
            self.model.config, torch.zeros(1, 3, 4), None, None, or_mask_function=lambda b, h, q, k: k == 0)
        self.assertEqual(mixed.pattern, CUSTOM)


@needs_transformers
class ErrorTests(unittest.TestCase):
    def setUp(self):
        register()
        self.model = make_model("llama")
        self.model.set_attn_implementation(NAME)

    def test_training(self):
        out = self.model(**prompts()).logits  # gradients are on, and may stay unused
        with self.assertRaisesRegex(UnsupportedError, "backward.*sdpa"):
            out.sum().backward()
        self.model.train()
        for module in self.model.modules():
            if hasattr(module, "attention_dropout"):
                module.attention_dropout = 0.1
        with self.assertRaisesRegex(UnsupportedError, "dropout is 0.1"):
            self.model(**prompts())

    def test_weights_are_not_stored(self):
        from flashinfer_swift.transformers import attention_forward

        with self.assertRaisesRegex(UnsupportedError, "output_attentions.*eager"):
            attention_forward(None, None, None, None, None, output_attentions=True)
        with self.assertRaisesRegex(UnsupportedError, "position_bias"):
            attention_forward(None, None, None, None, None, position_bias=torch.zeros(1))

    def test_caches(self):
        cache = PagedKVCache()
        with torch.no_grad():
            self.model(**prompts(), past_key_values=cache)
            with self.assertRaisesRegex(InvalidArgumentError, "the batch has 2 requests, but this cache holds 3"):
                self.model(input_ids=torch.ones((2, 1), dtype=torch.int64), past_key_values=cache)
            cache.reset()
            self.model(**prompts(), past_key_values=cache)
            changed = torch.ones((3, 21), dtype=torch.int64)
            with self.assertRaisesRegex(InvalidArgumentError, "20 tokens of request 1 before this pass, but 13 are in the cache"):
                self.model(input_ids=torch.ones((3, 1), dtype=torch.int64), attention_mask=changed, past_key_values=cache)
            cache.reset()
            self.model(**prompts(), past_key_values=cache)
            with self.assertRaisesRegex(InvalidArgumentError, "attention_mask has 20 columns, but must have 21"):
                self.model(
                    input_ids=torch.ones((3, 1), dtype=torch.int64), attention_mask=prompts()["attention_mask"],
                    past_key_values=cache)
        with self.assertRaisesRegex(InvalidArgumentError, "page_size is 0"):
            PagedKVCache(page_size=0)

    def test_masks_by_head(self):
        mask = torch.ones((1, 4, 5, 5), dtype=torch.bool)
        with self.assertRaisesRegex(UnsupportedError, "differs by head"):
            self.model(input_ids=torch.ones((1, 5), dtype=torch.int64), attention_mask=mask)

    def test_names(self):
        self.assertEqual(register(), NAME)
        with self.assertRaisesRegex(InvalidArgumentError, "flash"):
            register("flashinfer_swift")


def smollm2():
    """SmolLM2-135M-Instruct where `flashinfer demo` keeps it, or None."""
    cache = os.environ.get("FLASHINFER_CACHE") or pathlib.Path(
        os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "flashinfer"
    file = pathlib.Path(cache) / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf"
    return file if file.exists() else None


@needs_transformers
@unittest.skipIf(smollm2() is None, "SmolLM2 is not on this machine; `swift run -c release flashinfer demo` fetches it")
class SmolLM2Tests(unittest.TestCase):
    def test_greedy_answers_are_those_of_sdpa(self):
        file, name = smollm2(), register()
        tokenizer = transformers.AutoTokenizer.from_pretrained(str(file.parent), gguf_file=file.name, padding_side="left")
        tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
        model = transformers.AutoModelForCausalLM.from_pretrained(str(file.parent), gguf_file=file.name, dtype=torch.float32).eval()
        questions = (
            "What is the capital of France?", "Write a haiku about the sea.",
            "Explain in three sentences why the sky is blue, and what happens to its colour when the sun goes down.")
        texts = [
            tokenizer.apply_chat_template([dict(role="user", content=text)], tokenize=False, add_generation_prompt=True)
            for text in questions]
        inputs = dict(tokenizer(texts, padding=True, return_tensors="pt"))
        self.assertTrue((inputs["attention_mask"][0] == 0).any(), "nothing is padded")
        found = {}
        for label, attention, cache in (
                ("sdpa", "sdpa", None), ("dense", name, None), ("pages", name, PagedKVCache())):
            model.set_attn_implementation(attention)
            found[label] = model.generate(
                **inputs, max_new_tokens=48, do_sample=False, past_key_values=cache, output_logits=True, return_dict_in_generate=True,
                pad_token_id=tokenizer.pad_token_id)
        expected = found["sdpa"].sequences
        answers = tokenizer.batch_decode(expected[:, inputs["input_ids"].shape[1]:], skip_special_tokens=True)
        self.assertEqual(answers[0].strip(), "The capital of France is Paris.")
        self.assertEqual(expected.shape[1], inputs["input_ids"].shape[1] + 48)
        for label in ("dense", "pages"):
            self.assertEqual(found[label].sequences.tolist(), expected.tolist(), label)
            for ours, theirs in zip(found[label].logits, found["sdpa"].logits):
                torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=2e-3)


if __name__ == "__main__":
    unittest.main()
