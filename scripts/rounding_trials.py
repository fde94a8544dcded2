#!/usr/bin/env python3
"""Tries learned rounding, GPTQ on inputs that are themselves quantised, and rotations, apart from the crates.

    rounding_trials.py --model FOLDER --calibration FILE --data FILE [--limit N] [--device cuda]

FOLDER is that of a GPT-2 with a span head, in floats or as `store_int8.py` writes it. Weights only:

    nearest      round to nearest
    gptq         GPTQ (arXiv:2210.17323) on the moments of full-precision inputs, as the crates have it
    gptq-seq     the same, each block on inputs that the quantised blocks before it give
    signround    rounding offsets and scales learned by the sign of their gradient, block by block, on the block's
                 outputs (arXiv:2309.05516)

each with the same ranges: a clip of the largest weight that minimises the squared error. Then W4A4, activations per token,
and 4-bit keys per token and head, without and with a Hadamard rotation (arXiv:2404.00456). Every row is exact match and F1 on
the questions of --data, beside the change against full precision with a bootstrap interval over paragraphs.
"""

import argparse
import itertools
import json
import os

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from tokenizers import Tokenizer

import train_reader as reader

SITES = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")


def weights_of(folder):
    stored = load_file(os.path.join(folder, "model.safetensors"))
    scales = {name: value for name, value in stored.items() if name.endswith(".scale") and name[:-6] in stored}
    for name, value in stored.items():
        if name not in scales:
            yield name, value.float() * scales[name + ".scale"][:, None] if name + ".scale" in scales else value.float()


class Trial(reader.Reader):
    """A reader whose matrices can be replaced, and whose inputs can be seen, rotated and rounded."""

    def __init__(self, config, weights):
        super().__init__(config, weights)
        self.replaced, self.seen, self.rotations = {}, None, {}
        self.activation_bits = self.key_bits = None
        self.rotate_activations = self.rotate_keys = False

    def matrix(self, name):
        found = self.replaced.get(name)
        return self.of(name + ".weight") if found is None else found

    def linear(self, x, name):
        if self.seen is not None:
            self.seen(name, x)
        weight = self.matrix(name)
        if self.activation_bits:
            if self.rotate_activations:
                x = x @ self.rotation(x.shape[-1])
            x = nearest(x, x.abs().amax(-1, keepdim=True), self.activation_bits)
            if self.rotate_activations:
                x = x @ self.rotation(x.shape[-1]).t()
        y = x @ weight + self.of(name + ".bias")
        if self.key_bits and name.endswith("c_attn"):
            q, k, v = y.split(self.width, -1)
            k = k.unflatten(-1, (self.heads, -1))
            if self.rotate_keys:
                k = k @ self.rotation(k.shape[-1])
            k = nearest(k, k.abs().amax(-1, keepdim=True), self.key_bits)
            if self.rotate_keys:
                k = k @ self.rotation(k.shape[-1]).t()
            y = torch.cat([q, k.flatten(-2), v], -1)
        return y

    def rotation(self, size):
        if size not in self.rotations:
            signs = torch.from_numpy(np.random.default_rng(size).choice([-1.0, 1.0], size)).float()
            self.rotations[size] = (signs[:, None] * hadamard(size)).to(self.of("transformer.wte.weight").device)
        return self.rotations[size]

    def block(self, x, number):
        """The output of one block."""
        rows, length, _ = x.shape
        name = f"transformer.h.{number}."
        qkv = self.linear(self.normalised(x, name + "ln_1"), name + "attn.c_attn")
        q, k, v = qkv.view(rows, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.linear(mixed.transpose(1, 2).reshape(rows, length, self.width), name + "attn.c_proj")
        inner = F.gelu(self.linear(self.normalised(x, name + "ln_2"), name + "mlp.c_fc"), approximate="tanh")
        return x + self.linear(inner, name + "mlp.c_proj")


def hadamard(size):
    """Orthonormal, of order 2^k or 12 * 2^k."""
    two = torch.tensor([[1.0, 1.0], [1.0, -1.0]])
    matrix = torch.ones(1, 1)
    if size % 3 == 0:
        # Paley's construction over the field of 11 elements.
        squares = {i * i % 11 for i in range(1, 11)}
        q = torch.tensor([[0.0 if i == j else 1.0 if (i - j) % 11 in squares else -1.0 for j in range(11)] for i in range(11)])
        s = torch.zeros(12, 12)
        s[0, 1:], s[1:, 0], s[1:, 1:] = 1, -1, q
        matrix, size = torch.eye(12) + s, size // 12
    while size > 1:
        matrix, size = torch.kron(matrix, two), size // 2
    assert size == 1 and torch.allclose(matrix @ matrix.t(), len(matrix) * torch.eye(len(matrix)))
    return matrix / len(matrix) ** 0.5


def nearest(x, largest, bits):
    """Symmetric codes of a range given by its largest value."""
    levels = 2 ** (bits - 1) - 1
    return on_grid(x, (largest.clamp_min(1e-12) / levels, float(levels), 2 * levels))


def on_grid(x, grid, turn=torch.round):
    """(clamp(round(x / s) + z, 0, top) - z) * s"""
    scale, zero, top = grid
    return ((turn(x / scale) + zero).clamp(0, top) - zero) * scale


def ranges(weight, bits, group, mapping):
    """The grid of each output and group of inputs, its range clipped where that lessens the squared error."""
    rows, columns = weight.shape
    parts = weight.view(-1, group or rows, columns)
    low, high = (parts.amin(1, keepdim=True).clamp_max(0), parts.amax(1, keepdim=True).clamp_min(0))
    if mapping == "symmetric":
        levels = 2 ** (bits - 1) - 1
        high = torch.maximum(high, -low)
        low, top = -high, 2 * levels
    else:
        top = 2**bits - 1
    best, least = None, torch.full_like(low, float("inf"))
    for clip in torch.linspace(1.0, 0.3, 36):
        scale = ((high - low) * clip / top).clamp_min(1e-12)
        zero = (-low * clip / scale).round()
        error = (on_grid(parts, (scale, zero, top)) - parts).square().sum(1, keepdim=True)
        best = (scale, zero) if best is None else tuple(torch.where(error < least, a, b) for a, b in zip((scale, zero), best))
        least = torch.minimum(error, least)
    return (*(part.expand_as(parts).reshape(rows, columns) for part in best), top)


def gptq(weight, moments, grid):
    """Columns of inputs in order of their second moments, each one's error passed on to those behind it."""
    moments = moments.double()
    moments += torch.eye(len(moments), device=moments.device) * 0.01 * moments.diagonal().mean()
    order = moments.diagonal().argsort(descending=True)
    inverse = torch.linalg.inv(moments[order][:, order])
    upper = torch.linalg.cholesky(inverse, upper=True)
    left, (scale, zero, top) = weight.double()[order].clone(), grid
    scale, zero = scale.double()[order], zero.double()[order]
    rounded = torch.empty_like(left)
    for row in range(len(left)):
        rounded[row] = on_grid(left[row], (scale[row], zero[row], top))
        error = (left[row] - rounded[row]) / upper[row, row]
        left[row + 1 :] -= upper[row, row + 1 :, None] * error
    return rounded[order.argsort()].float()


class Straight(torch.autograd.Function):
    """Rounds, and lets the gradient pass."""

    @staticmethod
    def forward(_, x):
        return x.round()

    @staticmethod
    def backward(_, gradient):
        return gradient


def learned(model, number, grid_of, group, inputs, targets, steps=200):
    """SignRound of the matrices of a block."""
    offsets, sizes, fixed = {}, {}, {}
    for site in SITES:
        name = f"transformer.h.{number}.{site}"
        weight = model.of(name + ".weight").detach()
        fixed[name] = (weight, grid_of(weight))
        offsets[name] = torch.zeros_like(weight, requires_grad=True)
        parts = len(weight) // (group or len(weight))
        sizes[name] = torch.ones(parts, 1, weight.shape[1], device=weight.device, requires_grad=True)

    def matrices():
        for name, (weight, (scale, zero, top)) in fixed.items():
            shaped = sizes[name].expand(-1, len(weight) // len(sizes[name]), -1).reshape(weight.shape)
            turn = lambda x: Straight.apply(x + offsets[name])
            yield name, on_grid(weight, (scale * shaped, zero, top), turn)

    random, best, least = torch.Generator().manual_seed(number), None, float("inf")
    for step in range(steps):
        some = torch.randperm(len(inputs), generator=random)[:16].to(inputs.device)
        model.replaced.update(matrices())
        loss = (model.block(inputs[some], number) - targets[some]).square().mean()
        if step % 20 == 0:
            with torch.no_grad():
                model.replaced.update(matrices())
                whole = sum((model.block(a, number) - b).square().mean() for a, b in zip(inputs.split(16), targets.split(16)))
            if whole < least:
                least, best = whole.item(), {name: matrix.detach() for name, matrix in matrices()}
        loss.backward()
        with torch.no_grad():
            rate = (1 - step / steps) / 200
            for name in fixed:
                offsets[name].sub_(rate * 2 * offsets[name].grad.sign()).clamp_(-0.5, 0.5)
                sizes[name].sub_(rate * sizes[name].grad.sign()).clamp_(0.5, 1.5)
                offsets[name].grad = sizes[name].grad = None
    model.replaced.update(best)


@torch.no_grad()
def calibrated(model, ids, mask):
    """Second moments of the inputs of every site, padding left out."""
    moments = {}

    def seen(name, x):
        x = x[mask_now].double()
        moments[name] = moments.get(name, 0) + x.t() @ x

    model.seen = seen
    for some, mask_now in zip(ids.split(16), mask.split(16)):
        model(some)
    model.seen = None
    return moments


def answers(model, held_out, pad, device):
    """Exact match and F1 of each question."""
    windows, questions, contexts, begins, ends = held_out
    rows, best = [], {}
    order = sorted(windows, key=lambda window: len(window.ids))
    with torch.no_grad():
        for at in range(0, len(order), 64):
            batch = order[at : at + 64]
            ids, spans = reader.tensors(batch, pad, device)
            start, end = model.span_scores(model(ids), spans)
            for window, found in zip(batch, reader.best_spans(start, end, spans)):
                score, first, last = found
                if score > best.get(window.question, (-1e30,))[0]:
                    shift = window.first - window.context_start
                    best[window.question] = (score, first + shift, last + shift)
    for number, (_, _, context, gold) in enumerate(questions):
        _, first, last = best[number]
        text = contexts[context][begins[context][first] : ends[context][last]]
        exact = any(reader.normalised_answer(text) == reader.normalised_answer(g) for _, _, g in gold)
        rows.append((float(exact), max(reader.f1(text, g) for _, _, g in gold), context))
    return np.array(rows)


def interval(rows, reference, seed=0):
    """95 % of the change of exact match, paragraphs drawn again."""
    difference, groups = 100 * (rows[:, 0] - reference[:, 0]), rows[:, 2].astype(int)
    sums, counts = np.bincount(groups, difference), np.bincount(groups)
    sums, counts = sums[counts > 0], counts[counts > 0]
    random = np.random.default_rng(seed)
    drawn = random.integers(len(sums), size=(4000, len(sums)))
    return np.percentile(sums[drawn].sum(1) / counts[drawn].sum(1), [2.5, 97.5])


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--calibration", required=True, help="SQuAD file; its first windows")
    parser.add_argument("--windows", type=int, default=128)
    parser.add_argument("--data", required=True, help="SQuAD file to measure on")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--bits", default="3,2")
    parser.add_argument("--groups", default="0,32", help="inputs of a group; 0: one scale per output")
    parser.add_argument("--mappings", default="symmetric,asymmetric")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", default="rounding_trials.json")
    options = parser.parse_args()
    device = torch.device(options.device)
    tokenizer = Tokenizer.from_file(os.path.join(options.model, "tokenizer.json"))
    pad, separator = (tokenizer.token_to_id(token) for token in ("<pad>", "<sep>"))
    with open(os.path.join(options.model, "config.json")) as file:
        config = json.load(file)
    layout = (tokenizer, separator, config["n_positions"], config.get("context_reads", 1))
    model = Trial(config, dict(weights_of(options.model))).to(device).eval()
    held_out = reader.windows_of([options.data], *layout, False, options.limit)
    first = set(range(options.limit or len(held_out[1])))
    held_out = ([w for w in held_out[0] if w.question in first], *held_out[1:])
    windows = reader.windows_of([options.calibration], *layout, True)[0]
    random = np.random.default_rng(0)
    windows = [windows[index] for index in random.permutation(len(windows))[: options.windows]]
    ids, spans = reader.tensors(windows, pad, device)
    mask = torch.arange(ids.shape[1], device=device) < spans[:, 1:2]
    full, results = answers(model, held_out, pad, device), []

    def tell(name):
        rows = answers(model, held_out, pad, device)
        low, high = interval(rows, full)
        exact, overlap = 100 * rows[:, 0].mean(), 100 * rows[:, 1].mean()
        change = exact - 100 * full[:, 0].mean()
        results.append({"row": name, "exact_match": exact, "f1": overlap, "change": change, "interval": [low, high]})
        print(f"{name:50} EM {exact:5.1f}  F1 {overlap:5.1f}  {change:+5.1f} [{low:+.1f}, {high:+.1f}]", flush=True)

    tell("full precision")
    moments = calibrated(model, ids, mask)
    names = [f"transformer.h.{block}.{site}" for block in range(model.blocks) for site in SITES]
    with torch.no_grad():
        embedded = model.of("transformer.wte.weight")[ids] + model.of("transformer.wpe.weight")[: ids.shape[1]]
        states = [embedded]
        for block in range(model.blocks):
            states.append(torch.cat([model.block(part, block) for part in states[-1].split(16)]))
    def weight(name):
        return model.of(name + ".weight").detach()

    rows = itertools.product(*(kind.split(",") for kind in (options.bits, options.groups, options.mappings)))
    for bits, group, mapping in rows:
        bits, group = int(bits), int(group)
        what = f"{bits} bits, " + (f"groups of {group}" if group else "per channel") + f", {mapping}"

        def grid_of(matrix):
            return ranges(matrix, bits, group, mapping)

        with torch.no_grad():
            model.replaced = {n: on_grid(weight(n), grid_of(weight(n))) for n in names}
            tell(f"{what}: nearest")
            model.replaced = {n: gptq(weight(n), moments[n], grid_of(weight(n))) for n in names}
            tell(f"{what}: gptq")
            model.replaced = {}
            for block in range(model.blocks):
                here = calibrated(model, ids, mask)
                for site in SITES:
                    name = f"transformer.h.{block}.{site}"
                    model.replaced[name] = gptq(weight(name), here[name], grid_of(weight(name)))
            tell(f"{what}: gptq-seq")
        model.replaced, state = {}, embedded
        for block in range(model.blocks):
            learned(model, block, grid_of, group, state.detach(), states[block + 1].detach())
            with torch.no_grad():
                state = torch.cat([model.block(part, block) for part in state.split(16)])
        tell(f"{what}: signround")
    with torch.no_grad():
        for bits in (4, 3):
            plain = {n: on_grid(weight(n), ranges(weight(n), 4, 0, "symmetric")) for n in names}
            turned = {}
            for n in names:
                r = model.rotation(len(weight(n)))
                turned[n] = r @ on_grid(r.t() @ weight(n), ranges(r.t() @ weight(n), 4, 0, "symmetric"))
            model.activation_bits = bits
            model.replaced, model.rotate_activations = plain, False
            tell(f"weights 4, activations {bits} bits per token")
            model.replaced, model.rotate_activations = turned, True
            tell(f"weights 4, activations {bits} bits, rotated")
            model.activation_bits, model.rotate_activations, model.replaced = None, False, {}
        for bits in (4, 3, 2):
            model.key_bits, model.rotate_keys = bits, False
            tell(f"keys {bits} bits per token and head")
            model.rotate_keys = True
            tell(f"keys {bits} bits, rotated")
    with open(options.out, "w") as file:
        json.dump({"options": vars(options), "rows": results}, file, indent=2)


if __name__ == "__main__":
    main()
