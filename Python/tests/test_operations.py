"""Norms, activations, RoPE, pages, merges, cascade, block-sparse, bits and top-k on NumPy arrays."""

import unittest

import numpy as np
import reference as ref
from support import Pages, close, ml_dtypes, needs_ml_dtypes, random

import flashinfer_swift as fi


class RowTests(unittest.TestCase):
    def test_rmsnorm(self):
        for shape in ((5, 111), (3, 4, 128), (7, 1024)):
            for dtype in (np.float32, np.float16):
                x, w = random(shape, dtype), random(shape[-1:], dtype, 1)
                name = np.dtype(dtype).name
                close(self, fi.rmsnorm(x, w), ref.rmsnorm(x, w), name)
                close(self, fi.gemma_rmsnorm(x, w, eps=1e-5), ref.rmsnorm(x, w, 1e-5, 1.0), name)
                out = np.empty_like(x)
                self.assertIs(fi.rmsnorm(x, w, out=out), out)
                close(self, out, ref.rmsnorm(x, w), name)

    def test_rmsnorm_of_strided_rows(self):
        x, w = random((6, 3, 64))[:, 1], random((64,), seed=1)
        close(self, fi.rmsnorm(x, w), ref.rmsnorm(x, w))

    def test_fused_add_rmsnorm(self):
        for function, offset in ((fi.fused_add_rmsnorm, 0.0), (fi.gemma_fused_add_rmsnorm, 1.0)):
            x, r, w = random((5, 64)), random((5, 64), seed=1), random((64,), seed=2)
            total = x.astype(np.float64) + r
            self.assertIsNone(function(x, r, w))
            close(self, r, total)
            close(self, x, ref.rmsnorm(total, w, offset=offset))

    @needs_ml_dtypes
    def test_quantised_norms(self):
        x, w = random((5, 64)), random((64,), seed=1)
        for dtype in (ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2, np.int8):
            for scale in (0.5, np.array([0.03], np.float32), np.array(0.03, np.float32)):
                out, fused, residual = np.empty((5, 64), dtype), np.empty((5, 64), dtype), random((5, 64), seed=3)
                self.assertIsNone(fi.rmsnorm_quant(out, x, w, scale))
                self.quantised(out, ref.rmsnorm(x, w), scale)
                total = x + residual
                self.assertIsNone(fi.fused_add_rmsnorm_quant(fused, x, residual, w, scale, 1e-5))
                np.testing.assert_array_equal(residual, total)
                self.quantised(fused, ref.rmsnorm(total, w, 1e-5), scale)
        out = np.empty((5, 64), ml_dtypes.float8_e4m3fn)
        fi.rmsnorm_quant(out, x, w, 1e-6)
        self.assertEqual(np.abs(out.astype(np.float32)).max(), 448)
        for text, call in (
            ("scale is 0", lambda: fi.rmsnorm_quant(out, x, w, 0)), ("-1", lambda: fi.rmsnorm_quant(out, x, w, -1.0)),
            ("one float32", lambda: fi.rmsnorm_quant(out, x, w, np.ones(2, np.float32))),
            ("one float32", lambda: fi.rmsnorm_quant(out, x, w, np.ones(1))),
            ("nan", lambda: fi.rmsnorm_quant(out, x, w, np.full(1, np.nan, np.float32))),
            ("float8", lambda: fi.rmsnorm_quant(np.empty_like(x), x, w, 1.0)),
            ("residual is None", lambda: fi.fused_add_rmsnorm_quant(out, x, None, w, 1.0)),
        ):
            with self.subTest(text), self.assertRaisesRegex(ValueError, text):
                call()

    def quantised(self, out, exact, scale):
        """What is stored is next to the exact number: within half a step, but for float32's own rounding."""
        found, wanted = out.astype(np.float64), exact / np.float32(scale).astype(np.float64)
        if out.dtype == np.int8:
            wanted, step = np.clip(wanted, -128, 127), 0.5
        else:
            largest, bits, least = (448, 4, -6) if out.dtype == ml_dtypes.float8_e4m3fn else (57344, 3, -14)
            wanted = np.clip(wanted, -largest, largest)
            step = 2.0 ** (np.maximum(np.floor(np.log2(np.abs(wanted) + 1e-30)), least) - bits)
        self.assertTrue((np.abs(found - wanted) <= step + 2e-6 * np.abs(wanted) + 1e-9).all())

    def test_layernorm(self):
        x, g, b = random((5, 64), np.float16), random((64,), seed=1), random((64,), seed=2)
        out = fi.layernorm(x, g, b)
        self.assertEqual(out.dtype, np.float16)
        close(self, out, ref.layernorm(x, g, b), "float16", 2)

    def test_activations(self):
        for name, kind in (("silu_and_mul", "silu"), ("gelu_and_mul", "gelu"), ("gelu_tanh_and_mul", "gelu_tanh")):
            for shape in ((5, 256), (2, 3, 192), (2, 2, 3, 64)):
                x = random(shape, np.float16)
                close(self, getattr(fi, name)(x), ref.activation(x, kind), "float16", 2)
                out = np.empty((*shape[:-1], shape[-1] // 2), np.float16)
                self.assertIs(getattr(fi, name)(x, out=out), out)
                close(self, out, ref.activation(x, kind), "float16", 2)


class RopeTests(unittest.TestCase):
    def setUp(self):
        self.q, self.k = random((11, 4, 64)), random((11, 2, 64), seed=1)
        self.indptr, self.offsets = np.array([0, 4, 4, 11], np.int32), np.array([3, 9, 100], np.int32)
        self.positions = np.concatenate([np.arange(4) + 3, np.arange(7) + 100])

    def test_all_forms(self):
        llama = dict(llama=(1.0, 4.0, 8192), theta=5e5, factor=8.0)
        for name, base in (("apply_rope", {}), ("apply_llama31_rope", llama)):
            for interleave in (False, True):
                for rotary_dim in (None, 32):
                    definition = dict(base, interleave=interleave, dim=rotary_dim)
                    options = dict(interleave=interleave, rotary_dim=rotary_dim)
                    q, k = (ref.rope(x, self.positions, **definition) for x in (self.q, self.k))
                    for index in (np.int32, np.int64):
                        places = [(self.indptr.astype(index), self.offsets.astype(index))]
                        for suffix, arguments in (("", places[0]), ("_pos_ids", (self.positions.astype(index),))):
                            with self.subTest(name=name + suffix, index=index, **options):
                                found = getattr(fi, name + suffix)(self.q, self.k, *arguments, **options)
                                close(self, found[0], q)
                                close(self, found[1], k)
                                q_in, k_in = self.q.copy(), self.k.copy()
                                self.assertIsNone(getattr(fi, name + suffix + "_inplace")(q_in, k_in, *arguments, **options))
                                close(self, q_in, q)
                                close(self, k_in, k)

    def test_scaled(self):
        found = fi.apply_rope_pos_ids(self.q, self.k, self.positions, rope_scale=4.0, rope_theta=1e5)
        close(self, found[0], ref.rope(self.q, self.positions, theta=1e5, factor=4.0))

    def test_table_of_angles(self):
        for neox in (True, False):
            for dim in (64, 32):
                angles = np.arange(128)[:, None] * ref.frequencies(dim)
                table = np.concatenate([np.cos(angles), np.sin(angles)], -1).astype(np.float32)
                q, k = self.q.reshape(11, -1), self.k.reshape(11, -1)
                found = fi.apply_rope_with_cos_sin_cache(self.positions, q, k, 64, table, neox)
                for x, y, heads in ((found[0], self.q, 4), (found[1], self.k, 2)):
                    close(self, x, ref.rope(y, self.positions, dim=dim, interleave=not neox).reshape(11, heads * 64))
                fi.apply_rope_with_cos_sin_cache_inplace(self.positions, q, k, 64, table, neox)
                close(self, q, found[0])
                self.setUp()
        with self.assertRaisesRegex(ValueError, "float32"):
            fi.apply_rope_with_cos_sin_cache(self.positions, q, k, 64, table.astype(np.float64))


class PageTests(unittest.TestCase):
    def test_lengths_and_positions(self):
        pages = Pages((5, 0, 17), 4, 2, 64)
        for kind in (np.int32, np.int64):
            lengths = fi.get_seq_lens(pages.indptr.astype(kind), pages.last.astype(kind), 4)
            self.assertEqual(lengths.dtype, np.int32)
            np.testing.assert_array_equal(lengths, [5, 0, 17])
        batch, positions = fi.get_batch_indices_positions(
            np.array([0, 2, 2, 5], np.int32), np.array([5, 0, 17], np.int32), 7)
        np.testing.assert_array_equal(batch, [0, 0, 2, 2, 2, -1, -1])
        np.testing.assert_array_equal(positions, [3, 4, 14, 15, 16, 0, 0])

    def test_append(self):
        for layout in ("NHD", "HND"):
            for pair in (False, True):
                pages = Pages((5, 17), 4, 2, 64, layout)
                cache = pages.cache.copy()
                k, v = random((5, 2, 64)), random((5, 2, 64), seed=1)
                batch, positions = np.array([0, 1, 1, -1, 1], np.int32), np.array([4, 14, 15, 0, 16], np.int32)
                given = (cache[:, 0], cache[:, 1]) if pair else cache
                fi.append_paged_kv_cache(k, v, batch, positions, given, pages.indices, pages.indptr, pages.last, layout)
                slots = fi.get_slot_table(batch, positions, pages.indices, pages.indptr, pages.last, 4)
                other = pages.cache.copy()
                fi.append_paged_kv_cache_at(k, v, slots, other, layout)
                expected = pages.cache.copy()
                for token, (request, position) in enumerate(zip(batch, positions)):
                    if request < 0:
                        continue
                    page, row = pages.indices[pages.indptr[request] + position // 4], position % 4
                    place = (page, slice(None), row) if layout == "NHD" else (page, slice(None), slice(None), row)
                    expected[place] = np.stack([k[token], v[token]])
                np.testing.assert_array_equal(cache, expected)
                np.testing.assert_array_equal(other, expected)

    def test_rope_append(self):
        batch, positions = np.array([0, 1, 1, -1, 1], np.int32), np.array([4, 14, 15, 0, 16], np.int32)
        far = np.array([4, 14, 15, 70000, 900], np.int64)
        k, v = random((5, 2, 64)), random((5, 2, 64), seed=1)
        for options, definition in (
            ({}, {}), (dict(interleave=True, rotary_dim=32, rope_theta=5e5), dict(interleave=True, dim=32, theta=5e5)),
            (dict(pos_ids=far, rope_scale=4.0), dict(factor=4.0)),
            (dict(rope_scale=8, rope_theta=5e5, old_context_len=8192), dict(llama=(1.0, 4.0, 8192), theta=5e5, factor=8.0)),
        ):
            for layout in ("NHD", "HND"):
                with self.subTest(layout=layout, **options):
                    turns = options.get("pos_ids", positions)
                    q = random((5, 4, 64), seed=2)
                    exact_q, exact_k = ref.rope(q, turns, **definition), ref.rope(k, turns, **definition)
                    pages = Pages((5, 17), 4, 2, 64, layout)
                    cache, plain, out = pages.cache.copy(), pages.cache.copy(), np.empty_like(q)
                    table = (pages.indices, pages.indptr, pages.last)
                    before = (q.copy(), k.copy())
                    self.assertIs(
                        fi.rope_append_paged_kv_cache(q, k, v, batch, positions, cache, *table, layout, out=out, **options), out)
                    close(self, out, exact_q, factor=50 if turns is far else 1)
                    np.testing.assert_array_equal(q, before[0])
                    np.testing.assert_array_equal(k, before[1])
                    self.assertIs(fi.rope_append_paged_kv_cache(q, k, v, batch, positions, plain, *table, layout, **options), q)
                    np.testing.assert_array_equal(q, out)
                    np.testing.assert_array_equal(plain, cache)
                    # By slots, as a pair, with the positions given.
                    slots = fi.get_slot_table(batch, positions, *table, 4)
                    other = pages.cache.copy()
                    rest = {name: value for name, value in options.items() if name != "pos_ids"}
                    again = fi.rope_append_paged_kv_cache_at(
                        before[0], k, v, turns, slots, (other[:, 0], other[:, 1]), layout, **rest)
                    self.assertIs(again, before[0])
                    np.testing.assert_array_equal(again, out)
                    np.testing.assert_array_equal(other, cache)
                    turned = pages.cache.copy()
                    fi.append_paged_kv_cache(exact_k.astype(np.float32), v, batch, positions, turned, *table, layout)
                    np.testing.assert_array_equal(np.isnan(cache), np.isnan(turned))
                    close(self, np.nan_to_num(cache), np.nan_to_num(turned), factor=50 if turns is far else 1)

    @needs_ml_dtypes
    def test_rope_append_in_float8(self):
        e4m3 = ml_dtypes.float8_e4m3fn
        q, k, v = random((2, 4, 64)), random((2, 2, 64), seed=1), random((2, 2, 64), seed=2)
        pages = Pages((5, 17), 4, 2, 64, dtype=e4m3)
        batch, positions = np.array([0, 1], np.int32), np.array([4, 16], np.int32)
        cache, expected, out = pages.cache.copy(), pages.cache.copy(), np.empty((2, 4, 64), e4m3)
        table = (pages.indices, pages.indptr, pages.last)
        fi.rope_append_paged_kv_cache(
            q, k, v, batch, positions, cache, *table, k_scale=0.03, v_scale=np.array([0.05], np.float32), out=out, q_scale=0.02)
        turned_q, turned_k = fi.apply_rope_pos_ids(q, k, positions)
        fi.append_paged_kv_cache(turned_k, v, batch, positions, expected, *table, k_scale=0.03, v_scale=0.05)
        np.testing.assert_array_equal(cache.view(np.uint8), expected.view(np.uint8))
        wide = np.empty((2, 4, 64), e4m3)
        fi.norm.convert(turned_q, wide, 1 / 0.02)
        np.testing.assert_array_equal(out.view(np.uint8), wide.view(np.uint8))
        for text, call in (
            ("query scale", lambda: fi.rope_append_paged_kv_cache(q, k, v, batch, positions, cache, *table, q_scale=2.0)),
            ("positions", lambda: fi.rope_append_paged_kv_cache(q, k, v, batch, positions, cache, *table, pos_ids=positions - 9)),
            ("keys", lambda: fi.rope_append_paged_kv_cache(q, k.astype(np.float16), v, batch, positions, cache, *table)),
        ):
            with self.subTest(text), self.assertRaisesRegex(ValueError, text):
                call()

    def test_append_out_of_range(self):
        pages = Pages((5, 17), 4, 2, 64)
        k = random((1, 2, 64))
        for batch, position in ((0, 5), (2, 0), (0, -1)):
            with self.assertRaises(ValueError):
                fi.append_paged_kv_cache(
                    k, k, np.array([batch], np.int32), np.array([position], np.int32), pages.cache, pages.indices, pages.indptr,
                    pages.last)


class MergeTests(unittest.TestCase):
    def test_merges(self):
        v, s = random((6, 3, 4, 64)), random((6, 3, 4), seed=1, scale=5)
        s[0, 0] = -np.inf
        s[1] = -np.inf
        v[1] = np.nan  # values of empty states count for nothing
        out, lse = fi.merge_states(v, s)
        expected, expected_lse = ref.merge_many(v, s)
        close(self, out, expected)
        close(self, lse, expected_lse)
        a = [x.copy() for x in (v[:, 0], s[:, 0], v[:, 1], s[:, 1])]
        out, lse = fi.merge_state(*a)
        expected, expected_lse = ref.merge(*a)
        close(self, out, expected)
        close(self, lse, expected_lse)
        mask = np.array([1, 1, 0, 1, 0, 1], np.uint8)
        before = a[0].copy(), a[1].copy()
        fi.merge_state_in_place(*a, mask=mask)
        for row in range(6):
            want = (expected[row], expected_lse[row]) if mask[row] else (before[0][row], before[1][row])
            close(self, a[0][row], want[0])
            close(self, a[1][row], want[1])
        with self.assertRaisesRegex(ValueError, "float32"):
            fi.merge_state_in_place(a[0], a[1].astype(np.float64), a[2], a[3])

    def test_cascade(self):
        shared, own = Pages((40,), 4, 2, 64), Pages((5, 9, 3), 4, 2, 64, seed=2)
        cache = np.concatenate([shared.cache, own.cache])
        q = random((7, 4, 64))
        rows = np.array([0, 2, 4, 7], np.int32)
        wrapper = fi.MultiLevelCascadeAttentionWrapper(2)
        wrapper.plan(
            [np.array([0, 7], np.int32), rows], [shared.indptr, own.indptr],
            [shared.indices, own.indices + np.int32(len(shared.cache))], [shared.last, own.last], 4, 2, 64, 4, causal=True,
            q_data_type="float32")
        out, lse = wrapper.run(q, cache, return_lse=True)
        for request in range(3):
            part = slice(rows[request], rows[request + 1])
            k = np.concatenate([shared.keys[0], own.keys[request]])
            v = np.concatenate([shared.values[0], own.values[request]])
            expected, expected_lse = ref.attention(q[part], k, v, causal=True)
            close(self, out[part], expected)
            close(self, lse[part], expected_lse)
        with self.assertRaisesRegex(ValueError, "rows"):
            wrapper.plan(
                [np.array([0, 6], np.int32), rows], [shared.indptr, own.indptr],
                [shared.indices, own.indices + np.int32(len(shared.cache))], [shared.last, own.last], 4, 2, 64, 4,
                q_data_type="float32")

    def test_cascade_of_many_levels(self):
        # A chain of seven levels, each one page for everybody, in slots past those of a call.
        pages = Pages((4,) * 7, 4, 2, 64)
        q = random((3, 4, 64))
        one, each = np.array([0, 3], np.int32), np.array([0, 1, 2, 3], np.int32)
        last, empty = np.array([4], np.int32), np.zeros(4, np.int32)
        wrapper = fi.MultiLevelCascadeAttentionWrapper(8)
        wrapper.plan(
            [one] * 7 + [each], [np.array([0, 1], np.int32)] * 7 + [empty],
            [pages.indices[level:level + 1] for level in range(7)] + [np.zeros(0, np.int32)], [last] * 7 + [np.zeros(3, np.int32)],
            4, 2, 64, 4, q_data_type="float32")
        expected, _ = ref.attention(q, np.concatenate(pages.keys), np.concatenate(pages.values))
        close(self, wrapper.run(q, pages.cache), expected)

    def test_cascade_with_a_window_is_computed_by_levels(self):
        shared, own = Pages((40,), 4, 2, 64), Pages((5, 9), 4, 2, 64, seed=2)
        cache = np.concatenate([shared.cache, own.cache])
        q = random((2, 4, 64))
        wrapper = fi.MultiLevelCascadeAttentionWrapper(2)
        wrapper.plan(
            [np.array([0, 2], np.int32), np.array([0, 1, 2], np.int32)], [shared.indptr, own.indptr],
            [shared.indices, own.indices + np.int32(len(shared.cache))], [shared.last, own.last], 4, 2, 64, 4, causal=True,
            window_left=3, q_data_type="float32")
        level, lse = ref.attention(q, shared.keys[0], shared.values[0], window_left=3)
        for request in range(2):
            part = slice(request, request + 1)
            end = ref.attention(q[part], own.keys[request], own.values[request], causal=True, window_left=3)
            expected, _ = ref.merge(level[part], lse[part], *end)
            close(self, wrapper.run(q, cache)[part], expected)

    def test_shared_prefix(self):
        own = Pages((5, 9, 3), 4, 2, 64)
        k, v = random((21, 2, 64), seed=5), random((21, 2, 64), seed=6)
        q = random((3, 4, 64))
        decode = fi.BatchDecodeWithSharedPrefixPagedKVCacheWrapper()
        decode.begin_forward(own.indptr, own.indices, own.last, 4, 2, 64, 4, data_type="float32")
        prefill = fi.BatchPrefillWithSharedPrefixPagedKVCacheWrapper()
        prefill.begin_forward(np.arange(4, dtype=np.int32), own.indptr, own.indices, own.last, 4, 2, 64, 4)
        for out in (decode.forward(q, k, v, own.cache), prefill.forward(q, k, v, own.cache, causal=True)):
            for request in range(3):
                expected, _ = ref.attention(
                    q[request:request + 1], np.concatenate([k, own.keys[request]]), np.concatenate([v, own.values[request]]))
                close(self, out[request:request + 1], expected)


class SparseTests(unittest.TestCase):
    def test_blocks(self):
        rng = np.random.default_rng(0)
        for R, C in ((1, 1), (4, 16), (16, 4)):
            for inside in (False, True):
                M, N = 34, 64
                blocks = rng.random((-(-M // R), N // C)) < 0.4
                indptr = np.concatenate([[0], np.cumsum(blocks.sum(1))]).astype(np.int32)
                indices = np.concatenate([np.flatnonzero(row) for row in blocks]).astype(np.int32)
                mask = rng.random((len(indices), R, C)) < 0.7 if inside else None
                dense = np.zeros((blocks.shape[0] * R, N), bool)
                for row in range(blocks.shape[0]):
                    for place in range(indptr[row], indptr[row + 1]):
                        block = mask[place] if inside else True
                        dense[row * R:(row + 1) * R, indices[place] * C:(indices[place] + 1) * C] = block
                q, k, v = random((M, 4, 64)), random((N, 2, 64), seed=1), random((N, 2, 64), seed=2)
                wrapper = fi.BlockSparseAttentionWrapper()
                wrapper.plan(indptr, indices, M, N, R, C, 4, 2, 64, mask=mask, q_data_type="float32")
                out, lse = wrapper.run(q, k, v, return_lse=True)
                expected, expected_lse = ref.attention(q, k, v, mask=dense[:M])
                close(self, out, expected)
                close(self, lse, expected_lse)

    def test_variable_blocks(self):
        rng = np.random.default_rng(0)
        seen = rng.random((2, 3, 4)) < 0.6
        row_sizes, column_sizes = np.array([[3, 5, 2], [1, 8, 1]]), np.array([[4, 4, 4, 4], [1, 7, 6, 2]])
        q, k, v = random((4, 10, 64)), random((2, 16, 64), seed=1), random((2, 16, 64), seed=2)
        wrapper = fi.VariableBlockSparseAttentionWrapper()
        wrapper.plan(seen, row_sizes, column_sizes, 4, 2, 64, q_data_type="float32")
        out, lse = wrapper.run(q, k, v, return_lse=True)
        for head in range(4):
            kv = head // 2
            dense = np.repeat(np.repeat(seen[kv], row_sizes[kv], 0), column_sizes[kv], 1)
            expected, expected_lse = ref.attention(q[head][:, None], k[kv][:, None], v[kv][:, None], mask=dense)
            close(self, out[head], expected[:, 0])
            close(self, lse[head], expected_lse[:, 0])


class BitTests(unittest.TestCase):
    def test_packbits(self):
        rng = np.random.default_rng(0)
        for count in (0, 1, 7, 8, 1000):
            x = rng.random(count) < 0.5
            for order in ("big", "little"):
                np.testing.assert_array_equal(fi.packbits(x, order), np.packbits(x, bitorder=order))
        np.testing.assert_array_equal(fi.packbits(np.ones(20, bool)[::2]), np.packbits(np.ones(10, bool)))
        with self.assertRaises(ValueError):
            fi.packbits(np.ones(3, bool), "middle")

    def test_segments(self):
        x = np.random.default_rng(0).random(50) < 0.5
        indptr = np.array([0, 3, 3, 20, 50], np.int32)
        for order in ("big", "little"):
            packed, starts = fi.segment_packbits(x, indptr, order)
            self.assertEqual(starts.dtype, np.int32)
            np.testing.assert_array_equal(starts, [0, 1, 1, 4, 8])
            parts = [np.packbits(x[a:b], bitorder=order) for a, b in zip(indptr, indptr[1:])]
            np.testing.assert_array_equal(packed, np.concatenate(parts))

    def test_concat(self):
        k, nope, rope = np.zeros((3, 4, 24), np.float32), random((3, 4, 16)), random((3, 1, 8), seed=1)
        fi.concat_mla_k(k, nope, rope)
        np.testing.assert_array_equal(k, np.concatenate([nope, np.broadcast_to(rope, (3, 4, 8))], -1))

    def test_top_k(self):
        x = random((5, 40))
        x[2, 7] = x[2, 30] = 9
        for tie, first in ((1, 7), (2, 30)):
            values, places = fi.top_k(x, 6, sorted=True, tie_break=tie)
            np.testing.assert_array_equal(values, -np.sort(-x, -1)[:, :6])
            np.testing.assert_array_equal(np.take_along_axis(x, places, -1), values)
            self.assertEqual(places[2, 0], first)
            values, places = fi.top_k(x.astype(np.float16), 6, tie_break=tie)
            np.testing.assert_array_equal(-np.sort(-values, -1), -np.sort(-x.astype(np.float16), -1)[:, :6])
        self.assertEqual(fi.top_k(x, 40)[1].tolist(), [list(range(40))] * 5)

    def test_selected_pages(self):
        scores = random((4, 40))
        scores[1, 5] = scores[1, 9] = scores[1, 11] = 9
        table = np.arange(80, dtype=np.int32).reshape(2, 40)[:, ::-1].copy()
        lengths, rows = np.array([40, 12, 3, 0], np.int32), np.array([1, 0, 1, 0], np.int32)
        offsets = np.array([0, 100, 200, 300], np.int32)
        for tie in (1, 2):
            pages = fi.top_k_page_table_transform(scores, table, lengths, 2, rows, tie_break=tie)
            ragged = fi.top_k_ragged_transform(scores, offsets, lengths, 2, tie_break=tie)
            for row, length in enumerate(lengths):
                order = sorted(range(length), key=lambda i: (-scores[row, i], i if tie == 1 else -i))
                places = sorted(order[:2])
                rest = [-1] * (2 - len(places))
                self.assertEqual(pages[row].tolist(), table[rows[row], places].tolist() + rest)
                self.assertEqual(ragged[row].tolist(), [place + offsets[row] for place in places] + rest)
        self.assertEqual(fi.top_k_ragged_transform(scores, offsets, lengths, 2, recent=2)[1].tolist(), [110, 111])
        with self.assertRaisesRegex(ValueError, "lengths"):
            fi.top_k_ragged_transform(scores, offsets, lengths + 1, 2)

    def test_decode_over_selected_pages(self):
        q, cache = random((2, 4, 16)), random((9, 2, 4, 2, 16))
        indptr, last = np.array([0, 2, 4], np.int32), np.array([3, 4], np.int32)
        wrapper = fi.BatchDecodeWithPagedKVCacheWrapper()
        pages = np.array([[5, 2], [8, 0]], np.int32)
        wrapper.plan(indptr, pages.reshape(-1), last, 4, 2, 16, 4, q_data_type="float32")
        expected = wrapper.run(q, cache)
        # Planned over ids that are not read.
        wrapper.plan(indptr, np.array([8, 8, 8, 8], np.int32), last, 4, 2, 16, 4, q_data_type="float32")
        np.testing.assert_array_equal(wrapper.run(q, cache, page_indices=pages), expected)
        self.assertFalse(np.array_equal(wrapper.run(q, cache), expected))
        with self.assertRaisesRegex(ValueError, "9"):
            wrapper.run(q, cache, page_indices=pages + 1)

    def test_pages_by_their_bounds(self):
        """Bounds, scores, selection of each head with places, and attention with a window over what was chosen."""
        heads, kv_heads, dim, size, k, q_len = 4, 2, 16, 4, 3, 2
        lengths, counts = np.array([30, 9], np.int32), np.array([8, 3], np.int32)
        cache = np.full((13, 2, size, kv_heads, dim), np.nan, np.float32)
        table = np.zeros((2, 8), np.int32)
        ids = np.random.default_rng(4).permutation(13).astype(np.int32)
        sequences = []
        for request, length in enumerate(lengths):
            table[request, :counts[request]] = ids[request * 8:request * 8 + counts[request]]
            keys = random((length, 2, kv_heads, dim))
            for j in range(length):
                cache[table[request, j // size], :, j % size] = keys[j]
            sequences.append(keys)
        bounds = np.full((13, 2, kv_heads, dim), np.nan, np.float32)
        fi.update_page_bounds(cache[:, 0], bounds, table, lengths, lengths, 30)
        q = random((2 * q_len, heads, dim))
        for reduction in ("max", "sum"):
            scores = fi.score_pages(q, bounds, table, counts, per_head=True, reduction=reduction)
            whole = fi.score_pages(q, bounds, table, counts, reduction=reduction)
            for request in range(2):
                rows = q[request * q_len:(request + 1) * q_len].reshape(q_len, kv_heads, -1, dim).astype(np.float64)
                for place in range(counts[request]):
                    page = sequences[request][place * size:(place + 1) * size, 0].astype(np.float64)
                    low, high = page.min(0)[None, :, None], page.max(0)[None, :, None]
                    np.testing.assert_array_equal(bounds[table[request, place]], np.stack([page.min(0), page.max(0)]))
                    bound = np.maximum(rows * low, rows * high).sum(-1)
                    own = getattr(bound, reduction)(axis=(0, 2))
                    np.testing.assert_allclose(scores[request, :, place], own, rtol=1e-5, atol=1e-5)
                    np.testing.assert_allclose(whole[request, place], getattr(own, reduction)(), rtol=1e-5, atol=1e-5)
        positions = np.zeros((2, kv_heads, k), np.int32)
        pages = fi.top_k_page_table_transform(scores, table, counts, k, recent=2, out_raw_indices=positions)
        wrapper = fi.BatchDecodeWithPagedKVCacheWrapper()
        for window, mode in ((12, "NONE"), (-1, "ALIBI"), (12, "ROPE_LLAMA")):
            wrapper.plan_selected_pages(
                lengths, k, heads, kv_heads, dim, size, 13, positions=True, per_head=True, q_len_per_req=q_len,
                window_left=window, pos_encoding_mode=mode, q_data_type="float32")
            out, lse = wrapper.run(q, cache, page_indices=pages, page_positions=positions, return_lse=True)
            for request, length in enumerate(lengths):
                for head in range(kv_heads):
                    chosen = np.isin(np.arange(length) // size, positions[request, head])
                    self.assertEqual(pages[request, head].tolist(), table[request, positions[request, head]].tolist())
                    # A mask takes the place of causality.
                    mask = chosen[None] & (np.arange(length)[None] <= np.arange(q_len)[:, None] + length - q_len)
                    group = slice(head * 2, head * 2 + 2)
                    keys = sequences[request][:, :, head:head + 1]
                    expected = ref.attention(
                        q[request * q_len:(request + 1) * q_len, group], keys[:, 0], keys[:, 1], mask=mask,
                        window_left=window, rope_theta=1e4 if mode == "ROPE_LLAMA" else None,
                        slopes=ref.alibi_slopes(heads)[group] if mode == "ALIBI" else None)
                    for found, wanted in zip((out, lse), expected):
                        np.testing.assert_allclose(
                            found[request * q_len:(request + 1) * q_len, group], wanted, rtol=1e-4, atol=1e-4)
        with self.assertRaisesRegex(ValueError, "page positions"):
            wrapper.run(q, cache, page_indices=pages)
        with self.assertRaisesRegex(ValueError, r"request 0.*page positions\[1\]"):
            wrapper.run(q, cache, page_indices=pages, page_positions=np.zeros_like(positions))
        with self.assertRaisesRegex(ValueError, "reduction"):
            fi.score_pages(q, bounds, table, counts, reduction="mean")
        with self.assertRaisesRegex(ValueError, "request 0.*appended keys"):
            fi.update_page_bounds(cache[:, 0], bounds, table, lengths, lengths, 29)


if __name__ == "__main__":
    unittest.main()
