"""Fake quantisation in plain operators, symmetric and restricted.

    s = max(abs(x)) / (2^(b−1) − 1)
    y = clamp(round(x / s), −(2^(b−1) − 1), 2^(b−1) − 1) · s

`dims` are the dimensions whose values share one s: (0,) of a weight [d_in, d_out] is per channel,
(1,) of activations [tokens, width] per token.
"""

import math

import torch

from answer import check


def highest_level(bits):
    """2^(b−1) − 1; the lowest level is its negative."""
    return 2 ** (bits - 1) - 1


def scales(x, bits, dims):
    """s, with `dims` kept as dimensions of size 1.

    Two reductions that write nothing large; x.abs().amax(dims) writes a copy of x, and the
    infinity norm of torch.linalg is not vectorised.
    """
    largest = torch.maximum(x.amax(dims, keepdim=True), x.amin(dims, keepdim=True).neg_())
    return largest.div_(highest_level(bits)).clamp_(min=torch.finfo(x.dtype).tiny)


def fake_quantize(x, bits, dims):
    """x rounded to its levels; all after the division is in place."""
    high = highest_level(bits)
    scale = scales(x, bits, dims)
    return (x / scale).round_().clamp_(-high, high).mul_(scale)


def check_levels(x, y, bits, dims):
    """y has at most 2^b − 1 values for each scale, a step apart, none further than half from x."""
    check(y.shape == x.shape and bool(y.isfinite().all()), "not finite, or of another shape")
    step = scales(x, bits, dims).expand_as(x)
    check(bool(((y - x).abs() <= 0.5001 * step).all()), "further than half a step from the input")

    shared = math.prod(x.shape[dim] for dim in dims)
    last = tuple(range(-len(dims), 0))
    # [scales, values that share one]
    rows, step = (t.movedim(dims, last).reshape(-1, shared) for t in (y, step))
    gaps = rows.sort(dim=1).values.diff(dim=1)
    check(int((gaps != 0).sum(dim=1).max()) + 1 <= 2 * highest_level(bits) + 1, "too many values")
    check(bool(((gaps == 0) | (gaps > 0.999 * step[:, 1:])).all()), "values beside the levels")
