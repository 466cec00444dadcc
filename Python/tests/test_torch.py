"""The same calls on torch tensors: CPU, torch.compile, and on a GPU results, streams and CUDA graphs."""

import unittest

import numpy as np
import reference as ref
from support import Pages, close, needs_cuda, needs_torch, random, torch

import flashinfer_swift as fi


def tensors(pages, device="cpu", dtype=None):
    """The tables and the cache of Pages as tensors."""
    made = [torch.from_numpy(x).to(device) for x in (pages.indptr, pages.indices, pages.last, pages.cache)]
    if dtype is not None:
        made[3] = made[3].to(dtype)
    return made


@needs_torch
class CPUTests(unittest.TestCase):
    def setUp(self):
        self.pages = Pages((5, 9, 30), 4, 2, 64)
        self.indptr, self.indices, self.last, self.cache = tensors(self.pages)

    def check(self, out, lse, q, dtype="float32"):
        for request in range(3):
            expected, expected_lse = ref.attention(
                q[request:request + 1].float().numpy(), self.pages.keys[request], self.pages.values[request])
            close(self, out[request:request + 1], expected, dtype, 2)
            close(self, lse[request:request + 1], expected_lse, dtype, 2)

    def test_decode(self):
        wrapper = fi.BatchDecodeWithPagedKVCacheWrapper(torch.empty(16, dtype=torch.uint8))
        for dtype in (torch.float32, torch.float16, torch.bfloat16):
            wrapper.plan(self.indptr, self.indices, self.last, 4, 2, 64, 4, q_data_type=dtype)
            q, cache = torch.from_numpy(random((3, 4, 64))).to(dtype), self.cache.to(dtype)
            out, lse = wrapper.run(q, cache, return_lse=True)
            self.assertEqual(out.dtype, dtype)
            name = str(dtype).removeprefix("torch.")
            self.check(out, lse, q, name)
            pair = wrapper.run(q, (cache[:, 0], cache[:, 1]))
            self.assertTrue(torch.equal(pair, out))

    def test_other_layers_and_shapes_reuse_the_wrapper(self):
        wrapper = fi.BatchDecodeWithPagedKVCacheWrapper(torch.empty(16, dtype=torch.uint8))
        wrapper.plan(self.indptr, self.indices, self.last, 4, 2, 64, 4, q_data_type=torch.float32)
        q = torch.from_numpy(random((3, 4, 64)))
        wide = torch.zeros(3, 4, 128)
        wide[..., :64] = q
        first = wrapper.run(q, self.cache)
        other = wrapper.run(q, self.cache + 1.0)
        strided = wrapper.run(wide[..., :64], self.cache)
        self.assertFalse(torch.equal(first, other))
        self.assertTrue(torch.equal(first, strided))

    def test_operations(self):
        x, w = torch.randn(5, 64, dtype=torch.bfloat16), torch.randn(64, dtype=torch.bfloat16)
        close(self, fi.rmsnorm(x, w), ref.rmsnorm(x.float().numpy(), w.float().numpy()), "bfloat16")
        close(self, fi.silu_and_mul(x), ref.activation(x.float().numpy(), "silu"), "bfloat16")
        q, k, places = torch.randn(7, 4, 64), torch.randn(7, 2, 64), torch.arange(7)
        close(self, fi.apply_rope_pos_ids(q, k, places)[0], ref.rope(q.numpy(), places.numpy()))
        p = torch.softmax(torch.randn(6, 30), -1)
        torch.manual_seed(1)
        first = fi.sampling_from_probs(p)
        second = fi.sampling_from_probs(p)
        torch.manual_seed(1)
        self.assertTrue(torch.equal(first, fi.sampling_from_probs(p)))
        self.assertTrue(torch.equal(second, fi.sampling_from_probs(p)))
        self.assertEqual(first.dtype, torch.int32)
        ones, places = fi.top_k(p, 3, sorted=True)
        self.assertTrue(torch.equal(ones, p.topk(3).values))
        tied = torch.tensor([[1.0, 3.0, 3.0, 0.0, 3.0]])
        self.assertEqual(fi.top_k(tied, 2, tie_break=fi.TopKTieBreak.SMALL)[1].tolist(), [[1, 2]])
        self.assertEqual(fi.top_k(tied, 2, tie_break=fi.TopKTieBreak.LARGE)[1].tolist(), [[4, 2]])
        self.assertEqual(fi.top_k(tied, 2, deterministic=True)[1].tolist(), [[1, 2]])
        close(self, fi.top_k_renorm_probs(p, 3).sum(-1), np.ones(6))
        close(self, fi.top_p_renorm_probs(p, torch.full((6,), 0.5)).sum(-1), np.ones(6))
        self.assertEqual(int(torch.isfinite(fi.top_k_mask_logits(p, torch.full((6,), 2))).sum()), 12)
        close(self, fi.layernorm(x, torch.ones(64), torch.zeros(64)), ref.layernorm(x.float().numpy(), 1.0, 0.0), "bfloat16")
        bits = torch.rand(77) < 0.5
        self.assertEqual(fi.packbits(bits, "little").tolist(), np.packbits(bits.numpy(), bitorder="little").tolist())

    def test_small_operations(self):
        x, w = torch.randn(4, 256, dtype=torch.bfloat16), torch.randn(256)
        out = torch.empty(4, 256, dtype=torch.float8_e4m3fn)
        fi.layernorm_quant(out, x, w, w, torch.tensor([0.1]))
        close(self, out.float() * 0.1, ref.layernorm(x.float().numpy(), w.numpy(), w.numpy()), "bfloat16", 8)
        q, s = fi.per_token_group_quant_8bit(x, 128, column_major_scales=True, scale_tma_aligned=True)
        self.assertEqual((q.dtype, tuple(s.shape), s.stride()), (torch.float8_e4m3fn, (4, 2), (1, 4)))
        close(self, (q.float().reshape(4, 2, 128) * s[..., None]).reshape(4, 256), x.float(), "bfloat16", 8)
        angles = torch.arange(64)[:, None] * torch.from_numpy(ref.frequencies(64)).float()
        table = torch.cat([angles.cos(), angles.sin()], -1)
        places = torch.tensor([0, 5, 63, 7])
        q_rope, q_nope = torch.randn(4, 8, 64, dtype=torch.bfloat16), torch.randn(4, 8, 512, dtype=torch.bfloat16)
        k_rope, k_nope = torch.randn(4, 64, dtype=torch.bfloat16), torch.randn(4, 512, dtype=torch.bfloat16)
        found = fi.mla_rope_quantize_fp8(q_rope, k_rope, q_nope, k_nope, table, places)
        close(self, found[0].float(), ref.rope(q_rope.float().numpy(), places.numpy(), dim=64), "bfloat16", 8)
        close(self, found[3].float(), k_nope.float().numpy(), "bfloat16", 8)
        caches = torch.zeros(2, 4, 512, dtype=torch.float8_e4m3fn), torch.zeros(2, 4, 64, dtype=torch.float8_e4m3fn)
        ids = torch.zeros(4, dtype=torch.int32), torch.arange(4, dtype=torch.int32)
        fi.rope_quantize_fp8_append_paged_kv_cache(
            q_rope, k_rope, q_nope, k_nope, None, table, places, caches, torch.tensor([1], dtype=torch.int32),
            torch.tensor([0, 1], dtype=torch.int32), *ids, page_size=4)
        self.assertTrue(torch.equal(caches[0][1].view(torch.uint8), found[3].view(torch.uint8)))
        self.assertTrue(torch.equal(caches[1][1].view(torch.uint8), found[1].view(torch.uint8)))

    def test_logits_and_packed_parameters(self):
        for device in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
            logits = torch.randn(5, 90, dtype=torch.bfloat16, device=device)
            own, drawn = logits.clone(), [torch.tensor([3, 3, 7], device=device), [], [89], [], [1]]
            fi.adjust_logits(own, presence_penalty=1.0, frequency_penalty=torch.full((5,), 0.5), output_tokens=drawn)
            expected = logits.float()
            for row, tokens in enumerate(drawn):
                for token in set(map(int, tokens)):
                    expected[row, token] -= 1 + 0.5 * [int(one) for one in tokens].count(token)
            self.assertTrue(torch.equal(own, expected.bfloat16()))
            values, tokens = fi.top_log_probs(logits, 4)
            exact = torch.log_softmax(logits.double(), -1)
            close(self, values, exact.gather(-1, tokens.long()).cpu().numpy())
            close(self, fi.log_probs(logits, tokens[:, 2]), values[:, 2].cpu().numpy())
            given = fi.packed_sampling.parameters(logits, top_k=20, top_p=0.9, seed=3, step=torch.arange(5))
            self.assertEqual((given.dtype, given.device), (torch.uint8, logits.device))
            found = fi.packed_sampling.sample(logits, given)
            seeds = torch.tensor([3 + row * 0x9E3779B97F4A7C15 & (1 << 64) - 1 for row in range(5)], dtype=torch.uint64)
            wanted = fi.top_k_top_p_sampling_from_logits(
                logits, 20, 0.9, seed=seeds.view(torch.int64).to(device), offset=torch.arange(5, device=device))
            self.assertTrue(torch.equal(found, wanted))

    def test_dlpack_and_mixed_libraries(self):
        class Foreign:
            def __init__(self, tensor):
                self.tensor, self.shape, self.ndim = tensor, tuple(tensor.shape), tensor.ndim

            def __dlpack__(self, **options):
                return self.tensor.__dlpack__(**options)

            def __dlpack_device__(self):
                return self.tensor.__dlpack_device__()

        class OldForeign(Foreign):
            def __dlpack__(self):  # before DLPack 1.0: no versions
                return self.tensor.__dlpack__()

        x, w = torch.randn(5, 64), torch.randn(64)
        expected = fi.rmsnorm(x, w)
        for kind in (Foreign, OldForeign):
            out = fi.rmsnorm(kind(x), kind(w))
            self.assertIsInstance(out, np.ndarray)
            close(self, out, expected.numpy())
        self.assertTrue(torch.equal(fi.rmsnorm(x, w.numpy()), expected))
        target = torch.empty_like(x)
        fi.rmsnorm(Foreign(x), Foreign(w), out=target)
        self.assertTrue(torch.equal(target, expected))

    def test_memory_is_not_kept(self):
        import gc
        import weakref

        x = torch.randn(5, 64)
        gone = weakref.ref(x)
        fi.rmsnorm(x, torch.ones(64))
        fi.single_decode_with_kv_cache(torch.randn(4, 64), torch.randn(5, 4, 64), torch.randn(5, 4, 64))
        del x
        gc.collect()
        self.assertIsNone(gone())

    def test_threads(self):
        import threading

        failures = []

        def work(seed):
            q, k = torch.from_numpy(random((4, 64), seed=seed)), torch.from_numpy(random((9 + seed, 2, 64), seed=seed))
            expected = ref.attention(q[None].numpy(), k.numpy(), k.numpy())[0][0]
            for _ in range(50):
                try:
                    error = np.abs(fi.single_decode_with_kv_cache(q, k, k).numpy() - expected).max()
                except Exception as raised:
                    failures.append(raised)
                    return
                if error > 1e-4:
                    failures.append(seed)

        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(failures, [])


@needs_torch
class CompileTests(unittest.TestCase):
    """With the "aot_eager" backend: graphs are traced with fake tensors and functionalised, and no C++ compiler is needed."""

    def compiled(self, function, *arguments):
        torch._dynamo.reset()
        wanted = function(*[x.clone() if isinstance(x, torch.Tensor) else x for x in arguments])
        found = torch.compile(function, fullgraph=True, backend="aot_eager")(
            *[x.clone() if isinstance(x, torch.Tensor) else x for x in arguments])
        for a, b in zip(wanted if isinstance(wanted, tuple) else (wanted,), found if isinstance(found, tuple) else (found,)):
            self.assertTrue(torch.equal(a, b))

    def test_rows(self):
        x, w, r = torch.randn(5, 64), torch.randn(64), torch.randn(5, 64)

        def block(x, w, r):
            x = x * 2
            fi.fused_add_rmsnorm(x, r, w)
            y = fi.silu_and_mul(fi.gemma_rmsnorm(x, w))
            out = torch.empty_like(x)
            fi.rmsnorm(x, w, out=out)
            return y + 1, r, out, fi.gelu_and_mul(x), fi.gelu_tanh_and_mul(x), fi.softmax(x, 0.5), fi.softmax(x)

        self.compiled(block, x, w, r)

    def test_quantised_norms(self):
        x, w, r, scale = torch.randn(5, 64), torch.randn(64), torch.randn(5, 64), torch.tensor([0.03])

        def block(x, w, r, scale):
            x = x * 2
            r = r + 0
            out = [torch.empty(x.shape, dtype=torch.float8_e4m3fn) for _ in range(3)]
            fi.rmsnorm_quant(out[0], x, w, scale)
            fi.rmsnorm_quant(out[1], x, w, 0.5)
            fi.fused_add_rmsnorm_quant(out[2], x, r, w, scale)
            return (r, *(y.float() for y in out))

        self.compiled(block, x, w, r, scale)

    def test_layernorm_and_angles_of_a_table(self):
        x, w, scale, table = torch.randn(5, 64), torch.randn(64), torch.tensor([0.03]), torch.randn(16, 32)

        def block(x, w, scale, table, places):
            y = fi.layernorm(x * 2, w, w)
            out = torch.empty(x.shape, dtype=torch.float8_e4m3fn)
            fi.layernorm_quant(out, x, w, w, scale)
            a, b = fi.apply_rope_with_cos_sin_cache(places, x, y, 32, table)
            c, d = a + 0, b + 0
            fi.apply_rope_with_cos_sin_cache_inplace(places, c, d, 32, table, False)
            return y, out.float(), a, b, c, d

        self.compiled(block, x, w, scale, table, torch.arange(5))

    def test_rope_and_merge(self):
        q, k, places = torch.randn(7, 4, 64), torch.randn(7, 2, 64), torch.arange(7)
        indptr, offsets = torch.tensor([0, 3, 7], dtype=torch.int32), torch.tensor([5, 1], dtype=torch.int32)

        def block(q, k, places, indptr, offsets):
            a, b = fi.apply_rope_pos_ids(q, k, places, interleave=True)
            c, d = fi.apply_llama31_rope(a, b, indptr, offsets, rotary_dim=32)
            e, f = c + 0, d + 0
            fi.apply_rope_inplace(e, f, indptr, offsets)
            fi.apply_llama31_rope_pos_ids_inplace(e, f, places)
            return a, b, c, d, e, f

        self.compiled(block, q, k, places, indptr, offsets)
        v, s = torch.randn(4, 3, 2, 64), torch.randn(4, 3, 2)

        def merges(v, s):
            a, b = fi.merge_state(v[:, 0], s[:, 0], v[:, 1], s[:, 1])
            c, d = a + 0, b + 0
            fi.merge_state_in_place(c, d, v[:, 2], s[:, 2])
            return (a, b, c, d, *fi.merge_states(v, s))

        self.compiled(merges, v, s)

    def test_attention(self):
        pages = Pages((5, 9, 30), 4, 2, 64)
        indptr, indices, last, cache = tensors(pages)
        decode = fi.BatchDecodeWithPagedKVCacheWrapper(torch.empty(1))
        decode.plan(indptr, indices, last, 4, 2, 64, 4, q_data_type=torch.float32)
        prefill = fi.BatchPrefillWithPagedKVCacheWrapper(torch.empty(1))
        prefill.plan(torch.arange(4, dtype=torch.int32), indptr, indices, last, 4, 2, 64, 4, causal=True, q_data_type=torch.float32)

        def block(q, cache):
            out, lse = decode.run(q * 1, cache, return_lse=True)
            return out + 1, lse, prefill.run(q, (cache[:, 0], cache[:, 1]))

        self.compiled(block, torch.from_numpy(random((3, 4, 64))), cache)
        k = torch.randn(9, 2, 64)

        def single(q, k):
            return fi.single_decode_with_kv_cache(q[0], k, k), fi.single_prefill_with_kv_cache(q, k, k, causal=True)

        self.compiled(single, torch.randn(3, 4, 64), k)

    def test_append(self):
        pages = Pages((5, 17), 4, 2, 64)
        indptr, indices, last, cache = tensors(pages)
        batch, places = torch.tensor([0, 1], dtype=torch.int32), torch.tensor([4, 16], dtype=torch.int32)

        def block(k, cache):
            cache = cache.nan_to_num()
            fi.append_paged_kv_cache(k, k + 1, batch, places, cache, indices, indptr, last)
            return cache

        self.compiled(block, torch.randn(2, 2, 64), cache)

    def test_operators_pass_torchs_own_check(self):
        x, w = torch.randn(5, 64), torch.randn(64)
        ops = torch.ops.flashinfer_swift
        checks = ("test_schema", "test_faketensor")
        torch.library.opcheck(ops.rmsnorm, (x, w, 1e-6, 0.0), test_utils=checks)
        torch.library.opcheck(ops.act_and_mul, (x, 0), test_utils=checks)
        torch.library.opcheck(ops.fused_add_rmsnorm, (x, x.clone(), w, 1e-6, 0.0), test_utils=checks)
        # int8, as torch cannot compare float8.
        out, scale = torch.zeros(5, 64, dtype=torch.int8), torch.tensor([0.03])
        torch.library.opcheck(ops.rmsnorm_quant, (out, x, w, scale, 0.0, 1e-6), test_utils=checks)
        torch.library.opcheck(ops.merge_states, (torch.randn(4, 3, 2, 64), torch.randn(4, 3, 2)), test_utils=checks)


@needs_cuda
class GPUTests(unittest.TestCase):
    """The same definitions on a GPU, with the current stream, and captured."""

    def setUp(self):
        self.pages = Pages((5, 9, 30, 2000), 16, 2, 128)

    def check(self, out, q, pages, count=4):
        for request in range(count):
            expected, _ = ref.attention(
                q[request:request + 1].float().cpu().numpy(), pages.keys[request].astype(np.float16), pages.values[request].astype(np.float16))
            close(self, out[request:request + 1], expected, "float16", 2)

    def test_decode_with_tables_on_host_or_device(self):
        q = torch.randn(4, 8, 128, dtype=torch.float16, device="cuda")
        cache = tensors(self.pages, "cuda", torch.float16)[3]
        for device in ("cpu", "cuda"):
            indptr, indices, last, _ = tensors(self.pages, device)
            wrapper = fi.BatchDecodeWithPagedKVCacheWrapper(torch.empty(1, device="cuda"))
            wrapper.plan(indptr, indices, last, 8, 2, 128, 16, q_data_type=torch.float16)
            self.check(wrapper.run(q, cache), q, self.pages)

    def test_current_stream(self):
        q = torch.zeros(4, 8, 128, dtype=torch.float16, device="cuda")
        indptr, indices, last, cache = tensors(self.pages, "cuda", torch.float16)
        wrapper = fi.BatchDecodeWithPagedKVCacheWrapper(torch.empty(1, device="cuda"))
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            wrapper.plan(indptr, indices, last, 8, 2, 128, 16, q_data_type=torch.float16)
            wrapper.run(q, cache)  # kernels are loaded before the order of work is looked at
            torch.cuda._sleep(100_000_000)
            q.normal_()
            out = wrapper.run(q, cache)
        stream.synchronize()
        self.check(out, q, self.pages)

    def test_graph_follows_its_plan(self):
        lengths = (5, 9, 30, 700)
        wrapper = fi.CUDAGraphBatchDecodeWithPagedKVCacheWrapper(
            torch.empty(1, device="cuda"), *(torch.zeros(n, dtype=torch.int32, device="cuda") for n in (5, 256, 4)))
        q = torch.randn(4, 8, 128, dtype=torch.float16, device="cuda")
        norm = torch.ones(128, dtype=torch.float16, device="cuda")
        cache = torch.zeros(256, 2, 16, 2, 128, dtype=torch.float16, device="cuda")
        out = torch.empty_like(q)
        graph = None
        for turn in range(3):
            pages = Pages([length * (turn + 1) for length in lengths], 16, 2, 128, seed=turn)
            indptr, indices, last, poisoned = tensors(pages, "cuda", torch.float16)
            cache[:len(poisoned)] = poisoned
            wrapper.plan(indptr, indices, last, 8, 2, 128, 16, q_data_type=torch.float16)
            if graph is None:
                wrapper.run(q, cache, out=out)
                fi.rmsnorm(out, norm)
                torch.cuda.synchronize()
                graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(graph):
                    wrapper.run(q, cache, out=out)
                    normed = fi.rmsnorm(out, norm)
            out.fill_(float("nan"))
            graph.replay()
            torch.cuda.synchronize()
            self.check(out, q, pages)
            close(self, normed, ref.rmsnorm(out.float().cpu().numpy(), np.ones(128)), "float16", 2)

    def test_rope_append_and_quantised_norm_in_a_graph(self):
        indptr, indices, last, cache = tensors(self.pages, "cuda", torch.float16)
        k, v = (torch.randn(3, 2, 128, dtype=torch.float16, device="cuda") for _ in range(2))
        q = torch.randn(3, 8, 128, dtype=torch.float16, device="cuda")
        batch = torch.tensor([0, 3, -1], dtype=torch.int32, device="cuda")
        places = torch.tensor([4, 1999, 0], dtype=torch.int32, device="cuda")
        w, scale = torch.randn(128, dtype=torch.float16, device="cuda"), torch.tensor([0.03], device="cuda")

        def step(cache):
            out = torch.empty(q.shape, dtype=torch.float8_e4m3fn, device="cuda")
            fi.rope_append_paged_kv_cache(
                q, k, v, batch, places, cache, indices, indptr, last, out=out, q_scale=0.02, rope_theta=5e5)
            normed = torch.empty(q.shape, dtype=torch.float8_e4m3fn, device="cuda")
            fi.rmsnorm_quant(normed, q, w, scale)
            return out, normed

        eager = cache.clone()
        expected = [x.float() for x in step(eager)]
        exact = ref.rope(q.float().cpu().numpy(), places.cpu().numpy(), theta=5e5) / 0.02
        # Half a step of e4m3, and what float32 loses of an angle.
        self.assertLess(np.abs(expected[0].cpu().numpy() - np.clip(exact, -448, 448)).max(), 16.1)
        turned = ref.rope(k.float().cpu().numpy(), places.cpu().numpy(), theta=5e5)
        page, row = self.pages.indices[self.pages.indptr[3] + 1999 // 16], 1999 % 16
        close(self, eager[int(page), 0, row], turned[1], "float16")
        captured = cache.clone()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            out = step(captured)
        scale.fill_(0.06)
        graph.replay()
        torch.cuda.synchronize()
        self.assertTrue(torch.equal(captured.nan_to_num(), eager.nan_to_num()))
        self.assertTrue(torch.equal(out[0].float(), expected[0]))
        # The scale is read at each replay.
        self.assertTrue(torch.equal(out[1].float(), step(cache.clone())[1].float()))

    def test_sampling_in_a_graph(self):
        packed = fi.packed_sampling
        probs = torch.softmax(torch.randn(3, 4, 20_000, device="cuda"), -1)
        draft, ids = probs[:, 1:].clone(), torch.randint(0, 20_000, (3, 3), dtype=torch.int32, device="cuda")
        logits = probs[:, 0].log()
        given, draws = packed.parameters(logits), packed.draws(probs)
        tokens, status = torch.empty(3, dtype=torch.int32, device="cuda"), torch.empty(3, dtype=torch.uint8, device="cuda")
        shapes = (3, 4), (3, 4), (3,), (3,)
        chain = tuple(torch.empty(shape, dtype=torch.int32, device="cuda") for shape in shapes)

        def step():
            packed.sample(logits, given, out=tokens, status=status)
            packed.verify_drafts(probs, ids, draws, draft, out=chain, status=status)

        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            step()
        stream.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            step()
        for turn in range(3):
            packed.update(given, top_k=50, top_p=0.9, seed=turn, step=turn)
            draws.copy_(packed.draws(probs, turn, turn))
            graph.replay()
            expected = fi.top_k_top_p_sampling_from_logits(logits, 50, 0.9, seed=turn, offset=turn)
            self.assertTrue(torch.equal(tokens, expected))
            expected = fi.chain_speculative_sampling(draft, ids, probs, seed=turn, offset=turn)
            for found, wanted in zip((chain[0], chain[2], chain[3]), expected):
                self.assertTrue(torch.equal(found, wanted))

    def test_append_in_a_graph(self):
        indptr, indices, last, cache = tensors(self.pages, "cuda", torch.float16)
        k, v = (torch.randn(3, 2, 128, dtype=torch.float16, device="cuda") for _ in range(2))
        batch = torch.tensor([0, 3, -1], dtype=torch.int32, device="cuda")
        places = torch.tensor([4, 1999, 0], dtype=torch.int32, device="cuda")
        expected = cache.clone()
        fi.append_paged_kv_cache(k, v, batch, places, expected, indices, indptr, last)
        captured = cache.clone()
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            warm = cache.clone()
            fi.append_paged_kv_cache_at(k, v, fi.get_slot_table(batch, places, indices, indptr, last, 16), warm)
        stream.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            fi.append_paged_kv_cache(k, v, batch, places, captured, indices, indptr, last)
        graph.replay()
        torch.cuda.synchronize()
        for found in (warm, captured):
            self.assertTrue(torch.equal(found.nan_to_num(), expected.nan_to_num()))

    def test_operations(self):
        x, w = torch.randn(50, 256, dtype=torch.bfloat16, device="cuda"), torch.randn(256, dtype=torch.bfloat16, device="cuda")
        close(self, fi.rmsnorm(x, w), ref.rmsnorm(x.float().cpu().numpy(), w.float().cpu().numpy()), "bfloat16")
        close(self, fi.silu_and_mul(x), ref.activation(x.float().cpu().numpy(), "silu"), "bfloat16")
        q, places = torch.randn(50, 4, 64, device="cuda"), torch.arange(50, device="cuda")
        close(self, fi.apply_rope_pos_ids(q, q, places)[1], ref.rope(q.cpu().numpy(), np.arange(50)))
        bits = torch.rand(777, device="cuda") < 0.5
        self.assertEqual(fi.packbits(bits).tolist(), np.packbits(bits.cpu().numpy()).tolist())
        p = torch.softmax(torch.randn(1, 100, device="cuda"), -1)
        tokens = fi.sampling_from_probs(p, torch.zeros(100_000, dtype=torch.int32, device="cuda"))
        frequency = torch.bincount(tokens, minlength=100).float() / 100_000
        self.assertGreater(torch.cosine_similarity(frequency, p[0], 0).item(), 0.999)

    def test_reproducible_by_the_generator(self):
        p = torch.softmax(torch.randn(64, 1000, device="cuda"), -1)
        torch.cuda.manual_seed(3)
        first, second = fi.sampling_from_probs(p), fi.sampling_from_probs(p)
        torch.cuda.manual_seed(3)
        self.assertTrue(torch.equal(first, fi.sampling_from_probs(p)))
        self.assertFalse(torch.equal(first, second))

    def test_host_tensor_beside_device_tensors_is_refused(self):
        with self.assertRaisesRegex(ValueError, "weight|device|on"):
            fi.rmsnorm(torch.randn(4, 64, device="cuda"), torch.randn(64))


if __name__ == "__main__":
    unittest.main()
