"""Variants: tracing, which needs no library, and runs of them against the definitions."""

import json
import unittest

import numpy as np
import reference as ref
from support import Pages, close, needs_torch, random, torch

import flashinfer_swift as fi
from flashinfer_swift import variants as fv


class VariantTests(unittest.TestCase):
    def test_score_and_mask(self):
        slopes = fv.Parameter("slopes")
        documents = fv.Parameter("documents", "int", "perPosition")
        variant = fv.trace(
            lambda score, b, h, q, k: score + slopes[h] * (k - q),
            lambda b, h, q, k: (k <= q) & (documents[q] == documents[k]), name="docs", scale=0.5)
        self.assertEqual(json.loads(variant.json), {
            "name": "docs",
            "mask": ["and", ["le", "keyPosition", "queryPosition"],
                     ["eq", ["load", "documents", "queryPosition"], ["load", "documents", "keyPosition"]]],
            "logits": ["add", "score", ["mul", ["load", "slopes", "head"],
                                        ["float", ["sub", "keyPosition", "queryPosition"]]]],
            "scale": 0.5,
            "parameters": {"documents": ["int", "perPosition"], "slopes": ["float", "perHead"]},
        })

    def test_numbers_have_types(self):
        variant = fv.trace(lambda score, b, h, q, k: 50 * fv.tanh(score / 50))
        self.assertEqual(json.loads(variant.json)["logits"], ["mul", 50.0, ["tanh", ["div", "score", 50.0]]])
        self.assertIn("50.0", variant.json)
        hidden = fv.trace(lambda score, b, h, q, k: fv.where(k > q, float("-inf"), score))
        self.assertEqual(json.loads(hidden.json)["logits"], ["select", ["lt", "queryPosition", "keyPosition"], "-inf", "score"])

    def test_mistakes(self):
        with self.assertRaises(TypeError):
            fv.trace(mask_mod=lambda b, h, q, k: k <= q and k > 0)
        with self.assertRaises(TypeError):
            fv.trace(mask_mod=lambda b, h, q, k: k - q)
        with self.assertRaises(TypeError):
            fv.trace(mask_mod=lambda b, h, q, k: object() == q)
        with self.assertRaises(ValueError):
            fv.trace(lambda score, b, h, q, k: score + float("nan"))
        with self.assertRaises(IndexError):
            fv.Parameter("bias", "float", "perHeadTable", 8)[fv._site("head")]
        with self.assertRaises(ValueError):
            a, b = fv.Parameter("x"), fv.Parameter("x", "int")
            fv.trace(lambda score, batch, h, q, k: score + a[h] + b[h])


class RunTests(unittest.TestCase):
    LENGTHS = [(1, 30), (9, 41), (20, 20)]

    def setUp(self):
        self.rows = np.cumsum([0, *(rows for rows, _ in self.LENGTHS)]).astype(np.int32)
        self.keys = np.cumsum([0, *(keys for _, keys in self.LENGTHS)]).astype(np.int32)
        self.documents = np.stack([np.arange(41) // (7 + request) for request in range(3)]).astype(np.int32)
        ids = fv.Parameter("documents", "int", "perPosition")
        self.packed = fv.trace(mask_mod=lambda b, h, q, k: (k <= q) & (ids[q] == ids[k]), name="packed")

    def mask(self, request):
        """What the packed documents show."""
        rows, keys = self.LENGTHS[request]
        q, k = np.arange(rows)[:, None] + keys - rows, np.arange(keys)[None]
        return (k <= q) & (self.documents[request][q] == self.documents[request][k])

    def check(self, out, q, keys, values, lse=None, **given):
        for request in range(3):
            own = slice(self.rows[request], self.rows[request + 1])
            expected, expected_lse = ref.attention(
                q[own], keys[request], values[request], mask=self.mask(request), **given)
            close(self, out[own], expected)
            if lse is not None:
                close(self, lse[own], expected_lse)

    def test_paged_prefill(self):
        pages = Pages([keys for _, keys in self.LENGTHS], 5, 2, 64)
        q = random((30, 4, 64), seed=7)
        wrapper = fi.BatchPrefillWithPagedKVCacheWrapper(None, "NHD", jit_args=self.packed)
        wrapper.plan(self.rows, pages.indptr, pages.indices, pages.last, 4, 2, 64, 5, q_data_type="float32")
        out, lse = wrapper.run(q, pages.cache, self.documents, return_lse=True)
        self.check(out, q, pages.keys, pages.values, lse)
        self.check(wrapper.run(q, pages.cache, parameters={"documents": self.documents}), q, pages.keys, pages.values)
        with self.assertRaisesRegex(fi.InvalidArgumentError, "documents"):
            wrapper.run(q, pages.cache)
        with self.assertRaisesRegex(fi.InvalidArgumentError, "2 tensors"):
            wrapper.run(q, pages.cache, self.documents, self.documents)
        with self.assertRaisesRegex(fi.InvalidArgumentError, "int32"):
            wrapper.run(q, pages.cache, self.documents.astype(np.float32))
        with self.assertRaisesRegex(fi.InvalidArgumentError, "causal"):
            wrapper.plan(self.rows, pages.indptr, pages.indices, pages.last, 4, 2, 64, 5, causal=True, q_data_type="float32")

    def test_ragged_prefill(self):
        q, k, v = random((30, 4, 64), seed=1), random((91, 2, 64), seed=2), random((91, 2, 64), seed=3)
        keys, values = ([x[self.keys[i]:self.keys[i + 1]] for i in range(3)] for x in (k, v))
        ids, gains = fv.Parameter("documents", "int", "perPosition"), fv.Parameter("gains")
        variant = fv.trace(
            mask_mod=lambda b, h, q, k: (k <= q) & (ids[q] == ids[k]), sink="perHead", output_mod=lambda o, b, h, q: o * gains[h])
        self.assertEqual(variant.parameters, ("documents", "gains"))
        wrapper = fi.BatchPrefillWithRaggedKVCacheWrapper(None, "NHD", jit_args=variant)
        wrapper.plan(self.rows, self.keys, 4, 2, 64, q_data_type="float32")
        gains, sinks = np.array([1, -2, 0.5, 3], np.float32), random((4,), seed=5)
        out = wrapper.run(q, k, v, self.documents, gains, sinks)
        self.check(out / gains[None, :, None], q, keys, values, sinks=sinks)
        out = wrapper.run(q, k, v, parameters={"gains": gains, "documents": self.documents}, sinks=sinks)
        self.check(out / gains[None, :, None], q, keys, values, sinks=sinks)
        with self.assertRaisesRegex(fi.InvalidArgumentError, "sinks"):
            wrapper.run(q, k, v, self.documents, gains)

    def test_decode(self):
        pages = Pages([keys for _, keys in self.LENGTHS], 5, 2, 64)
        q = random((3, 4, 64), seed=7)
        variant = fv.trace(lambda score, b, h, q, k: fv.tanh(score) * 3 - 0.1 * (q - k), lambda b, h, q, k: q - k < 11)
        wrapper = fi.BatchDecodeWithPagedKVCacheWrapper(None, "NHD", jit_args=variant)
        wrapper.plan(pages.indptr, pages.indices, pages.last, 4, 2, 64, 5, q_data_type="float32")
        out = wrapper.run(q, pages.cache)
        for request, (_, length) in enumerate(self.LENGTHS):
            k, v = pages.keys[request], pages.values[request]
            for head in range(4):
                distance = length - 1 - np.arange(length)
                score = np.tanh(k[:, head // 2] @ q[request, head] / 8) * 3 - 0.1 * distance
                weights = np.where(distance < 11, np.exp(score), 0)
                close(self, out[request, head], weights / weights.sum() @ v[:, head // 2], factor=3)

    def test_single(self):
        q, k, v = random((9, 4, 64)), random((21, 2, 64), seed=1), random((21, 2, 64), seed=2)
        # A name of any characters: JSON has those past U+FFFF as two escapes.
        sigmoid = fv.trace(
            mask_mod=lambda b, h, q, k: k <= q, weight_mod=lambda logit, b, h, q, k: fv.sigmoid(logit - 1), name="sigmoïde 🦙")
        out = fi.single_prefill_with_kv_cache_with_jit_module(sigmoid, q, k, v)
        seen = np.arange(21)[None] <= np.arange(9)[:, None] + 12
        for head in range(4):
            score = q[:, head] @ k[:, head // 2].T / 8
            close(self, out[:, head], np.where(seen, 1 / (1 + np.exp(1 - score)), 0) @ v[:, head // 2], factor=3)
        with self.assertRaisesRegex(fi.InvalidArgumentError, "logSumExp"):
            fi.single_prefill_with_kv_cache_with_jit_module(sigmoid, q, k, v, return_lse=True)
        with self.assertRaisesRegex(fi.InvalidArgumentError, "causal"):
            fi.single_prefill_with_kv_cache_with_jit_module(sigmoid, q, k, v, mask_mode=1)
        scales = fv.Parameter("scales", "float", "table", 21)
        scaled = fv.trace(query_scale=lambda b, h, q: 0.5, key_scale=lambda b, h, k: scales[k])
        table = random((21,), seed=4)
        out, lse = fi.single_decode_with_kv_cache_with_jit_module(scaled, q[0], k, v, table, return_lse=True)
        expected, expected_lse = ref.attention(q[:1], k * 0.5 * table[:, None, None], v)
        close(self, out, expected[0], factor=3)
        close(self, lse, expected_lse[0], factor=3)
        with self.assertRaises(NotImplementedError):
            fi.single_decode_with_kv_cache_with_jit_module("struct Mine {};", q[0], k, v)

    def test_masks_of_the_run(self):
        q, k, v = random((30, 4, 64), seed=1), random((91, 2, 64), seed=2), random((91, 2, 64), seed=3)
        keys, values = ([x[self.keys[i]:self.keys[i + 1]] for i in range(3)] for x in (k, v))
        wrapper = fi.BatchPrefillWithRaggedKVCacheWrapper(
            None, "NHD", jit_args=fv.Variant("marked", mask=fv.mask_bytes, scale=0.125))
        mask = np.concatenate([self.mask(request).reshape(-1) for request in range(3)])
        wrapper.plan(self.rows, self.keys, 4, 2, 64, custom_mask=mask, q_data_type="float32")
        self.check(wrapper.run(q, k, v), q, keys, values)
        plain = fi.BatchPrefillWithRaggedKVCacheWrapper(None, "NHD", jit_args=self.packed)
        with self.assertRaisesRegex(fi.InvalidArgumentError, "custom mask"):
            plain.plan(self.rows, self.keys, 4, 2, 64, custom_mask=mask, q_data_type="float32")

    @needs_torch
    def test_tensors(self):
        pages = Pages([keys for _, keys in self.LENGTHS], 5, 2, 64)
        q = random((30, 4, 64), seed=7)
        wrapper = fi.BatchPrefillWithPagedKVCacheWrapper(torch.empty(1), "NHD", jit_args=self.packed)
        arrays = [torch.from_numpy(x) for x in (self.rows, pages.indptr, pages.indices, pages.last)]
        wrapper.plan(*arrays, 4, 2, 64, 5, q_data_type=torch.float32)
        out = wrapper.run(torch.from_numpy(q), torch.from_numpy(pages.cache), torch.from_numpy(self.documents))
        self.check(out.numpy(), q, pages.keys, pages.values)

    def test_hooks_in_json(self):
        variant = fv.trace(
            weight_mod=lambda logit, b, h, q, k: fv.sigmoid(logit), output_mod=lambda o, b, h, q: o * 2,
            query_scale=lambda b, h, q: fv.log(q + 2), sink=None)
        self.assertEqual(json.loads(variant.json), {
            "name": "variant", "query": ["log", ["float", ["add", "queryPosition", 2]]], "weights": ["sigmoid", "score"],
            "output": ["mul", "score", 2.0]})
        with self.assertRaises(ValueError):
            fv.trace(sink="perToken")
        gate = fv.Parameter("gate", "float", "perPosition")
        variant = fv.trace(
            value_mod=lambda v, b, h, k: v * gate[k], sink=lambda b, h, q: 0.5 * h,
            lse_mod=lambda lse, b, h, q: fv.maximum(lse, 0))
        self.assertEqual(json.loads(variant.json), {
            "name": "variant", "value": ["mul", "score", ["load", "gate", "keyPosition"]],
            "sink": ["mul", 0.5, ["float", "head"]], "normalizer": ["max", "score", 0.0],
            "parameters": {"gate": ["float", "perPosition"]}})
        self.assertFalse(variant.has_sinks)

    def test_values_and_state(self):
        """Gated values, a sink for each row and a floor under its sum, against their definition."""
        q, k, v = random((9, 4, 64)), random((21, 2, 64), seed=1), random((21, 2, 64), seed=2)
        gate = fv.Parameter("gate", "float", "table", 21)
        variant = fv.trace(
            mask_mod=lambda b, h, q, k: k <= q, value_mod=lambda v, b, h, k: v * gate[k],
            sink=lambda b, h, q: 0.25 * h - 1, lse_mod=lambda lse, b, h, q: fv.maximum(lse, 3))
        gates = random((21,), seed=4)
        out = fi.single_prefill_with_kv_cache_with_jit_module(variant, q, k, v, gates)
        seen = np.arange(21)[None] <= np.arange(9)[:, None] + 12
        for head in range(4):
            weights = np.where(seen, np.exp(q[:, head] @ k[:, head // 2].T / 8), 0)
            total = np.maximum(weights.sum(1) + np.exp(0.25 * head - 1), np.exp(3))
            close(self, out[:, head], weights @ (v[:, head // 2] * gates[:, None]) / total[:, None], factor=3)


if __name__ == "__main__":
    unittest.main()
