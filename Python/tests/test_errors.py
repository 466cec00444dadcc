"""Bad input: every error is a typed exception that names what is wrong, and nothing runs."""

import re
import unittest

import numpy as np
from support import Pages, needs_torch, random, torch

import flashinfer_swift as fi


class PlanErrorTests(unittest.TestCase):
    def setUp(self):
        self.pages = Pages((5, 9), 4, 2, 64)

    def plan(self, **changes):
        p = self.pages
        arguments = dict(
            indptr=p.indptr, indices=p.indices, last_page_len=p.last, num_qo_heads=4, num_kv_heads=2, head_dim=64, page_size=4,
            q_data_type="float32")
        arguments.update(changes)
        wrapper = fi.BatchDecodeWithPagedKVCacheWrapper()
        wrapper.plan(**arguments)
        return wrapper

    def fails(self, text, kind=ValueError, **changes):
        with self.assertRaisesRegex(kind, text) as context:
            self.plan(**changes)
        self.assertIsInstance(context.exception, fi.FlashInferError)

    def test_tables(self):
        p = self.pages
        self.fails("int64", indptr=p.indptr.astype(np.int64))
        self.fails("int64", indices=p.indices.astype(np.int64))
        self.fails("int64", last_page_len=p.last.astype(np.int64))
        self.fails("last-page length|last_page_len", last_page_len=np.array([5, 1], np.int32))
        self.fails("decreases", indptr=np.array([0, 4, 2], np.int32))
        self.fails("page", indices=np.full_like(p.indices, -1))
        self.fails("length|entries|indices", indices=p.indices[:2])
        self.fails("heads", num_qo_heads=5)
        self.fails("kv_layout|type", q_data_type="float19")
        self.fails("window", window_right=3, kind=NotImplementedError)
        self.fails("NVFP4", kv_data_type="uint8", kind=NotImplementedError)
        with self.assertRaises(KeyError):
            fi.BatchDecodeWithPagedKVCacheWrapper(None, "NDH")
        with self.assertRaises(KeyError):
            self.plan(pos_encoding_mode="ROPE")

    def test_numbers_that_no_field_holds(self):
        # ctypes cuts integers off, and its own errors name nothing.
        for name in ("num_qo_heads", "num_kv_heads", "head_dim", "page_size"):
            self.fails(f"{name}.* is {2**32 + 4}, but must fit in 32 bits", **{name: 2**32 + 4})
            self.fails(f"{name}.* is 4.0, but must be an integer", **{name: 4.0})
        self.fails("window_left is 1.5, but must be an integer", window_left=1.5)
        self.fails("sm_scale is 0", sm_scale=0.0)
        # A window that reaches past everything is none, however it is written.
        q = random((2, 4, 64))
        whole = self.plan().run(q, self.pages.cache)
        for window in (2**31 - 1, 2**31, 2**32 + 1, 2**63 - 1):
            np.testing.assert_array_equal(self.plan(window_left=window).run(q, self.pages.cache), whole)

    def test_a_refused_scale_changes_nothing(self):
        wrapper = self.plan()
        q, cache = random((2, 4, 64)), self.pages.cache
        scale = 0.5
        expected = wrapper.run(q, cache, q_scale=scale)
        for text, scales in (("k_scale is 0", dict(k_scale=0.0)), ("v_scale is 0", dict(v_scale=0))):
            with self.assertRaisesRegex(ValueError, text):
                wrapper.run(q, cache, q_scale=3.0, **scales)
            np.testing.assert_array_equal(wrapper.run(q, cache, q_scale=scale), expected)

    def test_runs(self):
        wrapper = self.plan()
        q, cache = random((2, 4, 64)), self.pages.cache
        for text, arguments in (
            ("float16", (q.astype(np.float16), cache)), ("float16|cache type", (q, cache.astype(np.float16))),
            ("rows", (q[:1], cache)), ("shape", (q[:, :3], cache)), ("page size|pages", (q, cache[:, :, :3])),
            ("pages", (q, cache[:2])), ("stride", (np.asfortranarray(q), cache)),
        ):
            with self.subTest(text), self.assertRaisesRegex(ValueError, text):
                wrapper.run(*arguments)
        for out in (np.empty((2, 4, 32), np.float32), np.empty((2, 4, 64), np.float16)):
            with self.assertRaises(ValueError):
                wrapper.run(q, cache, out=out)
        frozen = np.empty_like(q)
        frozen.flags.writeable = False
        with self.assertRaisesRegex(ValueError, "read-only"):
            wrapper.run(q, cache, out=frozen)
        with self.assertRaisesRegex(ValueError, "plan again"):
            wrapper.run(q, cache, window_left=5)
        with self.assertRaisesRegex(NotImplementedError, "what works instead"):
            wrapper.run(q, cache, sinks=q[0, :, 0])
        with self.assertRaisesRegex(ValueError, "before plan"):
            fi.BatchDecodeWithPagedKVCacheWrapper().run(q, cache)
        wrapper.run(q, cache)  # errors have not spoilt it

    def test_a_failed_plan_leaves_no_plan(self):
        wrapper = self.plan()
        with self.assertRaises(ValueError):
            wrapper.plan(
                self.pages.indptr, self.pages.indices, np.array([9, 9], np.int32), 4, 2, 64, 4, q_data_type="float32")
        with self.assertRaisesRegex(ValueError, "before plan"):
            wrapper.run(random((2, 4, 64)), self.pages.cache)

    def test_rows_must_match(self):
        wrapper = fi.BatchPrefillWithRaggedKVCacheWrapper()
        indptr = np.array([0, 4], np.int32)
        wrapper.plan(indptr, indptr, 4, 2, 64, q_data_type="float32")
        k = random((4, 2, 64))
        with self.assertRaisesRegex(ValueError, "qo_indptr ends with 4"):
            wrapper.run(random((5, 4, 64)), k, k)
        with self.assertRaisesRegex(ValueError, "tokens|shape"):
            wrapper.run(random((4, 4, 64)), k[:2], k[:2])
        with self.assertRaisesRegex(ValueError, "mask"):
            wrapper.plan(indptr, indptr, 4, 2, 64, q_data_type="float32", custom_mask=np.ones(15, bool))
            wrapper.run(random((4, 4, 64)), k, k)


class ForeignArgumentTests(unittest.TestCase):
    """Whatever is given for a tensor: an error of this library that names the argument, never Python's own."""

    #: What is no tensor that can be read, and what the message says of it.
    WRONG = (
        None, "x", 7, object(), [[1.0]], np.float32(1), np.zeros((2, 2), complex), np.zeros((2, 2), ">f4"), np.zeros((2, 2), object),
        np.zeros((2, 2), [("x", "f4")]))

    def refuses(self, name, call):
        for wrong in self.WRONG:
            with self.subTest(name, wrong=wrong), self.assertRaisesRegex(fi.InvalidArgumentError, rf"(?<!\w){re.escape(name)} (is|has)\b"):
                call(wrong)

    def arrays(self):
        yield lambda array: array
        if torch is not None:
            yield torch.from_numpy

    def test_attention(self):
        p = Pages((5, 9), 4, 2, 64)
        for own in self.arrays():
            q, k, v = own(random((2, 4, 64))), own(p.cache[:, 0].copy()), own(p.cache[:, 1].copy())
            tables = [own(table) for table in (p.indptr, p.indices, p.last)]
            decode = fi.BatchDecodeWithPagedKVCacheWrapper()
            prefill = fi.BatchPrefillWithPagedKVCacheWrapper()
            decode.plan(*tables, 4, 2, 64, 4, q_data_type="float32")
            prefill.plan(own(np.array([0, 1, 2], np.int32)), *tables, 4, 2, 64, 4, q_data_type="float32")
            for wrapper in (decode, prefill):
                self.refuses("q", lambda wrong: wrapper.run(wrong, (k, v)))
                self.refuses("v", lambda wrong: wrapper.run(q, (k, wrong if wrong is not None else "x")))
                with self.assertRaisesRegex(fi.InvalidArgumentError, r"paged_kv_cache\[0\] is a NoneType"):
                    wrapper.run(q, (None, v))
                with self.assertRaisesRegex(fi.InvalidArgumentError, "paged_kv_cache is a NoneType"):
                    wrapper.run(q, None)
                with self.assertRaisesRegex(KeyError, "3 tensors"):
                    wrapper.run(q, (k, v, v))
                # A pair may be a list, with or without a page dimension, and of another library than the queries.
                expected = np.asarray(wrapper.run(q, (k, v)))
                np.testing.assert_array_equal(wrapper.run(q, [k, v]), expected)
                np.testing.assert_array_equal(wrapper.run(q, (np.asarray(k), np.asarray(v))), expected)
            self.refuses("last_page_len", lambda wrong: decode.plan(
                *tables[:2], wrong, 4, 2, 64, 4, q_data_type="float32"))
            for name in ("q", "k", "v"):
                self.refuses(name, lambda wrong: fi.single_prefill_with_kv_cache(**{**dict(q=q, k=k[0], v=v[0]), name: wrong}))

    def test_blocks_of_different_sizes(self):
        for own in self.arrays():
            q, k = own(random((4, 8, 64))), own(random((2, 8, 64)))
            seen, sizes = own(np.ones((2, 2, 2), bool)), own(np.full((2, 2), 4, np.int32))
            wrapper = fi.VariableBlockSparseAttentionWrapper()
            with self.assertRaisesRegex(fi.InvalidArgumentError, "before plan"):
                wrapper.run(q, k, k)
            plan = lambda **changes: wrapper.plan(**{**dict(
                block_mask_map=seen, block_row_sz=sizes, block_col_sz=sizes, num_qo_heads=4, num_kv_heads=2, head_dim=64,
                q_data_type="float32"), **changes})
            plan()
            expected = np.asarray(wrapper.run(q, k, k))
            for name in ("q", "k", "v"):
                for wrong in (None, "x", np.zeros((2, 2), np.float32), np.float32(1)):
                    with self.subTest(name, wrong=wrong), self.assertRaisesRegex(fi.InvalidArgumentError, f"{name} is "):
                        wrapper.run(**{**dict(q=q, k=k, v=k), name: wrong})
            with self.assertRaisesRegex(fi.InvalidArgumentError, "q has 3 heads, but the plan has 4"):
                wrapper.run(q[:3], k, k)
            with self.assertRaisesRegex(fi.InvalidArgumentError, "v is of shape"):
                wrapper.run(q, k, k[:, :, :63])
            np.testing.assert_array_equal(wrapper.run(q, k, k), expected)
            huge, below = np.full((2, 2), 4, np.int32), np.full((2, 2), 4, np.int32)
            huge[0, 0], below[0, 0] = 2**31 - 1, -4
            for text, changes in (
                ("block_mask_map is of shape", dict(block_mask_map=seen[0])), ("block_row_sz is a NoneType", dict(block_row_sz=None)),
                ("block_col_sz adds up to 2147483659, but must fit in 31 bits", dict(block_col_sz=own(huge))),
                ("block_col_sz holds -4", dict(block_col_sz=own(below))), ("block_row_sz holds -4", dict(block_row_sz=own(below))),
                ("block_col_sz holds 4.0, but must be of integers", dict(block_col_sz=own(np.full((2, 2), 4.0)))),
            ):
                with self.subTest(text), self.assertRaisesRegex(fi.InvalidArgumentError, text):
                    plan(**changes)

    def test_rows(self):
        for own in self.arrays():
            x, w = own(random((3, 64))), own(random((64,)))
            heads = own(random((3, 4, 64)))
            states = dict(v_a=heads, s_a=own(random((3, 4))), v_b=heads, s_b=own(random((3, 4))))
            self.refuses("input", lambda wrong: fi.rmsnorm(wrong, w))
            self.refuses("weight", lambda wrong: fi.rmsnorm(x, wrong))
            self.refuses("residual", lambda wrong: fi.fused_add_rmsnorm(x, wrong, w))
            self.refuses("pos_ids", lambda wrong: fi.apply_rope_pos_ids(heads, heads, wrong))
            self.refuses("k", lambda wrong: fi.apply_rope_pos_ids(heads, wrong, own(np.arange(3, dtype=np.int32))))
            self.refuses("s_b", lambda wrong: fi.merge_state(**{**states, "s_b": wrong}))
        # The header calls it `in`, which is no word of the caller's.
        with self.assertRaisesRegex(ValueError, r"^input strides\[1\] is -1"):
            fi.rmsnorm(random((3, 64))[:, ::-1], random((64,)))

    def test_sampling(self):
        probs = np.full((3, 8), 1 / 8, np.float32)
        self.refuses("probs", lambda wrong: fi.sampling_from_probs(wrong))
        self.refuses("logits", lambda wrong: fi.softmax(wrong))
        self.refuses("logits", lambda wrong: fi.top_k_mask_logits(wrong, 2))
        drafts = dict(draft_probs=probs[None, :2], draft_token_ids=np.zeros((1, 2), np.int32), target_probs=probs[None])
        for name in ("draft_probs", "target_probs", "draft_token_ids"):
            with self.assertRaisesRegex(fi.InvalidArgumentError, f"{name} is a str"):
                fi.chain_speculative_sampling(**{**drafts, name: "x"})
        for text, call in (
            ("top_p is a str", lambda: fi.top_p_renorm_probs(probs, "0.9")), ("top_k is a list", lambda: fi.top_k_renorm_probs(probs, [1, 2, 3])),
            ("top_k is nan", lambda: fi.top_k_sampling_from_probs(probs, float("nan"))),
            ("top_k is inf", lambda: fi.top_k_sampling_from_probs(probs, float("inf"))),
            ("top_k is 1.5", lambda: fi.top_k_mask_logits(probs, np.array([1, 1.5, 2], np.float32))),
            ("min_p is a dict", lambda: fi.min_p_sampling_from_probs(probs, {})), ("k is 1.5", lambda: fi.top_k(probs, 1.5)),
            ("k is None", lambda: fi.top_k(probs, None)),
            ("indptr", lambda: fi.segment_packbits(np.ones(8, bool), np.array([0.0, 8.0]))),
        ):
            with self.subTest(text), self.assertRaisesRegex(fi.InvalidArgumentError, text):
                call()


class WholeNumberTests(unittest.TestCase):
    """Sizes and index arrays: whole numbers that a field holds, or an error with their name."""

    def fails(self, text, call):
        with self.subTest(text), self.assertRaisesRegex(fi.InvalidArgumentError, text):
            call()

    def test_sizes(self):
        scores, table, lengths = random((2, 6)), np.zeros((2, 6), np.int32), np.array([6, 4], np.int32)
        for k, text in ((None, "k is None"), (1.5, "k is 1.5"), ("2", "k is '2'"), (2**31, "k is 2147483648, but must fit in 32 bits"), (0, "k is 0")):
            self.fails(text, lambda: fi.top_k_page_table_transform(scores, table, lengths, k))
            self.fails(text, lambda: fi.top_k_ragged_transform(scores, lengths, lengths, k))
            self.fails(text, lambda: fi.top_log_probs(scores, k))
        self.fails("group_size is None", lambda: fi.per_token_group_quant_8bit(random((2, 128)), None))
        self.fails("group_size is '64'", lambda: fi.rmsnorm_group_quant(random((2, 128)), random((128,)), "64"))

    def test_index_arrays(self):
        attention, qo = fi.BatchAttention("NHD"), np.array([0, 2, 5], np.int32)
        good = dict(
            qo_indptr=qo, kv_indptr=np.array([0, 2, 3], np.int32), kv_indices=np.arange(3, dtype=np.int32),
            kv_len_arr=np.array([13, 8], np.int32), num_qo_heads=4, num_kv_heads=2, head_dim_qk=64, head_dim_vo=64, page_size=8,
            q_data_type="float32", kv_data_type="float32")
        attention.plan(**good)
        for name in ("qo_indptr", "kv_indptr", "kv_len_arr"):
            for wrong in (None, good[name].astype(np.float32), good[name].astype("U4"), np.int32(1), {}):
                self.fails(f"{name} is ", lambda: attention.plan(**{**good, name: wrong}))
        latent = fi.mla.BatchMLAPagedAttentionWrapper(None)
        good = dict(
            qo_indptr=np.array([0, 1], np.int32), kv_indptr=np.array([0, 1], np.int32), kv_indices=np.zeros(1, np.int32),
            kv_len_arr=np.array([3], np.int32), num_heads=4, head_dim_ckv=512, head_dim_kpe=64, page_size=4, causal=False, sm_scale=0.07,
            q_data_type="float32", kv_data_type="float32")
        latent.plan(**good)
        for name in ("qo_indptr", "kv_indptr", "kv_len_arr"):
            for wrong in (None, np.int32(1), 7, np.zeros(0, np.int32)):
                self.fails(f"{name} (is|has) |lengths|indptr", lambda: latent.plan(**{**good, name: wrong}))
        for wrong in (None, "x", np.zeros(3, np.int32)):
            self.fails("block_tables is ", lambda: fi.score_pages(
                random((2, 4, 64)), random((4, 2, 2, 64)), wrong, np.array([1, 1], np.int32)))
        k = np.zeros((3, 8, 192), np.float32)
        for wrong in (k[:2], k[..., :100], k[0]):
            self.fails("k is of shape", lambda: fi.concat_mla_k(wrong, random((3, 8, 128)), random((3, 1, 64))))


class OperationErrorTests(unittest.TestCase):
    def test_arguments(self):
        x, w = random((3, 64)), random((64,))
        for text, call in (
            ("weight", lambda: fi.rmsnorm(x, w[:5])), ("float64", lambda: fi.rmsnorm(x.astype(np.float64), w)),
            ("tensor of torch", lambda: fi.rmsnorm("x", w)), ("out", lambda: fi.silu_and_mul(x, out=x)),
            ("even", lambda: fi.silu_and_mul(x[:, :63])), ("negative|strides", lambda: fi.rmsnorm(x[:, ::-1], w)),
            ("residual", lambda: fi.fused_add_rmsnorm(x, x[:2], w)),
            ("int32 or int64", lambda: fi.apply_rope_pos_ids(x[:, None], x[:, None], np.zeros(3, np.float32))),
            ("positions", lambda: fi.apply_rope_pos_ids(x[:, None], x[:, None], np.array([-1, 0, 0]))),
            ("rope_scale", lambda: fi.apply_rope_pos_ids(x[:, None], x[:, None], np.arange(3), rope_scale=0)),
        ):
            with self.subTest(text), self.assertRaisesRegex(ValueError, text):
                call()

    def test_what_is_missing_says_what_works(self):
        for call in (
            lambda: fi.BatchDecodeMlaWithPagedKVCacheWrapper(None),
        ):
            with self.assertRaisesRegex(NotImplementedError, "what works instead"):
                call()

    @needs_torch
    def test_other_devices(self):
        with self.assertRaisesRegex(NotImplementedError, "meta"):
            fi.rmsnorm(torch.empty(2, 64, device="meta"), torch.empty(64, device="meta"))
        with self.assertRaisesRegex(ValueError, "complex64"):
            fi.rmsnorm(torch.zeros(2, 64, dtype=torch.complex64), torch.zeros(64))

    def test_no_gpu_here(self):
        from flashinfer_swift import info

        if info.gpu_count():
            self.skipTest("there is a GPU")
        with self.assertRaises(RuntimeError) as context:
            info.device_name("cuda:0")
        self.assertIsInstance(context.exception, fi.DeviceError)


if __name__ == "__main__":
    unittest.main()
