"""The definitions that the tests compare with: plain NumPy in float64."""

from __future__ import annotations

import math

import numpy as np

LOG2E = math.log2(math.e)


def attention(
    q, k, v, *, causal=False, mask=None, window_left=-1, cap=0.0, scale=None, slopes=None, sinks=None, rope_theta=None,
    rope_scale=1.0, columns=None,
):
    """`q [rows, heads, dim]`, `k`, `v [keys, kv heads, dim]`: the output and the base-2 log-sum-exp."""
    q, k, v = (np.asarray(x, dtype=np.float64) for x in (q, k, v))
    rows, heads, dim = q.shape
    keys, kv_heads, _ = k.shape
    scale = 1 / math.sqrt(dim) if scale is None else scale
    end = keys - rows
    if rope_theta is not None:
        q = rope(q, np.arange(rows) + end, theta=rope_theta, factor=rope_scale)
        k = rope(k, np.arange(keys), theta=rope_theta, factor=rope_scale)
    out = np.zeros((rows, heads, v.shape[2]))
    lse = np.full((rows, heads), -np.inf)
    column = np.arange(keys) if columns is None else np.asarray(columns)
    for head in range(heads):
        kv = head // (heads // kv_heads)
        score = scale * q[:, head] @ k[:, kv].T
        if slopes is not None:
            score = score + slopes[head] * (column[None] - np.arange(rows)[:, None])
        if cap:
            score = cap * np.tanh(score / cap)
        seen = np.ones((rows, keys), bool)
        if mask is not None:
            seen &= np.asarray(mask, bool).reshape(rows, keys)
        elif causal:
            seen &= column[None] <= np.arange(rows)[:, None] + end
        if window_left >= 0:
            seen &= column[None] >= np.arange(rows)[:, None] + end - window_left
        score = np.where(seen, score, -np.inf)
        for row in range(rows):
            terms = score[row]
            if sinks is not None:
                terms = np.append(terms, sinks[head])
            top = terms.max(initial=-np.inf)
            if top == -np.inf:
                continue
            weights = np.exp(terms - top)
            lse[row, head] = (top + math.log(weights.sum())) * LOG2E
            out[row, head] = (weights[:keys] / weights.sum()) @ v[:, kv]
    return out, lse


def alibi_slopes(heads):
    closest = 2 ** int(math.floor(math.log2(heads)))
    return np.array([
        2.0 ** (-8 * (head + 1) / closest) if head < closest else 2.0 ** (-4 * (2 * (head - closest) + 1) / closest)
        for head in range(heads)])


def frequencies(dim, theta=1e4, factor=1.0, llama=None):
    plain = theta ** (-2.0 * np.arange(dim // 2) / dim)
    if llama is None:
        return plain / factor
    low, high, context = llama
    smooth = np.clip((plain * context / (2 * math.pi) - low) / (high - low), 0, 1)
    return (1 - smooth) * plain / factor + smooth * plain


def rope(x, positions, *, dim=None, interleave=False, theta=1e4, factor=1.0, llama=None):
    """`x [tokens, heads, head_dim]`."""
    x = np.array(x, dtype=np.float64)
    dim = x.shape[-1] if dim is None else dim
    angles = np.asarray(positions, np.float64)[:, None, None] * frequencies(dim, theta, factor, llama)
    first, second = (
        (np.arange(0, dim, 2), np.arange(1, dim, 2)) if interleave else (np.arange(dim // 2), np.arange(dim // 2, dim)))
    a, b = x[..., first].copy(), x[..., second].copy()
    x[..., first] = a * np.cos(angles) - b * np.sin(angles)
    x[..., second] = b * np.cos(angles) + a * np.sin(angles)
    return x


def merge(v_a, s_a, v_b, s_b):
    v_a, s_a, v_b, s_b = (np.asarray(x, np.float64) for x in (v_a, s_a, v_b, s_b))
    return merge_many(np.stack([v_a, v_b], 1), np.stack([s_a, s_b], 1))


def merge_many(v, s):
    """`v [rows, states, heads, dim]`, `s [rows, states, heads]`."""
    v, s = np.asarray(v, np.float64), np.asarray(s, np.float64)
    top = s.max(1)
    safe = np.where(np.isinf(top), 0, top)
    weights = np.where(np.isinf(s), 0, 2.0 ** (s - safe[:, None]))
    total = weights.sum(1)
    values = np.where(weights[..., None] > 0, v, 0)
    out = (weights[..., None] * values).sum(1) / np.where(total == 0, 1, total)[..., None]
    with np.errstate(divide="ignore"):
        return out, np.where(total == 0, -np.inf, safe + np.log2(np.where(total == 0, 1, total)))


def rmsnorm(x, weight, eps=1e-6, offset=0.0):
    x = np.asarray(x, np.float64)
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * (offset + np.asarray(weight, np.float64))


def layernorm(x, gamma, beta, eps=1e-6):
    x = np.asarray(x, np.float64)
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + eps) * gamma + beta


def activation(x, kind):
    x = np.asarray(x, np.float64)
    gate, up = np.split(x, 2, -1)
    if kind == "silu":
        value = gate / (1 + np.exp(-gate))
    elif kind == "gelu":
        value = gate * 0.5 * (1 + np.vectorize(math.erf)(gate / math.sqrt(2)))
    else:
        value = 0.5 * gate * (1 + np.tanh(math.sqrt(2 / math.pi) * (gate + 0.044715 * gate ** 3)))
    return value * up


def softmax(x, temperature=1.0):
    x = np.asarray(x, np.float64) / np.asarray(temperature, np.float64).reshape(-1, 1)
    weights = np.exp(x - x.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def gather_pages(cache, indices, length, layout="NHD"):
    """The first `length` keys of a request: `cache [pages, ...]` without the 2."""
    if layout == "HND":
        cache = np.swapaxes(cache, 1, 2)
    page_size = cache.shape[1]
    rows = [cache[indices[i // page_size], i % page_size] for i in range(length)]
    return np.stack(rows) if rows else np.zeros((0, *cache.shape[2:]), cache.dtype)
