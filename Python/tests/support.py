"""What the test modules share: the library's place, random inputs, page tables, tolerances."""

from __future__ import annotations

import pathlib
import sys
import unittest

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).parent))
try:
    import flashinfer_swift  # noqa: F401  (installed, or on the path already)
except ImportError:
    sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

try:
    import torch
except ImportError:
    torch = None

try:
    import ml_dtypes
except ImportError:
    ml_dtypes = None

needs_torch = unittest.skipIf(torch is None, "torch is not installed")
needs_ml_dtypes = unittest.skipIf(ml_dtypes is None, "ml_dtypes is not installed: NumPy has no bfloat16 and float8 of its own")
needs_cuda = unittest.skipIf(torch is None or not torch.cuda.is_available(), "there is no torch with a CUDA GPU")


def random(shape, dtype=np.float32, seed=0, scale=1.0):
    return (np.random.default_rng(seed).standard_normal(shape) * scale).astype(dtype)


#: Relative to the magnitude of outputs near 1: twice the rounding of the type, and of the sum before it.
TOLERANCE = {"float32": 2e-5, "float16": 2e-3, "bfloat16": 1.6e-2}


def close(test, found, expected, dtype="float32", factor=1.0):
    found = np.asarray(found, dtype=np.float64) if not hasattr(found, "numpy") else found.double().cpu().numpy()
    expected = np.asarray(expected, np.float64)
    test.assertEqual(found.shape, expected.shape)
    test.assertTrue(np.array_equal(np.isinf(found), np.isinf(expected)), "infinities differ")
    test.assertFalse(np.isnan(found).any(), "there is a NaN")
    finite = np.isfinite(expected)
    tolerance = TOLERANCE[dtype] * factor
    error = np.abs(found[finite] - expected[finite]) / np.maximum(np.abs(expected[finite]), 1)
    if error.size:
        test.assertLess(error.max(), tolerance)


class Pages:
    """A paged cache with poison: pages that are not in the table, and rows past a request's end, are NaN."""

    def __init__(self, lengths, page_size, kv_heads, dim, layout="NHD", dtype=np.float32, seed=1, spare=3, dim_vo=None):
        rng = np.random.default_rng(seed)
        self.lengths, self.page_size, self.layout = list(lengths), page_size, layout
        counts = [-(-length // page_size) for length in lengths]
        total = sum(counts)
        order = rng.permutation(total + spare)[:total].astype(np.int32)
        self.indptr = np.cumsum([0, *counts]).astype(np.int32)
        self.indices = order
        self.last = np.array(
            [length - (count - 1) * page_size if count else 0 for length, count in zip(lengths, counts)], np.int32)
        inner = (page_size, kv_heads) if layout == "NHD" else (kv_heads, page_size)
        self.cache = np.full((total + spare, 2, *inner, dim), np.nan, np.float32).astype(dtype)
        self.keys, self.values = [], []
        for request, length in enumerate(lengths):
            k, v = (rng.standard_normal((length, kv_heads, dim)).astype(dtype) for _ in range(2))
            self.keys.append(k)
            self.values.append(v)
            for position in range(length):
                page = order[self.indptr[request] + position // page_size]
                row = position % page_size
                place = (page, slice(None), row) if layout == "NHD" else (page, slice(None), slice(None), row)
                self.cache[place] = np.stack([k[position], v[position]])
