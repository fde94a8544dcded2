#!/usr/bin/env python3
"""The work of the Rust benches in PyTorch, eager mode, with the same shapes and ids.

    python3 -m venv venv && venv/bin/pip install -r benches/peers/requirements.txt
    venv/bin/python benches/peers/pytorch.py --list
    venv/bin/python benches/peers/pytorch.py --only gpt2_forward --json pytorch.json

It prints `id  median_ms  min_ms  throughput unit`, one line per id `group/case/params`. Each case
checks its answer once before it is timed. With `--serve` it reads an id per line on stdin, runs a
batch of that case (built, checked and warmed up at the first request, then kept) and answers
`id seconds_per_iteration`, the median of the batch, or `id unknown`; compare.py drives that.

The model is GPT-2 small with random weights (gpt2.py), trained as in lora_training.py. What an id
says beyond the Rust benches is how PyTorch computes:

    f32                torch.addmm; on x86 this is MKL
    f32_onednn         the same in f32 by oneDNN (torch.utils.mkldnn), on some processors the faster
    bf16               weights and activations in bf16
    w8a8_dynamic       torch.ao.quantization.quantize_dynamic on nn.Linear: qint8 weights per
                       channel, activations quantised at each call
    w4_int4pack        4-bit weights in groups of 64, bf16 activations: the operator of torchao
    …/given_scales     one operator of PyTorch that is given the scales
    decode/…_body      without the head
    decode/…_head8     with a head at 8 bits
    q4_every_step      weights fake-quantised at each forward; q4 quantises the frozen base once
    train_step/…/bf16  under autocast
"""

import argparse
import functools
import json
import math
import platform
import statistics
import sys
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

import torch

from answer import LeftOut, check, relative_error
from arguments import positive
from fake_quantize import check_levels, fake_quantize, highest_level, scales
from gpt2 import (
    GROUP,
    INNER,
    KINDS,
    VOCABULARY,
    WIDTH,
    Cache,
    dense_site,
    dynamic_site,
    gpt2,
    normal,
    reference_body,
    token_ids,
)
from lora_training import BATCH, RANK, TOKENS, Training


# What torch.utils.mkldnn and quantize_dynamic say about their successors.
warnings.filterwarnings("ignore", message="`torch.jit.*deprecated|torch.quantize_per_tensor")

CACHED = 128  # tokens in the cache of decode
MATMUL_ROWS = (1, 16, 256, 1024)
MATMUL_SHAPES = ((768, 768), (768, 2304), (768, 3072), (3072, 768))


@dataclass
class Case:
    """Work that `run` does once; `check` judges its answer; `amount` per run in `unit`."""

    run: Callable
    check: Callable
    amount: float
    unit: str


def fake_quantize_case(device, bits, shape, dims, given_scales=False):
    """x of `shape`, one scale for what lies along `dims`."""
    x = normal(shape, device, 1, 0.02)
    high = highest_level(bits)
    if not given_scales:
        def run():
            return fake_quantize(x, bits, dims)
    elif len(dims) == x.dim():
        scale = float(scales(x, bits, dims))

        def run():
            return torch.fake_quantize_per_tensor_affine(x, scale, 0, -high, high)
    else:
        scale = scales(x, bits, dims).flatten()
        zero = torch.zeros(scale.shape, device=device, dtype=torch.int32)
        (axis,) = set(range(x.dim())) - set(dims)

        def run():
            return torch.fake_quantize_per_channel_affine(x, scale, zero, axis, -high, high)

    def judge(y):
        check_levels(x, y, bits, dims)

    return Case(inference(run), judge, x.numel() / 1e6, "Mvalue/s")


def inference(run):
    return torch.inference_mode()(run)


def forward_case(device, kind):
    model, ids = gpt2(kind, device), token_ids(BATCH, TOKENS, device)

    def judge(hidden):
        check(hidden.shape == (BATCH, TOKENS, WIDTH), f"shape {tuple(hidden.shape)}")
        check(bool(hidden.isfinite().all()), "not finite")
        with torch.inference_mode():
            if kind == "f32":
                expected = reference_body(model.weights, ids)
            else:
                expected = gpt2("f32", device).body(ids)
        error = relative_error(hidden, expected)
        check(error <= KINDS[kind].model_error, f"relative error {error} against f32")

    return Case(inference(lambda: model.body(ids)), judge, BATCH * TOKENS, "token/s")


@functools.cache
def head_w8a8(device):
    """The tied head as a matrix of its own at 8 bits."""
    return dynamic_site(gpt2("f32", device).weights["wte"].t(), None)


def decode_case(device, kind, head):
    model, dtype = gpt2(kind, device), KINDS[kind].dtype
    ids = token_ids(1, CACHED + 1, device)
    cache = Cache(1, device, dtype)
    project = {"tied": model.tied_head, "none": lambda hidden: hidden, "w8a8": None}[head]
    project = project or head_w8a8(device)
    with torch.inference_mode():
        model.body(ids[:, :CACHED], cache)
    cache.length = CACHED
    last = ids[:, CACHED:]

    def run():
        # The length stays: each run writes the same position again.
        return project(model.body(last, cache)[:, 0])

    def judge(out):
        expected_shape = (1, WIDTH if head == "none" else VOCABULARY)
        check(out.shape == expected_shape, f"shape {tuple(out.shape)}")
        with torch.inference_mode():
            uncached = project(model.body(ids)[:, -1])
            expected = gpt2("f32", device).body(ids)[:, -1]
            if head != "none":
                expected = gpt2("f32", device).tied_head(expected)
        if dtype == torch.float32 and kind != "w8a8_dynamic":
            largest = float((out - uncached).abs().max())
            check(largest <= 1e-4, f"cached and uncached differ by {largest}")
        error = relative_error(out, expected)
        check(error <= KINDS[kind].model_error, f"relative error {error} against f32")

    return Case(inference(run), judge, 1, "token/s")


def train_case(device, base, autocast):
    training = Training(base, autocast, device)

    def judge(loss):
        check(math.isfinite(float(loss)), f"loss {loss}")
        training.check(0.05 if autocast else 1e-4)

    return Case(training.step, judge, BATCH * TOKENS, "token/s")


def matmul_case(device, kind, rows, d_in, d_out):
    make_site, dtype, _, tolerance = KINDS[kind]
    x, weight = normal((rows, d_in), device, 1), normal((d_in, d_out), device, 2, 0.02)
    expected = (x.double() @ weight.double()).float()
    x = x.to(dtype)
    if make_site is dense_site:
        weight = weight.to(dtype)
        run = functools.partial(torch.matmul, x, weight)
    else:
        run = functools.partial(make_site(weight, None), x)

    def judge(y):
        check(y.shape == (rows, d_out), f"shape {tuple(y.shape)}")
        error = relative_error(y, expected)
        check(error <= tolerance, f"relative error {error} against f32")

    return Case(inference(run), judge, 2e-9 * rows * d_in * d_out, "GFLOP/s")


def catalogue():
    """{id: function of the device that builds the case}, in the order of printing."""
    cases = {}

    def add(name, build, *arguments):
        cases[name] = lambda device: build(device, *arguments)

    for name, bits, shape, dims in [
        (f"per_tensor/q4/{INNER}x{WIDTH}", 4, (INNER, WIDTH), (0, 1)),
        (f"per_channel/q4/{INNER}x{WIDTH}", 4, (INNER, WIDTH), (0,)),
        (f"per_group:{GROUP}/q4/{INNER}x{WIDTH}", 4, (INNER // GROUP, GROUP, WIDTH), (1,)),
        (f"per_token/q8/{BATCH * TOKENS}x{WIDTH}", 8, (BATCH * TOKENS, WIDTH), (1,)),
    ]:
        add(f"fake_quantize/{name}", fake_quantize_case, bits, shape, dims)
        if len(shape) == 2:  # PyTorch has no operator for a scale per group
            add(f"fake_quantize/{name}/given_scales", fake_quantize_case, bits, shape, dims, True)

    for kind in KINDS:
        add(f"gpt2_forward/{kind}/{BATCH}x{TOKENS}", forward_case, kind)

    for kind in KINDS:
        add(f"decode/{kind}/1x{CACHED}", decode_case, kind, "tied")
        add(f"decode/{kind}_body/1x{CACHED}", decode_case, kind, "none")
    add(f"decode/w8a8_dynamic_head8/1x{CACHED}", decode_case, "w8a8_dynamic", "w8a8")

    for name, base, autocast in [
        ("q4", "q4", False),
        ("q4_onednn", "q4_onednn", False),
        ("q4_every_step", "q4_every_step", False),
        ("q4", "q4_bf16", True),
        ("q4_every_step", "q4_every_step", True),
    ]:
        name = f"train_step/rank{RANK}/{name}/{BATCH}x{TOKENS}" + ("/bf16" if autocast else "")
        add(name, train_case, base, autocast)

    for kind in KINDS:
        for d_in, d_out in MATMUL_SHAPES:
            for rows in MATMUL_ROWS:
                name = f"packed_matmul/{kind}/{rows}x{d_in}x{d_out}"
                add(name, matmul_case, kind, rows, d_in, d_out)
    return cases


def seconds_of(case, device):
    """Seconds of one run, the device synchronised inside."""
    begin = time.perf_counter()
    case.run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - begin


def batch_of(case, device, repetitions, seconds):
    """At least `repetitions` runs, and more until `seconds` have passed."""
    times, end = [], time.perf_counter() + seconds
    while len(times) < repetitions or time.perf_counter() < end:
        times.append(seconds_of(case, device))
    return times


def built(build, device, seconds):
    """The case, its answer checked, warm."""
    case = build(device)
    case.check(case.run())
    batch_of(case, device, 2, seconds / 4)
    return case


def serve(cases, device, repetitions, seconds):
    """Answer each id on stdin with the median seconds of a batch; cases stay in memory."""
    warm = {}
    for line in sys.stdin:
        name = line.strip()
        if not name:
            continue
        if name in cases and name not in warm:
            try:
                warm[name] = built(cases[name], device, seconds)
            except LeftOut as reason:
                print(f"{name} left out: {reason}", file=sys.stderr, flush=True)
                warm[name] = None
        if warm.get(name) is None:
            print(f"{name} unknown", flush=True)
            continue
        # One run that does not count: the caches belonged to another process meanwhile.
        seconds_of(warm[name], device)
        times = batch_of(warm[name], device, repetitions, seconds)
        print(f"{name} {statistics.median(times):.9f}", flush=True)


def cpu_model():
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def machine(device, threads):
    on_cuda = device.type == "cuda"
    return {
        "cpu": cpu_model(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": threads,
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name(device) if on_cuda else "cpu",
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
    }


def measure(cases, device, arguments):
    """Print one line per case; {id: figures} out."""
    results = {}
    for name, build in cases.items():
        try:
            case = built(build, device, arguments.seconds)
        except LeftOut as reason:
            print(f"{name}  left out: {reason}", flush=True)
            continue
        times = batch_of(case, device, arguments.repetitions, arguments.seconds)
        median, least = statistics.median(times), min(times)
        results[name] = {"median_s": median, "min_s": least, "repetitions": len(times)}
        throughput = f"{case.amount / median:.1f} {case.unit}"
        print(f"{name}  {1e3 * median:.4f}  {1e3 * least:.4f}  {throughput}", flush=True)
    return results


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=positive(int), default=2, help="CPU threads (default 2)")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--only", action="append", default=[], metavar="SUBSTRING",
                        help="only ids that contain this; repeatable")
    parser.add_argument("--repetitions", type=positive(int), default=10, metavar="N",
                        help="runs of a case at least (default 10)")
    parser.add_argument("--seconds", type=positive(float), default=2.0,
                        help="runs go on until this time has passed (default 2)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to this file")
    parser.add_argument("--list", action="store_true", help="print the ids and stop")
    parser.add_argument("--serve", action="store_true", help="answer ids on stdin, see above")
    arguments = parser.parse_args()

    cases = {
        name: build for name, build in catalogue().items()
        if not arguments.only or any(part in name for part in arguments.only)
    }
    if not cases:
        parser.error(f"no id contains any of {arguments.only}")
    if arguments.list:
        print("\n".join(cases))
        return
    if arguments.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: PyTorch sees no CUDA device")
    torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)

    if arguments.serve:
        serve(cases, device, arguments.repetitions, arguments.seconds)
        return
    results = measure(cases, device, arguments)
    if arguments.json:
        report = {"machine": machine(device, arguments.threads), "results": results}
        partial = arguments.json.with_name(arguments.json.name + ".tmp")
        partial.write_text(json.dumps(report, indent=2) + "\n")
        partial.replace(arguments.json)


if __name__ == "__main__":
    main()
