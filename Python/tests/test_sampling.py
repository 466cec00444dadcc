"""Sampling on NumPy arrays: frequencies, filters, seeds, rows without a distribution, and the filters alone."""

import unittest

import numpy as np
import reference as ref
from support import close, random

import flashinfer_swift as fi


def probabilities(rows, width, seed=0):
    return ref.softmax(random((rows, width), seed=seed, scale=2)).astype(np.float32)


class FrequencyTests(unittest.TestCase):
    def check(self, draw, expected, draws=40_000):
        tokens = draw(np.zeros(draws, np.int32))
        counts = np.bincount(tokens, minlength=expected.size)
        self.assertTrue((counts[expected == 0] == 0).all())
        sigma = np.sqrt(draws * expected * (1 - expected))
        self.assertLess((np.abs(counts - draws * expected) / np.maximum(sigma, 1)).max(), 5)

    def test_frequencies(self):
        p = probabilities(1, 50)
        order = np.argsort(-p[0])
        top5 = np.zeros(50)
        top5[order[:5]] = p[0][order[:5]]
        before = np.concatenate([[0], np.cumsum(p[0][order])[:-1]])
        mass = np.zeros(50)
        mass[order[before < 0.7]] = p[0][order[before < 0.7]]
        least = np.where(p[0] >= 0.2 * p[0].max(), p[0], 0)
        logits = np.log(p)
        both = np.where((top5 > 0) & (mass > 0), p[0], 0)
        for name, draw, kept in (
            ("probs", lambda i: fi.sampling_from_probs(p, i), p[0]), ("logits", lambda i: fi.sampling_from_logits(logits, i), p[0]),
            ("top_k", lambda i: fi.top_k_sampling_from_probs(p, 5, i), top5), ("top_p", lambda i: fi.top_p_sampling_from_probs(p, 0.7, i), mass),
            ("min_p", lambda i: fi.min_p_sampling_from_probs(p, 0.2, i), least),
            ("joint", lambda i: fi.top_k_top_p_sampling_from_probs(p, 5, 0.7, i, filter_apply_order="joint"), both),
        ):
            with self.subTest(name):
                self.check(draw, kept / kept.sum())

    def test_rows_are_independent(self):
        p = np.full((4000, 10), 0.1, np.float32)
        counts = np.bincount(fi.sampling_from_probs(p, seed=3, offset=4), minlength=10)
        self.assertLess(np.abs(counts - 400).max(), 5 * np.sqrt(400))


class SamplingTests(unittest.TestCase):
    def test_seeds(self):
        p = probabilities(64, 1000)
        one = fi.sampling_from_probs(p, seed=5, offset=0)
        np.testing.assert_array_equal(one, fi.sampling_from_probs(p, seed=5, offset=0))
        self.assertTrue((one != fi.sampling_from_probs(p, seed=6, offset=0)).any())
        self.assertTrue((one != fi.sampling_from_probs(p, seed=5, offset=1)).any())
        # A seed of its own for each row: a draw does not depend on the row's place.
        seeds, offsets = np.arange(64), np.zeros(64, np.int64)
        rows = fi.sampling_from_probs(p, seed=seeds, offset=offsets)
        np.testing.assert_array_equal(rows[::-1], fi.sampling_from_probs(p[::-1], seed=seeds[::-1].copy(), offset=offsets))
        fi.sampling.seed(1)
        first = fi.sampling_from_probs(p)
        self.assertTrue((first != fi.sampling_from_probs(p)).any())
        fi.sampling.seed(1)
        np.testing.assert_array_equal(first, fi.sampling_from_probs(p))
        generator = np.random.default_rng(1)
        one = fi.sampling_from_logits(np.log(p), generator=generator)
        np.testing.assert_array_equal(one, fi.sampling_from_logits(np.log(p), generator=np.random.default_rng(1)))
        for wrong in (dict(seed=1, offset=offsets), dict(seed=seeds.astype(np.int32), offset=offsets), dict(seed=seeds[:5], offset=offsets)):
            with self.assertRaises(ValueError):
                fi.sampling_from_probs(p, **wrong)

    def test_logits_and_probabilities_agree(self):
        logits = random((32, 500))
        p = ref.softmax(logits).astype(np.float32)
        for order in ("top_k_first", "joint"):
            a = fi.top_k_top_p_sampling_from_logits(logits, 20, 0.8, filter_apply_order=order, seed=1, offset=2)
            b = fi.top_k_top_p_sampling_from_probs(p, 20, 0.8, filter_apply_order=order, seed=1, offset=2)
            np.testing.assert_array_equal(a, b)
        with self.assertRaises(ValueError):
            fi.top_k_top_p_sampling_from_logits(logits, 20, 0.8, filter_apply_order="first")

    def test_parameters_for_each_row(self):
        p = probabilities(30, 100)
        k = np.arange(1, 31)
        tokens = fi.top_k_sampling_from_probs(p, k)
        for row in range(30):
            self.assertGreaterEqual(p[row, tokens[row]], np.sort(p[row])[-k[row]])
        greedy = fi.top_p_sampling_from_probs(p, np.full(30, 1e-6, np.float32))
        np.testing.assert_array_equal(greedy, p.argmax(-1))
        np.testing.assert_array_equal(fi.min_p_sampling_from_probs(p, 1.0), p.argmax(-1))
        # A row that has more in the table of distributions takes its own parameter.
        indices = np.array([3, 3, 7], np.int64)
        tokens = fi.top_k_sampling_from_probs(p, np.ones(30, np.int64), indices)
        self.assertEqual(tokens.dtype, np.int64)
        np.testing.assert_array_equal(tokens, p.argmax(-1)[indices])

    def test_rows_without_a_distribution(self):
        p = probabilities(4, 20)
        p[1], p[2] = np.nan, 0
        tokens, valid = fi.sampling_from_probs(p, return_valid=True)
        np.testing.assert_array_equal(valid, [True, False, False, True])
        np.testing.assert_array_equal(tokens[1:3], 0)
        np.testing.assert_array_equal(fi.sampling_from_probs(p)[1:3], -1)
        with self.assertRaisesRegex(ValueError, "NaN"):
            fi.sampling_from_probs(p, check_nan=True)
        p[1], p[2] = -1, np.inf
        np.testing.assert_array_equal(fi.sampling_from_probs(p, return_valid=True)[1], [True, False, False, True])

    def test_rows_need_not_sum_to_one(self):
        p = probabilities(64, 1000)
        for call in (fi.sampling_from_probs, lambda p, **seeds: fi.top_k_top_p_sampling_from_probs(p, 50, 0.7, **seeds)):
            # A power of two changes no digit, so neither does it a draw.
            np.testing.assert_array_equal(call(p, seed=5, offset=0), call(p * np.float32(0.25), seed=5, offset=0))

    def test_a_share_of_nothing_is_the_likeliest(self):
        p = probabilities(4, 20)
        np.testing.assert_array_equal(fi.top_p_sampling_from_probs(p, 0.0), p.argmax(-1))
        np.testing.assert_array_equal(fi.top_p_renorm_probs(p, 0.0), (p == p.max(-1, keepdims=True)).astype(np.float32))

    def test_wrong_parameters(self):
        p = probabilities(4, 20)
        for call in (
            lambda: fi.top_p_sampling_from_probs(p, -0.1), lambda: fi.top_p_sampling_from_probs(p, 1.5),
            lambda: fi.top_k_sampling_from_probs(p, 0), lambda: fi.min_p_sampling_from_probs(p, -0.5),
            lambda: fi.top_p_sampling_from_probs(p, np.full(3, 0.5, np.float32)), lambda: fi.sampling_from_probs(p[0]),
            lambda: fi.top_p_sampling_from_probs(p, np.full((4, 1), 0.5, np.float32)),
        ):
            with self.assertRaises(ValueError):
                call()


class FilterTests(unittest.TestCase):
    def test_softmax(self):
        x = random((9, 300), scale=3)
        x[0, 5] = -np.inf
        close(self, fi.softmax(x), ref.softmax(x))
        close(self, fi.softmax(x, 0.7), ref.softmax(x, np.full(9, 0.7)), factor=3)
        t = np.linspace(0.5, 2, 9).astype(np.float32)
        close(self, fi.softmax(x, t), ref.softmax(x, t), factor=3)
        self.assertEqual(fi.softmax(x.astype(np.float16)).dtype, np.float32)
        with self.assertRaises(ValueError):
            fi.softmax(x, 0.0)

    def test_renormalise_and_mask(self):
        p = probabilities(9, 50)
        ordered = -np.sort(-p, -1)
        for k in (1, 7, 50, np.arange(1, 10)):
            column = np.broadcast_to(k, 9)
            keep = p >= ordered[np.arange(9), column - 1][:, None]
            close(self, fi.top_k_renorm_probs(p, k), p * keep / (p * keep).sum(-1, keepdims=True))
            np.testing.assert_array_equal(fi.top_k_mask_logits(p, k), np.where(keep, p, -np.inf))
        for mass in (0.1, 0.9, np.linspace(0.1, 0.9, 9).astype(np.float32)):
            column = np.broadcast_to(mass, 9)[:, None]
            before = np.cumsum(ordered, -1) - ordered
            least = np.where(before < column, ordered, np.inf).min(-1)[:, None]
            keep = p >= least
            close(self, fi.top_p_renorm_probs(p, mass), p * keep / (p * keep).sum(-1, keepdims=True))


class PipeTests(unittest.TestCase):
    def test_fused_equals_step_by_step(self):
        from flashinfer_swift.logits_processor import LogitsPipe, MinP, Sample, Softmax, Temperature, TensorType, TopK, TopP

        logits = random((20, 60), scale=2)
        seeds = dict(seed=3, offset=1)
        for steps, parameters, kind in (
            ([Temperature(), Softmax()], dict(temperature=0.5), None), ([Softmax(), TopP(), Sample()], dict(top_p=0.6), None),
            ([Softmax(), MinP(), Sample()], dict(min_p=0.3), None), ([TopK(), Softmax(), Sample()], dict(top_k=5), TensorType.LOGITS),
            ([Softmax(), TopK(), Sample()], dict(top_k=5), None), ([Sample()], {}, TensorType.LOGITS),
        ):
            results = [LogitsPipe(steps, compile=fuse, input_type=kind)(logits, **parameters, **seeds) for fuse in (True, False)]
            if results[0].dtype == np.float32:
                close(self, results[0], results[1], factor=3)
            else:
                # The filters alone round the probabilities once more, which may move a draw.
                self.assertGreater((results[0] == results[1]).mean(), 0.9)
        joint = LogitsPipe([Softmax(), TopK(joint_topk_topp=True), TopP(), Sample()])
        np.testing.assert_array_equal(
            joint(logits, top_k=9, top_p=0.5, **seeds),
            fi.top_k_top_p_sampling_from_probs(fi.softmax(logits), 9, 0.5, filter_apply_order="joint", **seeds))
        for wrong in (
            lambda: LogitsPipe([]), lambda: LogitsPipe([Sample()]), lambda: LogitsPipe([Softmax(), Temperature()]),
            lambda: LogitsPipe([Softmax(), Sample(), TopP()]), lambda: LogitsPipe([Softmax(), Softmax()]),
            lambda: joint(logits, top_k=9), lambda: joint(logits, top_k=-1, top_p=0.5),
        ):
            with self.assertRaises(ValueError):
                wrong()


class LogitsTests(unittest.TestCase):
    def test_penalties_biases_and_masks(self):
        logits = random((3, 40), scale=2)
        allowed = np.random.default_rng(5).random((3, 40)) < 0.8
        mask = np.zeros((3, 2), np.uint32)
        for row, token in np.argwhere(allowed):
            mask[row, token // 32] |= np.uint32(1 << (token % 32))
        prompt, output = [[1, 2, 2, 99], None, [7]], [np.array([2, 5, 5, 5]), [], [39, -1]]
        bias = [{3: 1.5, 2: -0.25, 77: 9.0}, None, {}]
        repetition, presence, frequency = [1.5, 1.0, 2.0], 0.5, np.array([0.25, 0.0, 0.125], np.float32)
        expected = logits.copy()
        for row in range(3):
            for token, value in (bias[row] or {}).items():
                if token < 40:
                    expected[row, token] += value
            drawn = [token for token in (output[row] if output[row] is not None else []) if 0 <= token < 40]
            for token in {token for token in prompt[row] or [] if token < 40} | set(drawn):
                x = expected[row, token]
                expected[row, token] = x / repetition[row] if x > 0 else x * repetition[row]
            for token in set(drawn):
                expected[row, token] -= frequency[row] * drawn.count(token) + presence
        expected[~allowed] = -np.inf
        self.assertIsNone(fi.adjust_logits(logits, repetition, presence, frequency, prompt, output, bias, mask.view(np.int32)))
        close(self, logits, expected)
        before = logits.copy()
        fi.adjust_logits(logits)
        np.testing.assert_array_equal(logits, before)
        readonly = logits.copy()
        readonly.flags.writeable = False
        for message, call in (
            ("repetition", lambda: fi.adjust_logits(logits, 0.0)), ("3 rows", lambda: fi.adjust_logits(logits, [1.0, 2.0])),
            ("output_tokens has 1", lambda: fi.adjust_logits(logits, output_tokens=[[1]])), ("read-only", lambda: fi.adjust_logits(readonly)),
            ("mask", lambda: fi.adjust_logits(logits, mask=np.zeros((3, 1), np.int32))),
            ("rows, vocabulary", lambda: fi.adjust_logits(logits[0])),
        ):
            with self.assertRaisesRegex(ValueError, message):
                call()

    def test_log_probabilities(self):
        logits = random((6, 500), scale=3)
        ids = np.arange(6) * 80
        for temperature in (None, 0.5, np.linspace(0.5, 2, 6).astype(np.float32)):
            exact = logits / (1 if temperature is None else np.float64(temperature).reshape(-1, 1))
            exact = exact.astype(np.float64)
            exact -= np.log(np.exp(exact - exact.max(-1, keepdims=True)).sum(-1, keepdims=True)) + exact.max(-1, keepdims=True)
            close(self, fi.log_probs(logits, ids, temperature), exact[np.arange(6), ids])
            if temperature is None or isinstance(temperature, float):
                values, tokens = fi.top_log_probs(logits, 5, temperature or 1.0)
                order = np.argsort(-exact, -1)[:, :5]
                np.testing.assert_array_equal(tokens, order)
                close(self, values, np.take_along_axis(exact, order, -1))
        logits[2, 3] = np.nan
        values, tokens = fi.top_log_probs(logits, 2)
        self.assertTrue(np.isnan(values[2]).all() and (tokens[2] == -1).all() and not np.isnan(values[1]).any())
        self.assertTrue(np.isnan(fi.log_probs(logits, ids)[2]))
        with self.assertRaisesRegex(ValueError, "k is 0"):
            fi.top_log_probs(logits, 0)
        with self.assertRaisesRegex(ValueError, r"ids\[0\]"):
            fi.log_probs(logits, ids + 500)


class PackedTests(unittest.TestCase):
    """Parameters in the device's memory are those that the other calls copy."""

    def test_draws_and_filters(self):
        packed = fi.packed_sampling
        p = probabilities(20, 300)
        k = np.arange(1, 21)
        for order in ("top_k_first", "joint"):
            given = packed.parameters(p, top_k=k, top_p=0.8, seed=5, step=2)
            self.assertEqual((given.dtype, given.shape), (np.dtype(np.uint8), (20, 32)))
            status = np.full(20, 9, np.uint8)
            tokens = packed.sample(p, given, "probs", order, status=status)
            expected = fi.top_k_top_p_sampling_from_probs(p, k, 0.8, filter_apply_order=order, seed=5, offset=2)
            np.testing.assert_array_equal(tokens, expected)
            self.assertFalse(status.any())
            out = np.empty(20, np.int32)
            packed.update(given, top_k=k, top_p=0.8, seed=np.arange(20), step=[3] * 20)
            self.assertIs(packed.sample(np.log(p), given, filter_apply_order=order, out=out), out)
            expected = fi.top_k_top_p_sampling_from_logits(
                np.log(p), k, 0.8, filter_apply_order=order, seed=np.arange(20), offset=np.full(20, 3))
            np.testing.assert_array_equal(out, expected)
        close(self, packed.filter(p, packed.parameters(p, top_k=k), "probs"), fi.top_k_renorm_probs(p, k))
        logits = np.log(p)
        np.testing.assert_array_equal(packed.filter(logits, packed.parameters(p, top_k=k)), fi.top_k_mask_logits(logits, k))
        np.testing.assert_array_equal(packed.sample(logits, packed.parameters(p, temperature=0)), p.argmax(-1))
        for call in (
            lambda: packed.parameters(p, top_p=-0.1), lambda: packed.parameters(p, temperature=-1.0),
            lambda: packed.parameters(p, top_k=k[:3]), lambda: packed.sample(p, given, "odds"),
            lambda: packed.sample(p, given[:4], "probs"), lambda: packed.sample(p, given, filter_apply_order="first"),
        ):
            with self.assertRaises(ValueError):
                call()

    def test_drafts(self):
        packed = fi.packed_sampling
        draft, target = probabilities(40 * 3, 30).reshape(40, 3, 30), probabilities(40 * 4, 30, 1).reshape(40, 4, 30)
        ids = np.random.default_rng(2).integers(0, 30, (40, 3)).astype(np.int32)
        expected = fi.chain_speculative_sampling(draft, ids, target, seed=4, offset=6)
        tokens, _, accepted, emitted = packed.verify_drafts(target, ids, packed.draws(target, 4, 6), draft)
        for found, wanted in zip((tokens, accepted, emitted), expected):
            np.testing.assert_array_equal(found, wanted)


class SpeculativeTests(unittest.TestCase):
    def test_one_hot_chain(self):
        eye = np.eye(6, dtype=np.float32)
        draft, target = eye[[[1, 2], [1, 2], [1, 2]]], eye[[[1, 2, 3], [1, 4, 3], [5, 2, 3]]]
        ids = np.array([[1, 2]] * 3, np.int32)
        accepted, emitted = np.ones(3, np.int32), np.zeros(3, np.int32)
        tokens, accepted_out, emitted_out = fi.chain_speculative_sampling(draft, ids, target, accepted, emitted)
        np.testing.assert_array_equal(tokens, [[1, 2, 3], [1, 4, -1], [5, -1, -1]])
        self.assertIs(accepted_out, accepted)
        np.testing.assert_array_equal(accepted, [3, 2, 2])  # added to what was there; counted as if each were alone
        np.testing.assert_array_equal(emitted_out, [2, 1, 0])

    def test_a_tree_has_the_target_distribution(self):
        rows = 20_000
        target = np.broadcast_to(probabilities(3, 8, 1)[None], (rows, 3, 8))
        links = [np.broadcast_to(np.array(link, np.int32), (rows, 3)) for link in ([0, 2, 5], [1, -1, -1], [-1, 2, -1])]
        tokens, nodes, emitted = fi.sampling.tree_speculative_sampling(target, *links, seed=1, offset=1)
        for found, expected in ((tokens[:, 0], target[0, 0]), (tokens[nodes[:, 0] == 2, 1], target[0, 2])):
            counts = np.bincount(found, minlength=8)
            sigma = np.sqrt(found.size * expected * (1 - expected))
            self.assertLess((np.abs(counts - found.size * expected) / sigma).max(), 5)
        np.testing.assert_array_equal((nodes >= 0).sum(-1), emitted)

    def test_the_result_has_the_target_distribution(self):
        rows = 20_000
        draft, target = probabilities(1, 8), probabilities(2, 8, 1)
        drafted = fi.sampling_from_probs(draft, np.zeros(rows, np.int32), seed=9, offset=9)
        tokens, _, _ = fi.chain_speculative_sampling(
            np.broadcast_to(draft[:, None], (rows, 1, 8)), drafted[:, None], np.broadcast_to(target[None], (rows, 2, 8)), seed=1,
            offset=1)
        counts = np.bincount(tokens[:, 0], minlength=8)
        sigma = np.sqrt(rows * target[0] * (1 - target[0]))
        self.assertLess((np.abs(counts - rows * target[0]) / sigma).max(), 5)


if __name__ == "__main__":
    unittest.main()
