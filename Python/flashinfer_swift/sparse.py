"""Block-sparse attention: a matrix of blocks (BSR) says which query blocks see which key blocks."""

from __future__ import annotations

import math
import operator
from typing import Any

from . import _abi, _compile
from ._arrays import library_of
from ._planned import Options, default_scale, position_code
from ._call import host_ints
from ._wrapper import BatchWrapper, refuse
from .errors import InvalidArgumentError, unsupported


def convert_bsr_mask_layout(mask: Any, indptr: Any) -> Any:
    """A mask of blocks ``[nnz, R, C]`` as a vector: block row after block row, each ``[R, keys of its blocks]``."""
    arrays = library_of(mask, "mask")
    starts = arrays.to_list(indptr)
    parts = [mask[start:end].swapaxes(0, 1).reshape(-1) for start, end in zip(starts, starts[1:])]
    return arrays.concat(parts) if parts else mask.reshape(-1)


class BlockSparseAttentionWrapper(BatchWrapper):
    """Attention of ``M`` queries over ``N`` keys in blocks of ``R x C``: ``plan`` once, ``run`` once a layer.

    :param float_workspace_buffer: says the device; None takes it from the plan's arrays.
    """

    _name = "BlockSparseAttentionWrapper"

    def __init__(self, float_workspace_buffer: Any = None, backend: str = "auto") -> None:
        super().__init__(float_workspace_buffer, "NHD", False)
        if backend.startswith("vsa"):
            raise unsupported(self._name, f"backend {backend!r} is not supported", "backend='auto'")
        self._M = 0

    def plan(
        self, indptr: Any, indices: Any, M: int, N: int, R: int, C: int, num_qo_heads: int, num_kv_heads: int,
        head_dim: int, mask: Any = None, packed_mask: Any = None, causal: bool = False, pos_encoding_mode: str = "NONE",
        use_fp16_qk_reduction: bool = False, logits_soft_cap: float | None = None, sm_scale: float | None = None,
        rope_scale: float | None = None, rope_theta: float | None = None, q_data_type: Any = "float16",
        kv_data_type: Any = None, o_data_type: Any = None, non_blocking: bool = True, block_mask: Any = None,
    ) -> None:
        """Plans: ``indptr [ceil(M / R) + 1]`` and ``indices``, int32, the block columns of each block row; ``N`` a multiple of ``C``.

        :param mask: ``[nnz, R, C]`` bool: the elements of each block that are seen.
        :param packed_mask: the same, already in the vector order of ``convert_bsr_mask_layout`` and packed by block rows,
            lowest bit first.
        :param causal: by a key's column in the whole matrix. (The peer counts within the gathered keys of a block row.)
        :param o_data_type: None for the queries' type. (The peer's default is float16.)
        """
        refuse(f"{self._name}.plan", block_mask=block_mask)
        position_code(pos_encoding_mode)
        call = self._call(indptr, "indptr")
        q_name, kv_name, o_name = self._dtypes(call, q_data_type, kv_data_type, o_data_type)
        if mask is not None and packed_mask is None:
            if tuple(mask.shape[1:]) != (R, C):
                raise InvalidArgumentError(f"mask is of shape {tuple(mask.shape)}, but must be [nnz, {R}, {C}]")
            starts = call.arrays.to_list(indptr)
            parts = []
            for row, (start, end) in enumerate(zip(starts, starts[1:])):
                block = mask[start:end].swapaxes(0, 1)
                parts.append(block[:max(min(R, M - row * R), 0)].reshape(-1))  # the last block row may be short
            mask = call.arrays.concat(parts) if parts else mask.reshape(-1)
        self._configure(call, Options(
            num_qo_heads, num_kv_heads, head_dim, head_dim, q_name, kv_name, o_name,
            mask_mode=self._mask_mode(mask, packed_mask, causal), logits_soft_cap=logits_soft_cap or 0.0,
            sm_scale=default_scale(sm_scale), pos_encoding_mode=pos_encoding_mode,
            rope_scale=1.0 if rope_scale is None else rope_scale, rope_theta=1e4 if rope_theta is None else rope_theta))
        self._core.plan(
            "fi_attention_plan_block_sparse", call.arrays.stream(call.like), M, N, R, C, call.tensor(indptr, "indptr"),
            call.tensor(indices, "indices"), queries=M)
        self._set_mask(call, mask, packed_mask)
        self._M = M

    begin_forward = plan

    def run(
        self, q: Any, k: Any, v: Any, scale_q: Any = None, scale_k: Any = None, scale_v: Any = None, out: Any = None,
        lse: Any = None, return_lse: bool = False, enable_pdl: bool | None = None,
    ) -> Any:
        """Runs the plan: ``q [M, num_qo_heads, head_dim]``, ``k`` and ``v [N, num_kv_heads, head_dim]``."""
        if _compile.is_compiling():
            return self._run_traced(q, (k, v), out, lse, return_lse, None, scale_q, scale_k, scale_v)
        return self._run(q, (k, v), out, lse, return_lse, None, scale_q, scale_k, scale_v)

    def forward(self, q: Any, k: Any, v: Any, scale_q: Any = None, scale_k: Any = None, scale_v: Any = None, **options: Any) -> Any:
        """The old name of ``run``; options belong to ``plan``."""
        return self.run(q, k, v, scale_q, scale_k, scale_v)


class VariableBlockSparseAttentionWrapper(BatchWrapper):
    """Block-sparse attention whose blocks differ in size, with a pattern for each key/value head.

    Planned as one request for each (head, block row) over pages of as many keys as divide all blocks' columns (1 where nothing else
    does), so a plan takes memory in proportion to the pages seen by all block rows.
    """

    _name = "VariableBlockSparseAttentionWrapper"

    def __init__(self, float_workspace_buffer: Any = None, backend: str = "auto") -> None:
        super().__init__(float_workspace_buffer, "NHD", False)
        self._group = 1
        self._page = 1
        self._kv_heads = 0

    def plan(
        self, block_mask_map: Any, block_row_sz: Any, block_col_sz: Any, num_qo_heads: int, num_kv_heads: int,
        head_dim: int, causal: bool = False, pos_encoding_mode: str = "NONE", use_fp16_qk_reduction: bool = False,
        logits_soft_cap: float | None = None, sm_scale: float | None = None, rope_scale: float | None = None,
        rope_theta: float | None = None, non_blocking: bool = True, q_data_type: Any = "float16", kv_data_type: Any = None,
    ) -> None:
        """Plans: ``block_mask_map [num_kv_heads, MB, NB]`` bool, ``block_row_sz [num_kv_heads, MB]``, ``block_col_sz
        [num_kv_heads, NB]``; the sizes add up to the same for every head."""
        if num_kv_heads < 1 or num_qo_heads % num_kv_heads:
            raise InvalidArgumentError(
                f"num_qo_heads is {num_qo_heads}, but must be a multiple of num_kv_heads ({num_kv_heads})")
        call = self._call(block_mask_map, "block_mask_map")
        q_name, kv_name, o_name = self._dtypes(call, q_data_type, kv_data_type, None)
        for name, array in (("block_row_sz", block_row_sz), ("block_col_sz", block_col_sz)):
            library_of(array, name)
        if len(block_mask_map.shape) != 3:
            raise InvalidArgumentError(
                f"block_mask_map is of shape {tuple(block_mask_map.shape)}, but must be [kv heads, MB, NB]")
        heads, row_blocks, column_blocks = block_mask_map.shape
        if heads != num_kv_heads or tuple(block_row_sz.shape) != (heads, row_blocks) or (
                tuple(block_col_sz.shape) != (heads, column_blocks)):
            raise InvalidArgumentError(
                f"block_mask_map {tuple(block_mask_map.shape)}, block_row_sz {tuple(block_row_sz.shape)} and block_col_sz "
                f"{tuple(block_col_sz.shape)} do not agree; they must be [kv heads, MB, NB], [kv heads, MB] and [kv heads, NB]")
        seen = call.arrays.to_list(block_mask_map)
        row_sizes = _sizes(call.arrays.to_list(block_row_sz), "block_row_sz")
        column_sizes = _sizes(call.arrays.to_list(block_col_sz), "block_col_sz")
        # Whole pages are copied faster than single keys.
        page = math.gcd(*column_sizes) or 1
        qo_indptr, kv_indptr = [0], [0]
        ids: list[int] = []
        key_totals: set[int] = set()
        row_totals: set[int] = set()
        for head in range(heads):
            columns = [0]
            for size in column_sizes[head * column_blocks:(head + 1) * column_blocks]:
                columns.append(columns[-1] + size)
            rows = row_sizes[head * row_blocks:(head + 1) * row_blocks]
            key_totals.add(columns[-1])
            row_totals.add(sum(rows))
            base = head * columns[-1] // page
            for row in range(row_blocks):
                first = (head * row_blocks + row) * column_blocks
                for column in range(column_blocks):
                    if seen[first + column]:
                        ids.extend(range(base + columns[column] // page, base + columns[column + 1] // page))
                qo_indptr.append(qo_indptr[-1] + rows[row])
                kv_indptr.append(len(ids))
        if len(key_totals) > 1 or len(row_totals) > 1:
            raise InvalidArgumentError(
                f"the block sizes add up to {sorted(row_totals)} rows and {sorted(key_totals)} keys, but must be the same for "
                "every head")
        last = [page if end > start else 0 for start, end in zip(kv_indptr, kv_indptr[1:])]
        self._group = num_qo_heads // num_kv_heads
        self._kv_heads = num_kv_heads
        self._page = page
        self._configure(call, Options(
            self._group, 1, head_dim, head_dim, q_name, kv_name, o_name,
            mask_mode=_abi.MASK_CAUSAL if causal else _abi.MASK_NONE, logits_soft_cap=logits_soft_cap or 0.0,
            sm_scale=default_scale(sm_scale), pos_encoding_mode=pos_encoding_mode,
            rope_scale=1.0 if rope_scale is None else rope_scale, rope_theta=1e4 if rope_theta is None else rope_theta))
        self._core.plan(
            "fi_attention_plan_paged", call.arrays.stream(call.like), call.tensor(host_ints(qo_indptr), "qo_indptr"),
            call.tensor(host_ints(kv_indptr), "kv_indptr"), call.tensor(host_ints(ids), "kv_indices"),
            call.tensor(host_ints(last), "last_page_len"), page, 0, queries=qo_indptr[-1])

    begin_forward = plan

    def run(
        self, q: Any, k: Any, v: Any, out: Any = None, lse: Any = None, return_lse: bool = False,
        enable_pdl: bool | None = None,
    ) -> Any:
        """Runs the plan: ``q [num_qo_heads, rows, head_dim]``, ``k`` and ``v [num_kv_heads, keys, head_dim]``; the output is like q.

        Queries are copied to put a group's heads side by side, and the output back.
        """
        if not self._core.planned:
            raise InvalidArgumentError("run is called before plan, or after a plan that failed; call plan first")
        for name, array in (("q", q), ("k", k), ("v", v)):
            library_of(array, name)
            if len(array.shape) != 3:
                raise InvalidArgumentError(f"{name} is of shape {tuple(array.shape)}, but must be [heads, rows, head_dim]")
        heads, rows, dim = q.shape
        if heads != self._kv_heads * self._group:
            raise InvalidArgumentError(
                f"q has {heads} heads, but the plan has {self._kv_heads * self._group}; q must be [num_qo_heads, rows, head_dim]")
        for name, array in (("k", k), ("v", v)):
            if array.shape[2] != dim or array.shape[0] * array.shape[1] % self._page:
                raise InvalidArgumentError(
                    f"{name} is of shape {tuple(array.shape)}, but must be [{self._kv_heads}, keys, {dim}], as the blocks add up to")
        grouped = q.reshape(self._kv_heads, self._group, rows, dim).swapaxes(1, 2).reshape(self._kv_heads * rows, self._group, dim)
        pages = tuple(array.reshape(array.shape[0] * array.shape[1] // self._page, self._page, 1, dim) for array in (k, v))
        result, sums = self._run(grouped, pages, None, None, True)
        result = result.reshape(self._kv_heads, rows, self._group, dim).swapaxes(1, 2).reshape(heads, rows, dim)
        sums = sums.reshape(self._kv_heads, rows, self._group).swapaxes(1, 2).reshape(heads, rows)
        if out is not None:
            out[...] = result
            result = out
        if lse is not None:
            lse[...] = sums
            sums = lse
        return (result, sums) if return_lse else result

    def forward(self, q: Any, k: Any, v: Any, **options: Any) -> Any:
        """The old name of ``run``; options belong to ``plan``."""
        return self.run(q, k, v)


def _sizes(values: list[Any], name: str) -> list[int]:
    """Sizes of blocks, all of which together are numbered by int32: checked before there is a list of as many ids."""
    try:
        sizes = [operator.index(value) for value in values]
    except TypeError:
        raise InvalidArgumentError(f"{name} holds {values[0]!r}, but must be of integers") from None
    if sizes and min(sizes) < 0:
        raise InvalidArgumentError(f"{name} holds {min(sizes)}, but must be 0 or more")
    if sum(sizes) > 0x7FFFFFFF:
        raise InvalidArgumentError(f"{name} adds up to {sum(sizes)}, but must fit in 31 bits")
    return sizes


__all__ = ["BlockSparseAttentionWrapper", "VariableBlockSparseAttentionWrapper", "convert_bsr_mask_layout"]
