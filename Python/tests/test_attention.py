"""Attention: single, batch decode, batch prefill (paged and ragged), mixed batches, sinks, POD, on NumPy arrays."""

import functools
import unittest
import warnings

import numpy as np
import reference as ref
from support import Pages, close, ml_dtypes, needs_ml_dtypes, random

import flashinfer_swift as fi


class SingleTests(unittest.TestCase):
    def test_decode(self):
        for dim in (64, 128, 256):
            for layout in ("NHD", "HND"):
                for heads, kv_heads in ((4, 4), (8, 2), (7, 1)):
                    q, k, v = random((heads, dim), seed=1), random((33, kv_heads, dim), seed=2), random((33, kv_heads, dim), seed=3)
                    given = (k, v) if layout == "NHD" else (k.swapaxes(0, 1).copy(), v.swapaxes(0, 1).copy())
                    out, lse = fi.single_decode_with_kv_cache(q, *given, kv_layout=layout, return_lse=True)
                    expected, expected_lse = ref.attention(q[None], k, v)
                    close(self, out, expected[0])
                    close(self, lse, expected_lse[0])

    def test_decode_options(self):
        q, k, v = random((4, 64)), random((40, 2, 64), seed=1), random((40, 2, 64), seed=2)
        for options, definition in (
            (dict(window_left=7), dict(window_left=7)), (dict(logits_soft_cap=3.0), dict(cap=3.0)), (dict(sm_scale=0.5), dict(scale=0.5)),
            (dict(pos_encoding_mode="ROPE_LLAMA"), dict(rope_theta=1e4)),
            (dict(pos_encoding_mode="ROPE_LLAMA", rope_scale=2.0, rope_theta=5e4), dict(rope_theta=5e4, rope_scale=2.0)),
            (dict(pos_encoding_mode="ALIBI"), dict(slopes=ref.alibi_slopes(4))), (dict(q_scale=0.5, k_scale=3.0), dict(scale=1.5 / 8)),
        ):
            with self.subTest(**options):
                out, lse = fi.single_decode_with_kv_cache(q, k, v, return_lse=True, **options)
                expected, expected_lse = ref.attention(q[None], k, v, **definition)
                close(self, out, expected[0], factor=3)
                close(self, lse, expected_lse[0], factor=3)
        out = fi.single_decode_with_kv_cache(q, k, v, v_scale=2.0)
        close(self, out, 2 * ref.attention(q[None], k, v)[0][0])

    def test_prefill(self):
        for rows, keys in ((1, 1), (5, 5), (7, 40), (40, 7), (130, 200)):
            for causal in (False, True):
                q, k, v = random((rows, 6, 64)), random((keys, 2, 64), seed=1), random((keys, 2, 64), seed=2)
                out, lse = fi.single_prefill_with_kv_cache_return_lse(q, k, v, causal=causal)
                expected, expected_lse = ref.attention(q, k, v, causal=causal)
                close(self, out, expected)
                close(self, lse, expected_lse)

    def test_prefill_masks(self):
        q, k, v = random((9, 4, 64)), random((21, 2, 64), seed=1), random((21, 2, 64), seed=2)
        mask = np.random.default_rng(3).random((9, 21)) < 0.5
        mask[4] = False  # a row that sees nothing
        expected, expected_lse = ref.attention(q, k, v, mask=mask)
        out, lse = fi.single_prefill_with_kv_cache(q, k, v, custom_mask=mask, causal=True, return_lse=True)
        close(self, out, expected)
        close(self, lse, expected_lse)
        packed = fi.packbits(mask.reshape(-1), bitorder="little")
        out, lse = fi.single_prefill_with_kv_cache(q, k, v, packed_custom_mask=packed, return_lse=True)
        close(self, out, expected)
        close(self, lse, expected_lse)
        out = fi.single_prefill_with_kv_cache(q, k, v, causal=True, window_left=4)
        close(self, out, ref.attention(q, k, v, causal=True, window_left=4)[0])

    def test_different_head_dims(self):
        q, k, v = random((3, 4, 192)), random((10, 2, 192), seed=1), random((10, 2, 128), seed=2)
        close(self, fi.single_prefill_with_kv_cache(q, k, v, causal=True), ref.attention(q, k, v, causal=True)[0])

    def test_half_precision(self):
        q, k, v = (random(shape, np.float16, seed) for seed, shape in enumerate([(5, 4, 64), (30, 4, 64), (30, 4, 64)]))
        out = fi.single_prefill_with_kv_cache(q, k, v, causal=True)
        self.assertEqual(out.dtype, np.float16)
        close(self, out, ref.attention(q, k, v, causal=True)[0], "float16")

    @needs_ml_dtypes
    def test_bfloat16_and_float8(self):
        q = random((2, 4, 64)).astype(ml_dtypes.bfloat16)
        k, v = (random((30, 4, 64), seed=seed).astype(ml_dtypes.float8_e4m3fn) for seed in (1, 2))
        out = fi.single_prefill_with_kv_cache(q, k, v, k_scale=0.5, v_scale=2.0)
        self.assertEqual(out.dtype, ml_dtypes.bfloat16)
        close(self, out, ref.attention(q, k.astype(np.float32) * 0.5, v.astype(np.float32) * 2)[0], "bfloat16", 2)
        out = fi.single_prefill_with_kv_cache(q, k, v, o_dtype="float32")
        self.assertEqual(out.dtype, np.float32)

    @needs_ml_dtypes
    def test_float8_queries(self):
        e4m3 = ml_dtypes.float8_e4m3fn
        q, k, v = (random(shape, seed=n).astype(e4m3) for n, shape in enumerate([(5, 4, 64), (30, 2, 64), (30, 2, 64)]))
        scales = [np.array(numbers, np.float32) for numbers in ([0.5, 1, 1.5, 2], [0.5, 2], [3, 0.25])]
        wide = [x.astype(np.float32) for x in (q, k, v)]
        expected = ref.attention(*wide, causal=True)[0]
        scaled = ref.attention(*(x * scale[:, None] for x, scale in zip(wide, scales)), causal=True)[0]
        out = fi.single_prefill_with_kv_cache(q, k, v, causal=True)
        self.assertEqual(out.dtype, ml_dtypes.bfloat16)
        close(self, out, expected, "bfloat16", 2)
        close(self, fi.single_prefill_with_kv_cache(q, k, v, *scales, causal=True, o_dtype="float32"), scaled, "bfloat16", 2)
        wrapper = fi.BatchPrefillWithRaggedKVCacheWrapper(None)
        indptr, kv_indptr = np.array([0, 5], np.int32), np.array([0, 30], np.int32)
        wrapper.plan(
            indptr, kv_indptr, 4, 2, 64, causal=True, q_data_type="float8_e4m3fn", kv_data_type="float8_e4m3fn", o_data_type="float16")
        close(self, wrapper.run(q, k, v, *scales), scaled, "bfloat16", 2)
        close(self, wrapper.run(q, k, v, q_scale=scales[0], k_scale=scales[1], v_scale=scales[2]), scaled, "bfloat16", 2)
        with self.assertRaisesRegex(fi.UnsupportedError, "scale_q, scale_k and scale_v"):
            wrapper.run(q, k, v, scales[0])

    def test_strides(self):
        base = random((10, 3, 8, 64))
        q, k, v = base[:4, 0], base[:, 1, ::2], base[:, 2, ::2]
        close(self, fi.single_prefill_with_kv_cache(q, k, v), ref.attention(q, k, v)[0])


class DecodeTests(unittest.TestCase):
    def check(self, layout="NHD", page_size=4, heads=8, kv_heads=2, dim=64, lengths=(5, 1, 17, 64, 0), q_len=1, pair=False, **options):
        pages = Pages(lengths, page_size, kv_heads, dim, layout)
        q = random((len(lengths) * q_len, heads, dim), seed=9)
        wrapper = fi.BatchDecodeWithPagedKVCacheWrapper(None, layout, use_tensor_cores=q_len > 1)
        wrapper.plan(
            pages.indptr, pages.indices, pages.last, heads, kv_heads, dim, page_size, q_data_type="float32", q_len_per_req=q_len,
            **options)
        cache = (pages.cache[:, 0], pages.cache[:, 1]) if pair else pages.cache
        out, lse = wrapper.run(q, cache, return_lse=True)
        definition = dict(causal=q_len > 1)
        if "window_left" in options:
            definition["window_left"] = options["window_left"]
        if "logits_soft_cap" in options:
            definition["cap"] = options["logits_soft_cap"]
        for request in range(len(lengths)):
            rows = slice(request * q_len, (request + 1) * q_len)
            expected, expected_lse = ref.attention(q[rows], pages.keys[request], pages.values[request], **definition)
            close(self, out[rows], expected)
            close(self, lse[rows], expected_lse)
        again = np.empty_like(out)
        again_lse = np.empty_like(lse)
        self.assertIs(wrapper.run(q, cache, out=again, lse=again_lse), again)
        np.testing.assert_array_equal(again, out)
        np.testing.assert_array_equal(again_lse, lse)  # one that is given is written, asked for or not

    def test_layouts_and_page_sizes(self):
        for layout in ("NHD", "HND"):
            for page_size in (1, 3, 16):
                for pair in (False, True):
                    self.check(layout, page_size, pair=pair)

    def test_groups(self):
        for heads, kv_heads in ((1, 1), (5, 1), (7, 1), (32, 4)):
            self.check(heads=heads, kv_heads=kv_heads)

    def test_options(self):
        self.check(window_left=3)
        self.check(logits_soft_cap=5.0)
        self.check(disable_split_kv=True)
        self.check(fixed_split_size=32)

    def test_many_rows_a_request(self):
        self.check(lengths=(5, 9, 64), q_len=3)

    def test_graph_form_plans_within_its_buffers(self):
        lengths = (5, 9, 30)
        pages = Pages(lengths, 4, 2, 64)
        wrapper = fi.CUDAGraphBatchDecodeWithPagedKVCacheWrapper(
            None, np.zeros(4, np.int32), np.zeros(32, np.int32), np.zeros(3, np.int32))
        self.assertTrue(wrapper.is_cuda_graph_enabled)
        q = random((3, 4, 64))
        for turn in range(3):
            pages = Pages([length + turn for length in lengths], 4, 2, 64, seed=turn)
            wrapper.plan(pages.indptr, pages.indices, pages.last, 4, 2, 64, 4, q_data_type="float32")
            out = wrapper.run(q, pages.cache)
            for request in range(3):
                close(self, out[request:request + 1], ref.attention(q[request:request + 1], pages.keys[request], pages.values[request])[0])
        with self.assertRaisesRegex(ValueError, "batch size is fixed"):
            wrapper.plan(pages.indptr[:3], pages.indices, pages.last[:2], 4, 2, 64, 4, q_data_type="float32")
        many = Pages((100, 100, 100), 4, 2, 64)
        with self.assertRaisesRegex(ValueError, "room for 32"):
            wrapper.plan(many.indptr, many.indices, many.last, 4, 2, 64, 4, q_data_type="float32")

    def test_positional_plan_options_warn(self):
        pages = Pages((5,), 4, 2, 64)
        wrapper = fi.BatchDecodeWithPagedKVCacheWrapper()
        # Not assertWarns: it looks into all modules, and transformers imports what is not installed when it is looked into.
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            wrapper.plan(pages.indptr, pages.indices, pages.last, 4, 2, 64, 4, "NONE", -1, None, "float32")
        self.assertEqual([warning.category for warning in caught], [DeprecationWarning])
        self.assertEqual(wrapper.run(random((1, 4, 64)), pages.cache).shape, (1, 4, 64))

    def test_fast_plan(self):
        pages = Pages((5, 7), 4, 2, 64)
        wrapper = fi.BatchDecodeWithPagedKVCacheWrapper()
        fi.fast_decode_plan(wrapper, pages.indptr, pages.indices, pages.last, 4, 2, 64, 4, q_data_type="float32")
        q = random((2, 4, 64))
        close(self, wrapper.run(q, pages.cache)[1:], ref.attention(q[1:], pages.keys[1], pages.values[1])[0])
        # Engines put it in the place of plan.
        wrapper.plan = functools.partial(fi.fast_decode_plan, wrapper)
        wrapper.plan(pages.indptr, pages.indices, pages.last, 4, 2, 64, 4, q_data_type="float32")


class PrefillTests(unittest.TestCase):
    LENGTHS = (9, 1, 40, 3)
    ROWS = (4, 1, 33, 3)

    def test_paged(self):
        indptr = np.cumsum([0, *self.ROWS]).astype(np.int32)
        for layout in ("NHD", "HND"):
            for causal in (False, True):
                for window in (-1, 5):
                    pages = Pages(self.LENGTHS, 4, 2, 64, layout)
                    q = random((indptr[-1], 6, 64))
                    wrapper = fi.BatchPrefillWithPagedKVCacheWrapper(None, layout)
                    wrapper.plan(
                        indptr, pages.indptr, pages.indices, pages.last, 6, 2, 64, 4, causal=causal, window_left=window,
                        q_data_type="float32")
                    out, lse = wrapper.run(q, pages.cache, return_lse=True)
                    for request in range(4):
                        rows = slice(indptr[request], indptr[request + 1])
                        expected, expected_lse = ref.attention(
                            q[rows], pages.keys[request], pages.values[request], causal=causal, window_left=window)
                        close(self, out[rows], expected)
                        close(self, lse[rows], expected_lse)

    def test_ragged_with_masks(self):
        indptr = np.cumsum([0, *self.ROWS]).astype(np.int32)
        kv_indptr = np.cumsum([0, *self.LENGTHS]).astype(np.int32)
        q, k, v = random((indptr[-1], 4, 64)), random((kv_indptr[-1], 2, 64), seed=1), random((kv_indptr[-1], 2, 64), seed=2)
        rng = np.random.default_rng(5)
        masks = [rng.random((rows, keys)) < 0.6 for rows, keys in zip(self.ROWS, self.LENGTHS)]
        flat = np.concatenate([mask.reshape(-1) for mask in masks])
        mask_indptr = np.cumsum([0, *(mask.size for mask in masks)]).astype(np.int32)
        packed, _ = fi.segment_packbits(flat, mask_indptr, bitorder="little")
        for given in (dict(custom_mask=flat), dict(packed_custom_mask=packed), dict(causal=True), {}):
            with self.subTest(given=list(given)):
                wrapper = fi.BatchPrefillWithRaggedKVCacheWrapper()
                wrapper.plan(indptr, kv_indptr, 4, 2, 64, q_data_type="float32", **given)
                out, lse = wrapper.run(q, k, v, return_lse=True)
                for request in range(4):
                    rows, keys = slice(indptr[request], indptr[request + 1]), slice(kv_indptr[request], kv_indptr[request + 1])
                    definition = dict(causal=True) if "causal" in given else dict(mask=masks[request]) if given else {}
                    expected, expected_lse = ref.attention(q[rows], k[keys], v[keys], **definition)
                    close(self, out[rows], expected)
                    close(self, lse[rows], expected_lse)

    def test_mixed_batch_by_lengths(self):
        indptr = np.cumsum([0, *self.ROWS]).astype(np.int32)
        pages = Pages(self.LENGTHS, 4, 2, 64)
        q = random((indptr[-1], 4, 64))
        wrapper = fi.BatchAttention()
        wrapper.plan(
            indptr, pages.indptr, pages.indices, np.array(self.LENGTHS, np.int32), 4, 2, 64, 64, 4, causal=True,
            q_data_type="float32", kv_data_type="float32", logits_soft_cap=4.0)
        out, lse = wrapper.run(q, pages.cache, logits_soft_cap=4.0)
        for request in range(4):
            rows = slice(indptr[request], indptr[request + 1])
            expected, expected_lse = ref.attention(q[rows], pages.keys[request], pages.values[request], causal=True, cap=4.0)
            close(self, out[rows], expected)
            close(self, lse[rows], expected_lse)
        # Pages past the requests' keys are not looked at.
        shorter = np.array([3, 1, 20, 3], np.int32)
        wrapper.plan(
            indptr, pages.indptr, pages.indices, shorter, 4, 2, 64, 64, 4, q_data_type="float32", kv_data_type="float32")
        out, _ = wrapper.run(q, pages.cache)
        close(self, out[5:38], ref.attention(q[5:38], pages.keys[2][:20], pages.values[2][:20])[0])

    def test_sinks(self):
        indptr = np.array([0, 4, 6], np.int32)
        pages = Pages((10, 6), 4, 2, 64)
        q, sinks = random((6, 4, 64)), random((4,), seed=8)
        wrapper = fi.BatchAttentionWithAttentionSinkWrapper(window_left=3, head_dim_qk=64, head_dim_vo=64)
        wrapper.plan(
            indptr, pages.indptr, pages.indices, pages.last, 4, 2, 64, 4, causal=True, window_left=3, q_data_type="float32")
        out = wrapper.run(q, pages.cache, sinks, 0.2)
        for request, rows in enumerate((slice(0, 4), slice(4, 6))):
            expected, _ = ref.attention(
                q[rows], pages.keys[request], pages.values[request], causal=True, window_left=3, scale=0.2, sinks=sinks)
            close(self, out[rows], expected)

    def test_pod(self):
        pages = Pages((10, 6), 4, 2, 64)
        q_p, k_p, v_p, q_d = random((7, 4, 64)), random((9, 2, 64), seed=1), random((9, 2, 64), seed=2), random((2, 4, 64), seed=3)
        wrapper = fi.PODWithPagedKVCacheWrapper()
        wrapper.plan(pages.indptr, pages.indices, pages.last, 4, 2, 64, 4, q_data_type="float32")
        prefill, decode = wrapper.run(q_p, k_p, v_p, q_d, pages.cache, causal_p=True)
        close(self, prefill, ref.attention(q_p, k_p, v_p, causal=True)[0])
        close(self, decode[1:], ref.attention(q_d[1:], pages.keys[1], pages.values[1])[0])


if __name__ == "__main__":
    unittest.main()
