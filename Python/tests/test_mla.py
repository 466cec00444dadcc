"""Multi-head latent attention on NumPy arrays."""

import math
import unittest

import numpy as np
import reference as ref
from support import close, ml_dtypes, needs_ml_dtypes, random

import flashinfer_swift as fi


class LatentBatch:
    """Queries and a paged cache of 512 + 64 elements, as the wrapper takes them."""

    def __init__(self, lengths, heads=16, page_size=4):
        self.lengths, self.heads, self.page_size = lengths, heads, page_size
        counts = [-(-keys // page_size) for _, keys in lengths]
        rng = np.random.default_rng(1)
        self.indices = rng.permutation(sum(counts)).astype(np.int32)
        self.qo_indptr = np.cumsum([0] + [queries for queries, _ in lengths], dtype=np.int32)
        self.kv_indptr = np.cumsum([0] + counts, dtype=np.int32)
        self.kv_len = np.array([keys for _, keys in lengths], dtype=np.int32)
        rows = int(self.qo_indptr[-1])
        self.q_nope, self.q_pe = random((rows, heads, 512), seed=2), random((rows, heads, 64), seed=3)
        self.ckv = np.full((sum(counts), page_size, 512), np.nan, np.float32)
        self.kpe = np.full((sum(counts), page_size, 64), np.nan, np.float32)
        for request, (_, keys) in enumerate(lengths):
            for key in range(keys):
                page = self.indices[self.kv_indptr[request] + key // page_size]
                self.ckv[page, key % page_size] = rng.standard_normal(512)
                self.kpe[page, key % page_size] = rng.standard_normal(64)

    def plan(self, wrapper, causal=True, q="float32", kv="float32"):
        wrapper.plan(
            self.qo_indptr, self.kv_indptr, self.indices, self.kv_len, self.heads, 512, 64, self.page_size, causal,
            1 / math.sqrt(192), q, kv)

    def expected(self, causal=True, ckv_scale=1.0, kpe_scale=1.0, ckv=None, kpe=None):
        ckv = self.ckv if ckv is None else ckv.astype(np.float32)
        kpe = self.kpe if kpe is None else kpe.astype(np.float32)
        outs, lses = [], []
        for request, (_, keys) in enumerate(self.lengths):
            pages = self.indices[self.kv_indptr[request]:self.kv_indptr[request + 1]]
            values = ckv_scale * ckv[pages].reshape(-1, 1, 512)[:keys]
            rope = kpe_scale * kpe[pages].reshape(-1, 1, 64)[:keys]
            rows = slice(self.qo_indptr[request], self.qo_indptr[request + 1])
            out, lse = ref.attention(
                np.concatenate([self.q_nope[rows], self.q_pe[rows]], -1), np.concatenate([values, rope], -1), values,
                causal=causal, scale=1 / math.sqrt(192))
            outs.append(out)
            lses.append(lse)
        return np.concatenate(outs), np.concatenate(lses)


class LatentAttentionTests(unittest.TestCase):
    def test_against_definition(self):
        batch = LatentBatch([(1, 33), (3, 9), (2, 1), (1, 0)])
        wrapper = fi.BatchMLAPagedAttentionWrapper(None)
        for causal in (False, True):
            batch.plan(wrapper, causal)
            out, lse = wrapper.run(batch.q_nope, batch.q_pe, batch.ckv, batch.kpe, return_lse=True)
            expected, expected_lse = batch.expected(causal)
            close(self, out, expected, factor=4)
            close(self, lse, expected_lse, factor=4)
            _, natural = wrapper.run(
                batch.q_nope, batch.q_pe, batch.ckv, batch.kpe, return_lse=True, return_lse_base_on_e=True)
            close(self, natural, expected_lse * math.log(2), factor=4)

    def test_more_page_indptr_than_requests(self):
        batch = LatentBatch([(1, 9), (2, 5)])
        wrapper = fi.BatchMLAPagedAttentionWrapper(None)
        expected = batch.expected()[0]
        batch.kv_indptr = np.concatenate([batch.kv_indptr, [9, 9]]).astype(np.int32)
        batch.plan(wrapper)
        close(self, wrapper.run(batch.q_nope, batch.q_pe, batch.ckv, batch.kpe), expected, factor=4)

    def test_without_a_rotated_part(self):
        batch = LatentBatch([(1, 9), (2, 5)])
        wrapper = fi.BatchMLAPagedAttentionWrapper(None)
        wrapper.plan(
            batch.qo_indptr, batch.kv_indptr, batch.indices, batch.kv_len, batch.heads, 512, 0, batch.page_size, True,
            1 / math.sqrt(192), "float32", "float32")
        out, lse = wrapper.run(
            batch.q_nope, batch.q_pe[..., :0], batch.ckv, batch.kpe[..., :0], return_lse=True, return_lse_base_on_e=True, ckv_scale=0.5)
        batch.q_pe = np.zeros_like(batch.q_pe)
        batch.kpe = np.zeros_like(batch.kpe)
        expected, expected_lse = batch.expected(ckv_scale=0.5)
        close(self, out, expected, factor=4)
        close(self, lse, expected_lse * math.log(2), factor=4)

    def test_scales_and_slices(self):
        batch = LatentBatch([(2, 21)])
        wrapper = fi.BatchMLAPagedAttentionWrapper(None)
        batch.plan(wrapper)
        both = np.concatenate([batch.ckv, batch.kpe], -1)
        out = wrapper.run(
            batch.q_nope, batch.q_pe, both[..., :512], both[..., 512:], ckv_scale=0.5, kpe_scale=2.0)
        close(self, out, batch.expected(ckv_scale=0.5, kpe_scale=2.0)[0], factor=4)

    @needs_ml_dtypes
    def test_float8_cache(self):
        batch = LatentBatch([(1, 40), (2, 17)])
        e4m3 = ml_dtypes.float8_e4m3fn
        ckv, kpe = batch.ckv.astype(e4m3), batch.kpe.astype(e4m3)
        wrapper = fi.BatchMLAPagedAttentionWrapper(None)
        batch.plan(wrapper, kv="float8_e4m3fn")
        out = wrapper.run(batch.q_nope, batch.q_pe, ckv, kpe, ckv_scale=0.25, kpe_scale=0.25)
        close(self, out, batch.expected(ckv_scale=0.25, kpe_scale=0.25, ckv=ckv, kpe=kpe)[0], factor=4)

    def test_errors(self):
        batch = LatentBatch([(1, 5)])
        wrapper = fi.BatchMLAPagedAttentionWrapper(None)
        with self.assertRaisesRegex(ValueError, "before plan"):
            wrapper.run(batch.q_nope, batch.q_pe, batch.ckv, batch.kpe)
        batch.kv_len[0] = 100
        with self.assertRaisesRegex(ValueError, "request 0: kv length is 100"):
            batch.plan(wrapper)
        batch.kv_len[0] = 5
        batch.plan(wrapper)
        with self.assertRaisesRegex(ValueError, "rope queries"):
            wrapper.run(batch.q_nope, batch.q_nope, batch.ckv, batch.kpe)
        with self.assertRaisesRegex(ValueError, "ckv_cache.dtype is float16.*float32, as planned"):
            wrapper.run(batch.q_nope, batch.q_pe, batch.ckv.astype(np.float16), batch.kpe)
        with self.assertRaisesRegex(ValueError, "kpe_cache.dtype is float16.*float32, as planned"):
            wrapper.run(batch.q_nope, batch.q_pe, batch.ckv, batch.kpe.astype(np.float16))
        with self.assertRaisesRegex(ValueError, "q_pe.dtype is float16.*float32, as planned"):
            wrapper.run(batch.q_nope, batch.q_pe.astype(np.float16), batch.ckv, batch.kpe)
        with self.assertRaisesRegex(NotImplementedError, "page_table"):
            wrapper.run(batch.q_nope, batch.q_pe, batch.ckv, batch.kpe, page_table=batch.indices)


if __name__ == "__main__":
    unittest.main()
