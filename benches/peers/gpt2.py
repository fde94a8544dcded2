"""GPT-2 small with random weights, over any kind of matrix.

12 blocks, 12 heads, d = 768, inner 3072, vocabulary 50257. Weights are [d_in, d_out], so y = x·W
and a scale per channel is one per column. A site, one of the 48 matrices, is a function from
x [rows, d_in] to y [rows, d_out].
"""

import functools
import math
from typing import Callable, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from answer import LeftOut, check
from fake_quantize import scales

WIDTH, BLOCKS, HEADS, INNER, VOCABULARY, POSITIONS = 768, 12, 12, 3072, 50257, 1024
GROUP = 64  # rows that share a scale, where scales are per group

SITES = {  # the four matrices of a block, [d_in, d_out]
    "attn.c_attn": (WIDTH, 3 * WIDTH),
    "attn.c_proj": (WIDTH, WIDTH),
    "mlp.c_fc": (WIDTH, INNER),
    "mlp.c_proj": (INNER, WIDTH),
}


def cpu_only(device, what):
    if device.type != "cpu":
        raise LeftOut(f"{what} has kernels for the CPU only")


def normal(shape, device, seed, std=1.0):
    """The same normal values on every device."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(shape, generator=generator) * std).to(device)


def gpt2_weights(device, dtype=torch.float32):
    """Random weights under the names of GPT-2."""
    seeds = iter(range(1, 1000))
    weights = {
        "wte": normal((VOCABULARY, WIDTH), device, next(seeds), 0.02),
        "wpe": normal((POSITIONS, WIDTH), device, next(seeds), 0.01),
    }
    for block in range(BLOCKS):
        for site, (d_in, d_out) in SITES.items():
            weights[f"h.{block}.{site}.weight"] = normal((d_in, d_out), device, next(seeds), 0.02)
            weights[f"h.{block}.{site}.bias"] = normal((d_out,), device, next(seeds), 0.02)
    for norm in [f"h.{block}.ln_{i}" for block in range(BLOCKS) for i in (1, 2)] + ["ln_f"]:
        weights[f"{norm}.weight"] = 1.0 + normal((WIDTH,), device, next(seeds), 0.02)
        weights[f"{norm}.bias"] = normal((WIDTH,), device, next(seeds), 0.02)
    return {name: weight.to(dtype) for name, weight in weights.items()}


def dense_site(weight, bias):
    """x [rows, d_in] to x·W + b [rows, d_out]."""
    return lambda x: torch.addmm(bias, x, weight)


def linear_module(weight, bias):
    """nn.Linear, which keeps W transposed."""
    d_in, d_out = weight.shape
    linear = nn.Linear(d_in, d_out, bias=bias is not None)
    with torch.no_grad():
        linear.weight.copy_(weight.t())
        if bias is not None:
            linear.bias.copy_(bias)
    return linear.eval()


def onednn_site(weight, bias):
    cpu_only(weight.device, "torch.utils.mkldnn")
    if not torch.backends.mkldnn.is_available():
        raise LeftOut("this build of PyTorch has no oneDNN")
    from torch.utils import mkldnn

    return mkldnn.to_mkldnn(linear_module(weight, bias))


def dynamic_site(weight, bias):
    cpu_only(weight.device, "quantize_dynamic")
    try:
        from torch.ao import quantization

        scheme = {nn.Linear: quantization.per_channel_dynamic_qconfig}
        return quantization.quantize_dynamic(nn.Sequential(linear_module(weight, bias)), scheme)[0]
    except (ImportError, AttributeError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise LeftOut(f"quantize_dynamic does not work here: {reason}") from error


def int4_site(weight, bias):
    """4-bit weights in groups of 64 rows, packed for the CPU; x and y are bf16."""
    cpu_only(weight.device, "_weight_int4pack_mm_for_cpu")
    if not hasattr(torch.ops.aten, "_weight_int4pack_mm_for_cpu"):
        raise LeftOut("this build of PyTorch has no _weight_int4pack_mm_for_cpu")
    d_in, d_out = weight.shape
    grouped = weight.float().t().reshape(d_out, d_in // GROUP, GROUP)
    scale = scales(grouped, 4, (2,))
    # The operator takes 0 .. 15 and computes (q − 8)·s + z.
    levels = (grouped / scale).round_().clamp_(-7, 7).add_(8).view(d_out, d_in).to(torch.int32)
    packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(levels, 1)
    per_group = scale.squeeze(2).t()
    per_group = torch.stack([per_group, torch.zeros_like(per_group)], dim=2).bfloat16().contiguous()
    multiply = torch.ops.aten._weight_int4pack_mm_for_cpu
    if bias is None:
        return lambda x: multiply(x, packed, GROUP, per_group)
    bias = bias.bfloat16()
    return lambda x: multiply(x, packed, GROUP, per_group).add_(bias)


class Cache:
    """Keys and values of POSITIONS tokens, allocated once, `length` of them filled."""

    def __init__(self, batch, device, dtype):
        shape = (BLOCKS, batch, HEADS, POSITIONS, WIDTH // HEADS)
        self.keys = torch.zeros(shape, device=device, dtype=dtype)
        self.values = torch.zeros(shape, device=device, dtype=dtype)
        self.length = 0


class Gpt2:
    """The body of GPT-2 over any kind of matrix; activations are [batch · tokens, width]."""

    def __init__(self, weights, make_site=dense_site):
        self.weights = weights
        names = [f"h.{block}.{site}" for block in range(BLOCKS) for site in SITES]
        self.sites = {
            name: make_site(weights[f"{name}.weight"], weights[f"{name}.bias"]) for name in names
        }

    def norm(self, x, name):
        weight, bias = self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]
        return F.layer_norm(x, (WIDTH,), weight, bias, 1e-5)

    def attention(self, x, block, batch, cache):
        qkv = self.sites[f"h.{block}.attn.c_attn"](x)
        tokens = x.shape[0] // batch
        # 3 × [batch, heads, tokens, width / heads]
        q, k, v = qkv.view(batch, tokens, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
        if cache is not None:
            end = cache.length + tokens
            cache.keys[block, :, :, cache.length:end] = k
            cache.values[block, :, :, cache.length:end] = v
            k, v = cache.keys[block, :, :, :end], cache.values[block, :, :, :end]
        # One token sees all that is cached; several are causal, and start an empty cache.
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=tokens > 1)
        mixed = mixed.transpose(1, 2).reshape(batch * tokens, WIDTH)
        return self.sites[f"h.{block}.attn.c_proj"](mixed)

    def mlp(self, x, block):
        inner = F.gelu(self.sites[f"h.{block}.mlp.c_fc"](x), approximate="tanh")
        return self.sites[f"h.{block}.mlp.c_proj"](inner)

    def body(self, ids, cache=None):
        """Hidden states after ln_f, [batch, tokens, width], of ids [batch, tokens]."""
        batch, tokens = ids.shape
        first = 0 if cache is None else cache.length
        check(first == 0 or tokens == 1, "a cache that holds tokens takes one token more at a time")
        x = F.embedding(ids, self.weights["wte"]) + self.weights["wpe"][first:first + tokens]
        x = x.view(batch * tokens, WIDTH)
        for block in range(BLOCKS):
            x = x + self.attention(self.norm(x, f"h.{block}.ln_1"), block, batch, cache)
            x = x + self.mlp(self.norm(x, f"h.{block}.ln_2"), block)
        return self.norm(x, "ln_f").view(batch, tokens, WIDTH)

    def tied_head(self, hidden):
        """Logits [.., vocabulary] by the embedding."""
        return F.linear(hidden, self.weights["wte"])


def reference_body(weights, ids):
    """What Gpt2.body computes without a cache, from the formulas and in f64."""
    weights = {name: weight.double() for name, weight in weights.items()}
    batch, tokens = ids.shape

    def norm(x, name):
        x = x - x.mean(-1, keepdim=True)
        x = x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        return x * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    def product(x, name):
        return x @ weights[f"{name}.weight"] + weights[f"{name}.bias"]

    future = torch.ones(tokens, tokens, dtype=torch.bool, device=ids.device).triu(1)
    x = weights["wte"][ids] + weights["wpe"][:tokens]
    for block in (f"h.{block}" for block in range(BLOCKS)):
        qkv = product(norm(x, f"{block}.ln_1"), f"{block}.attn.c_attn").split(WIDTH, -1)
        q, k, v = (t.view(batch, tokens, HEADS, -1).transpose(1, 2) for t in qkv)
        scores = q @ k.transpose(2, 3) / math.sqrt(WIDTH // HEADS)
        mixed = scores.masked_fill(future, -math.inf).softmax(-1) @ v
        x = x + product(mixed.transpose(1, 2).flatten(2), f"{block}.attn.c_proj")
        inner = product(norm(x, f"{block}.ln_2"), f"{block}.mlp.c_fc")
        inner = inner / 2 * (1 + (math.sqrt(2 / math.pi) * (inner + 0.044715 * inner**3)).tanh())
        x = x + product(inner, f"{block}.mlp.c_proj")
    return norm(x, "ln_f")


class Kind(NamedTuple):
    """How a site is made, of weights of which type, and the relative errors against f32 allowed."""

    make_site: Callable
    dtype: torch.dtype
    model_error: float
    product_error: float


KINDS = {
    "f32": Kind(dense_site, torch.float32, 1e-5, 1e-6),
    "f32_onednn": Kind(onednn_site, torch.float32, 1e-5, 1e-6),
    "bf16": Kind(dense_site, torch.bfloat16, 0.03, 0.005),
    "w8a8_dynamic": Kind(dynamic_site, torch.float32, 0.12, 0.04),
    "w4_int4pack": Kind(int4_site, torch.bfloat16, 0.4, 0.15),
}


@functools.cache
def gpt2(kind, device):
    """The model of a kind, made once."""
    kind = KINDS[kind]
    # Whoever asks first may be in inference mode, whose tensors no training could use later.
    with torch.inference_mode(False):
        return Gpt2(gpt2_weights(device, kind.dtype), kind.make_site)


def token_ids(batch, tokens, device):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, VOCABULARY, (batch, tokens), generator=generator).to(device)
