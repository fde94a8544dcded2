"""Training of LoRA adapters over a frozen base at 4 bits per channel, with a span head.

    y = x·Q(W) + b + (alpha / rank)·(x·A)·B

A is normal with variance 1 / d_in and B zero; only they and the head are trained.
"""

import functools
import math

import torch
import torch.nn.functional as F
from torch import nn

from answer import check, relative_error
from fake_quantize import fake_quantize
from gpt2 import WIDTH, Gpt2, gpt2, normal, onednn_site, token_ids

BATCH, TOKENS = 4, 256
RANK, ALPHA = 8, 16.0


class FrozenOnce:
    """x·Q(W) + b, W quantised at construction and held in `dtype`."""

    def __init__(self, weight, bias, dtype=torch.float32):
        self.weight = fake_quantize(weight, 4, (0,)).to(dtype)
        self.bias = bias.to(dtype)

    def quantised(self):
        return self.weight

    def __call__(self, x):
        return torch.addmm(self.bias, x, self.weight)


class FrozenEveryStep:
    """x·Q(W) + b, W quantised at each call.

    No gradient goes to a frozen W, so the straight-through estimator has nothing to do.
    """

    def __init__(self, weight, bias):
        self.weight, self.bias = weight, bias

    def quantised(self):
        return fake_quantize(self.weight, 4, (0,))

    def __call__(self, x):
        return torch.addmm(self.bias, x, self.quantised())


class OneDnnProduct(torch.autograd.Function):
    """A product whose two passes are modules of torch.utils.mkldnn, which have no backward."""

    @staticmethod
    def forward(ctx, x, site, transposed):
        ctx.transposed = transposed
        return site(x)

    @staticmethod
    def backward(ctx, gradient):
        return ctx.transposed(gradient.contiguous()), None, None


class FrozenOneDnn(FrozenOnce):
    """x·Q(W) + b by oneDNN, W quantised and packed at construction for both passes."""

    def __init__(self, weight, bias):
        super().__init__(weight, bias)
        self.site = onednn_site(self.weight, bias)
        self.transposed = onednn_site(self.weight.t(), None)

    def __call__(self, x):
        return OneDnnProduct.apply(x, self.site, self.transposed)


class LoraSite(nn.Module):
    """A frozen product and its adapter."""

    def __init__(self, frozen, d_in, d_out, device, seed):
        super().__init__()
        self.frozen = frozen
        self.a = nn.Parameter(normal((d_in, RANK), device, seed, d_in**-0.5))
        self.b = nn.Parameter(torch.zeros(RANK, d_out, device=device))

    def forward(self, x):
        return torch.addmm(self.frozen(x), x @ self.a, self.b, alpha=ALPHA / RANK)


# How the frozen product of a training is made. Autocast would cast a frozen weight at each step;
# held in bf16 it is cast once.
BASES = {
    "q4": FrozenOnce,
    "q4_every_step": FrozenEveryStep,
    "q4_onednn": FrozenOneDnn,
    "q4_bf16": functools.partial(FrozenOnce, dtype=torch.bfloat16),
}


class Training:
    """Forward, backward and AdamW step of the adapters and a span head on one batch."""

    def __init__(self, base, autocast, device):
        seeds = iter(range(2000, 3000))

        def make_site(weight, bias):
            return LoraSite(BASES[base](weight, bias), *weight.shape, device, next(seeds))

        self.model = Gpt2(gpt2("f32", device).weights, make_site)
        self.head = nn.Linear(WIDTH, 2, device=device)
        with torch.no_grad():
            self.head.weight.copy_(normal((2, WIDTH), device, next(seeds), 0.02))
            self.head.bias.zero_()
        parameters = [p for site in self.model.sites.values() for p in site.parameters()]
        parameters += self.head.parameters()
        self.optimizer = torch.optim.AdamW(parameters, lr=1e-4, fused=True)
        self.autocast = torch.autocast(device.type, torch.bfloat16, enabled=autocast)
        self.ids = token_ids(BATCH, TOKENS, device)
        self.starts = torch.arange(BATCH, device=device) * 7 + 3
        self.ends = self.starts + 5

    def loss(self):
        with self.autocast:
            logits = self.head(self.model.body(self.ids)).float()  # [batch, tokens, 2]
        start, end = logits.unbind(-1)
        return (F.cross_entropy(start, self.starts) + F.cross_entropy(end, self.ends)) * 0.5

    def step(self):
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.loss()
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def check(self, tolerance):
        """The loss falls, and the body equals one with Q(W) + (alpha / rank)·A·B as its weights."""
        losses = [float(self.step()) for _ in range(3)]
        check(all(map(math.isfinite, losses)) and losses[2] < losses[0], f"losses {losses}")
        gradients = [p.grad for site in self.model.sites.values() for p in site.parameters()]
        check(all(g is not None and bool(g.any()) for g in gradients),
              "an adapter has no gradient")
        with torch.inference_mode(), self.autocast:
            hidden = self.model.body(self.ids)
        with torch.inference_mode():
            merged = dict(self.model.weights)
            for name, site in self.model.sites.items():
                adapter = ALPHA / RANK * site.a @ site.b
                merged[f"{name}.weight"] = site.frozen.quantised().float() + adapter
            error = relative_error(hidden, Gpt2(merged).body(self.ids))
        check(error <= tolerance, f"relative error {error} against merged weights")
