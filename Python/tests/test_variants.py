"""Tracing of variants; needs no library."""

import json
import unittest

import support  # noqa: F401  (puts the package on the path)

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


if __name__ == "__main__":
    unittest.main()
