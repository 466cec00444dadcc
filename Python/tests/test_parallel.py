"""Several ranks: processes on the CPU that meet over TCP, and the arithmetic of shares."""

from __future__ import annotations

import multiprocessing
import os
import socket
import unittest

import numpy as np
from support import close, random

from flashinfer_swift import InvalidArgumentError, RankError, comm, parallel

LENGTHS = (100, 1, 37)
PAGE, HEADS, KV_HEADS, DIM = 4, 4, 2, 16


def keys_and_values():
    return [random((length, 2, KV_HEADS, DIM), seed=request + 10) for request, length in enumerate(LENGTHS)]


def part(share):
    """A rank's cache and page table."""
    counts = [share.page_count(length) for length in LENGTHS]
    cache = np.full((sum(counts) + 1, 2, PAGE, KV_HEADS, DIM), np.nan, np.float32)
    indptr = np.cumsum([0, *counts]).astype(np.int32)
    for request, rows in enumerate(keys_and_values()):
        for position in range(LENGTHS[request]):
            rank, local = share.owner(position)
            if rank == share.rank:
                cache[indptr[request] + local // PAGE, :, local % PAGE] = rows[position]
    return cache, indptr, np.arange(indptr[-1], dtype=np.int32)


def attend(ranks, rows, causal):
    share = parallel.KVShare("interleaved", ranks.rank, ranks.world_size, PAGE)
    cache, indptr, indices = part(share)
    wrapper = parallel.BatchKVParallelWithPagedKVCacheWrapper(ranks)
    qo_indptr = None if rows is None else np.cumsum([0, *rows]).astype(np.int32)
    q = random((len(LENGTHS) if rows is None else sum(rows), HEADS, DIM), seed=3)
    wrapper.plan(
        qo_indptr, np.array(LENGTHS, np.int32), indptr, indices, share, HEADS, KV_HEADS, DIM, causal=causal,
        q_data_type="float32")
    return wrapper.run(q, cache, return_lse=True)


def rank_of_many(rank, world_size, port, queue):
    try:
        ranks = parallel.Communicator(np.zeros(1, np.float32), rank, world_size, port=port, timeout=30)
        results = [attend(ranks, rows, causal) for rows in (None, (5, 1, 9)) for causal in (True, False)]
        gathered = ranks.all_gather(np.full((2, 3), rank, np.float32))
        ranks.barrier()
        partial = random((3, 2, world_size, DIM), seed=rank)
        sums = random((3, 2, world_size), seed=rank + 50)
        reduced = comm.decode_cp_a2a_lse_reduce(partial, sums, ranks, rank, world_size)
        queue.put((rank, results, gathered, reduced, None))
    except Exception as error:  # the parent fails with it
        queue.put((rank, None, None, None, repr(error)))


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


class RankTests(unittest.TestCase):
    def test_processes_give_what_one_gives(self):
        expected = [
            attend(parallel.Communicator(np.zeros(1, np.float32), 0, 1), rows, causal)
            for rows in (None, (5, 1, 9)) for causal in (True, False)]
        context = multiprocessing.get_context("spawn")
        queue, port, count = context.Queue(), free_port(), 3
        processes = [context.Process(target=rank_of_many, args=(rank, count, port, queue)) for rank in range(count)]
        for process in processes:
            process.start()
        found = sorted((queue.get(timeout=120) for _ in processes), key=lambda item: item[0])
        for process in processes:
            process.join()
        for rank, results, gathered, reduced, error in found:
            self.assertIsNone(error)
            for (out, lse), (alone, alone_lse) in zip(results, expected):
                close(self, out, alone)
                close(self, lse, alone_lse)
            np.testing.assert_array_equal(gathered[:, 0, 0], range(count))
            values = np.stack([random((3, 2, count, DIM), seed=peer)[:, :, rank] for peer in range(count)])
            sums = np.stack([random((3, 2, count), seed=peer + 50)[:, :, rank] for peer in range(count)])
            weights = np.exp2(sums.astype(np.float64))
            close(self, reduced, (weights[..., None] * values).sum(0) / weights.sum(0)[..., None])

    def test_a_rank_that_does_not_come_is_named(self):
        with self.assertRaisesRegex(RankError, "rank 1: .*did not come"):
            parallel.Communicator(np.zeros(1, np.float32), 0, 2, port=free_port(), timeout=0.2)

    def test_the_environment_is_named(self):
        kept = {name: os.environ.pop(name, None) for name in ("RANK", "WORLD_SIZE")}
        try:
            with self.assertRaisesRegex(InvalidArgumentError, "WORLD_SIZE is not set"):
                parallel.Communicator(np.zeros(1, np.float32))
            os.environ.update(RANK="2", WORLD_SIZE="2")
            with self.assertRaisesRegex(InvalidArgumentError, "RANK is '2'"):
                parallel.Communicator(np.zeros(1, np.float32))
        finally:
            for name, value in kept.items():
                os.environ.pop(name, None)
                if value is not None:
                    os.environ[name] = value
        with self.assertRaises(InvalidArgumentError):
            parallel.Communicator(np.zeros(1, np.float32), rank=1)


class ShareTests(unittest.TestCase):
    def test_every_key_has_one_owner(self):
        for split in ("chunks", "interleaved", "zigzag"):
            shares = [parallel.KVShare(split, rank, 3, 4, run_pages=2) for rank in range(3)]
            counts = [0, 0, 0]
            for position in range(100):
                self.assertEqual([share.key_count(position) for share in shares], counts)
                rank, local = shares[0].owner(position)
                self.assertEqual(local, counts[rank])
                self.assertEqual(shares[rank].page(local // 4), position // 4)
                counts[rank] += 1
        with self.assertRaisesRegex(InvalidArgumentError, "rank is 3"):
            parallel.KVShare("chunks", 3, 3, 4).key_count(1)
        with self.assertRaises(InvalidArgumentError):
            parallel.KVShare("thirds", 0, 3, 4).key_count(1)

    def test_heads(self):
        self.assertEqual(parallel.head_share(32, 8, 3, 16), (range(6, 8), range(1, 2)))
        with self.assertRaises(InvalidArgumentError):
            parallel.head_share(32, 8, 0, 3)


if __name__ == "__main__":
    unittest.main()
