"""Layer norm, 8-bit groups, packed bits, latent attention's cache, and rotations that quantise, on NumPy arrays."""

import unittest

import numpy as np
import reference as ref
from support import Pages, close, ml_dtypes, needs_ml_dtypes, random

import flashinfer_swift as fi


def stored(value, dtype):
    """What a number is stored as: float8 saturates."""
    if dtype == np.int8:
        return np.clip(np.rint(value), -128, 127)
    largest = 448 if dtype == ml_dtypes.float8_e4m3fn else 57344
    return np.clip(np.asarray(value, np.float32), -largest, largest).astype(dtype).astype(np.float64)


def near(test, found, exact, dtype):
    """At most one step from the exact number's: the number before rounding is off by float32's own roundings."""
    found = np.asarray(found).astype(np.float64)
    exact = np.asarray(exact, np.float64)
    slack = np.abs(exact) * 4e-6 + 1e-6
    test.assertEqual(found.shape, exact.shape)
    test.assertTrue(((found >= stored(exact - slack, dtype)) & (found <= stored(exact + slack, dtype))).all())


class NormTests(unittest.TestCase):
    def test_layernorm(self):
        for dtype in (np.float32, np.float16):
            for shape in ((5, 111), (2, 3, 64)):
                x, g, b = random(shape, dtype), random(shape[-1:], seed=1), random(shape[-1:], seed=2)
                out = fi.layernorm(x, g, b)
                self.assertEqual(out.dtype, dtype)
                close(self, out, ref.layernorm(x, g, b), np.dtype(dtype).name, 2)
        with self.assertRaisesRegex(ValueError, "bias"):
            fi.layernorm(x, g, b.astype(np.float16))

    @needs_ml_dtypes
    def test_layernorm_quant(self):
        x, g, b = random((5, 64)), random((64,), seed=1), random((64,), seed=2)
        for dtype in (ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2, np.int8):
            for scale in (0.05, np.array([0.02], np.float32)):
                out = np.empty((5, 64), dtype)
                self.assertIsNone(fi.layernorm_quant(out, x, g, b, scale))
                near(self, out, ref.layernorm(x, g, b) / np.float64(np.float32(scale)), dtype)


class QuantizationTests(unittest.TestCase):
    @needs_ml_dtypes
    def test_groups(self):
        for shape in ((6, 256), (2, 3, 128)):
            x = random(shape, np.float16, 3, scale=4)
            for size in (32, 64, 128):
                for dtype in (ml_dtypes.float8_e4m3fn, np.int8):
                    for columns, aligned in ((False, False), (True, False), (True, True)):
                        q, s = fi.per_token_group_quant_8bit(
                            x, size, dst_dtype=dtype, column_major_scales=columns, scale_tma_aligned=aligned)
                        groups = x.astype(np.float64).reshape(*shape[:-1], -1, size)
                        largest = 127 if dtype == np.int8 else 448
                        expected = np.maximum(np.abs(groups).max(-1), 1e-10) / largest
                        self.assertEqual(s.shape, (*shape[:-1], shape[-1] // size))
                        np.testing.assert_allclose(s, expected, rtol=1e-6)
                        if columns and len(shape) == 2:
                            self.assertEqual(s.strides[0], 4)
                            self.assertEqual(s.strides[1], 4 * (8 if aligned else 6))
                        near(self, q.reshape(groups.shape), groups / s.astype(np.float64)[..., None], dtype)
        default, _ = fi.per_token_group_quant_8bit(x, 128)
        self.assertEqual(default.dtype, ml_dtypes.float8_e4m3fn)
        with self.assertRaisesRegex(NotImplementedError, "ue8m0"):
            fi.per_token_group_quant_8bit(x, 128, scale_ue8m0=True)
        for size in (48, 256):
            with self.assertRaisesRegex(ValueError, "group"):
                fi.per_token_group_quant_8bit(x, size)

    def test_groups_of_norms(self):
        for shape in ((6, 256), (2, 3, 128)):
            x, w, b = random(shape, scale=3), random(shape[-1:], seed=1), random(shape[-1:], seed=2)
            for columns in (False, True):
                for residual in (None, random(shape, seed=3)):
                    how = dict(dst_dtype=np.int8, column_major_scales=columns)
                    sums = [None if residual is None else residual.copy() for _ in range(3)]
                    # What conversion makes of the float32 norm.
                    if residual is None:
                        plain = fi.rmsnorm(x, w)
                    else:
                        plain = x.copy()
                        fi.fused_add_rmsnorm(plain, sums[0], w)
                    q, s = fi.rmsnorm_group_quant(x, w, 64, sums[1], **how)
                    for found, wanted in zip((q, s), fi.per_token_group_quant_8bit(plain, 64, **how)):
                        np.testing.assert_array_equal(found, wanted)
                    source = x if residual is None else x + residual
                    q, s = fi.layernorm_group_quant(x, w, b, 64, sums[2], **how)
                    for found, wanted in zip((q, s), fi.per_token_group_quant_8bit(fi.layernorm(source, w, b), 64, **how)):
                        np.testing.assert_array_equal(found, wanted)
                    if residual is not None:
                        for total in sums:
                            np.testing.assert_array_equal(total, source)
        gemma, _ = fi.rmsnorm_group_quant(x, w, 32, weight_offset=1.0, dst_dtype=np.int8)
        np.testing.assert_array_equal(gemma, fi.per_token_group_quant_8bit(fi.gemma_rmsnorm(x, w), 32, dst_dtype=np.int8)[0])
        with self.assertRaisesRegex(ValueError, "whole groups of 48"):
            fi.rmsnorm_group_quant(x, w, 48)

    def test_segments(self):
        rng = np.random.default_rng(5)
        x = rng.random(200) < 0.5
        indptr = np.array([0, 3, 3, 64, 65, 200], np.int32)
        for order in ("big", "little"):
            for flags in (x, x.astype(np.uint8) * 7, np.repeat(x, 2)[::2]):
                packed, starts = fi.segment_packbits(flags, indptr, order)
                expected = [np.packbits(x[a:b], bitorder=order) for a, b in zip(indptr, indptr[1:])]
                np.testing.assert_array_equal(packed, np.concatenate(expected))
                np.testing.assert_array_equal(starts, np.cumsum([0, *(len(part) for part in expected)]))
                np.testing.assert_array_equal(fi.packbits(flags, order), np.packbits(x, bitorder=order))
        self.assertEqual(fi.packbits(np.zeros(0, bool)).shape, (0,))
        with self.assertRaisesRegex(ValueError, "segment 1"):
            fi.segment_packbits(x, np.array([0, 5, 3], np.int32))


class LatentTests(unittest.TestCase):
    def setUp(self):
        self.pages = Pages((5, 17), 4, 1, 8)
        self.batch, self.positions = np.array([0, 1, 1, -1, 1], np.int32), np.array([4, 14, 15, 0, 16], np.int32)

    def places(self):
        for token, (request, position) in enumerate(zip(self.batch, self.positions)):
            if request >= 0:
                yield token, self.pages.indices[self.pages.indptr[request] + position // 4], position % 4

    def table(self):
        return self.pages.indices, self.pages.indptr

    def test_append(self):
        count = self.pages.cache.shape[0]
        ckv, kpe = random((5, 512), np.float16), random((5, 64), np.float16, 1)
        # Two tensors, and slices of one.
        joint = np.full((count, 4, 576), np.nan, np.float16)
        for caches in (
            (np.full((count, 4, 512), np.nan, np.float16), np.full((count, 4, 64), np.nan, np.float16)),
            (joint[..., :512], joint[..., 512:]),
        ):
            self.assertIsNone(
                fi.append_paged_mla_kv_cache(ckv, kpe, self.batch, self.positions, *caches, *self.table(), self.pages.last))
            for cache, source in zip(caches, (ckv, kpe)):
                expected = np.full(cache.shape, np.nan, np.float16)
                for token, page, row in self.places():
                    expected[page, row] = source[token]
                np.testing.assert_array_equal(cache, expected)

    @needs_ml_dtypes
    def test_append_of_float8(self):
        ckv, kpe = random((5, 512), scale=200), random((5, 64), seed=1)
        caches = [np.zeros((self.pages.cache.shape[0], 4, dim), ml_dtypes.float8_e4m3fn) for dim in (512, 64)]
        fi.append_paged_mla_kv_cache(
            ckv, kpe, self.batch, self.positions, *caches, *self.table(), self.pages.last, ckv_scale=2.0)
        for token, page, row in self.places():
            near(self, caches[0][page, row], ckv[token].astype(np.float64) / 2, ml_dtypes.float8_e4m3fn)
            near(self, caches[1][page, row], kpe[token], ml_dtypes.float8_e4m3fn)


@needs_ml_dtypes
class RopeQuantizeTests(LatentTests):
    ROPE = 64

    def setUp(self):
        super().setUp()
        angles = np.arange(128)[:, None] * ref.frequencies(self.ROPE)
        self.cosines = np.concatenate([np.cos(angles), np.sin(angles)], -1).astype(np.float32)
        self.far = np.array([4, 100, 127, 0, 16], np.int64)

    def inputs(self, heads, rest, latent):
        def make(shape, seed):
            return random((5, *shape), np.float16, seed)
        kv = () if latent else (2,)
        return (
            make((heads, self.ROPE), 1), make((*kv, self.ROPE), 2), make((heads, rest), 3) if rest else None,
            make((*kv, rest), 4) if rest else None)

    def turned(self, x, neox, scale):
        heads = x if x.ndim == 3 else x[:, None]
        return ref.rope(heads, self.far, dim=self.ROPE, interleave=not neox).reshape(x.shape) * scale

    def test_rows(self):
        for dtype in (ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2):
            for latent, rest in ((True, 512), (False, 64), (False, 0), (False, 40)):
                for neox in (True, False):
                    given = self.inputs(4, rest, latent)
                    outputs = fi.rope_quantize_fp8(
                        *given, self.cosines, self.far, neox, dtype, quant_scale_q=1.5, quant_scale_kv=0.25)
                    for out, source, turns, scale in zip(outputs, given, (True, True, False, False), (1.5, 0.25, 1.5, 0.25)):
                        self.assertEqual(out.dtype, dtype)
                        if source is None:
                            self.assertEqual(out.shape[-1], 0)
                            continue
                        exact = self.turned(source, neox, scale) if turns else source.astype(np.float64) * scale
                        near(self, out, exact, dtype)
        # Outputs that are given: columns of one tensor.
        joint = np.zeros((5, 4, 576), ml_dtypes.float8_e4m3fn)
        given = self.inputs(4, 512, True)
        found = fi.mla_rope_quantize_fp8(
            *given, self.cosines, self.far, q_rope_out=joint[..., 512:], q_nope_out=joint[..., :512])
        near(self, joint[..., 512:], self.turned(given[0], True, 1), ml_dtypes.float8_e4m3fn)
        near(self, joint[..., :512], given[2], ml_dtypes.float8_e4m3fn)
        self.assertEqual(found[3].shape, (5, 512))
        with self.assertRaisesRegex(ValueError, "cos_sin_cache should be float32"):
            fi.rope_quantize_fp8(*given, self.cosines.astype(np.float64), self.far)
        with self.assertRaisesRegex(ValueError, "positions"):
            fi.rope_quantize_fp8(*given, self.cosines[:100], self.far)

    def test_latent_cache(self):
        given = self.inputs(4, 512, True)
        dtype = ml_dtypes.float8_e4m3fn
        caches = [np.zeros((self.pages.cache.shape[0], 4, dim), dtype) for dim in (512, self.ROPE)]
        q, q_rest = fi.rope_quantize_fp8_append_paged_kv_cache(
            *given, None, self.cosines, self.far, tuple(caches), *self.table(), self.batch, self.positions, page_size=4,
            quant_scale_kv=2.0)
        near(self, q, self.turned(given[0], True, 1), dtype)
        near(self, q_rest, given[2], dtype)
        turned = self.turned(given[1], True, 2.0)
        for token, page, row in self.places():
            near(self, caches[0][page, row], given[3][token].astype(np.float64) * 2, dtype)
            near(self, caches[1][page, row], turned[token], dtype)
        with self.assertRaisesRegex(ValueError, "should not have V"):
            fi.rope_quantize_fp8_append_paged_kv_cache(
                *given, given[0], self.cosines, self.far, tuple(caches), *self.table(), self.batch, self.positions, page_size=4)

    def test_cache(self):
        dtype = ml_dtypes.float8_e5m2
        for layout in ("NHD", "HND"):
            for rest in (0, 64):
                given = self.inputs(4, rest, False)
                v = random((5, 2, self.ROPE + rest), np.float16, 5)
                inner = (4, 2) if layout == "NHD" else (2, 4)
                caches = [np.zeros((self.pages.cache.shape[0], *inner, self.ROPE + rest), dtype) for _ in range(2)]
                fi.rope_quantize_fp8_append_paged_kv_cache(
                    *given, v, self.cosines, self.far, tuple(caches), *self.table(), self.batch, self.positions, False, dtype,
                    0.5, 3.0, 4, layout)
                keys = self.turned(given[1], False, 3.0)
                if rest:
                    keys = np.concatenate([keys, given[3].astype(np.float64) * 3.0], -1)
                for token, page, row in self.places():
                    place = (page, row) if layout == "NHD" else (page, slice(None), row)
                    near(self, caches[0][place], keys[token], dtype)
                    near(self, caches[1][place], v[token].astype(np.float64) * 3.0, dtype)


if __name__ == "__main__":
    unittest.main()
