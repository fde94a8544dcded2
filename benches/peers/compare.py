#!/usr/bin/env python3
"""Measure Rust benches and their peers in PyTorch and llama.cpp in turns, and print a Markdown table.

    python3 benches/peers/compare.py --rust PROGRAM --python venv/bin/python --llama venv-llama/bin/python

PROGRAM is started as `PROGRAM --serve`, arguments of its own may stand in the same string;
`venv/bin/python` runs pytorch.py beside this file and `venv-llama/bin/python` llama.py, without `--llama` nobody
does. All speak one protocol: an id per line on stdin, answered on stdout by

    id seconds          of one iteration: the median of a batch, the program warm
    id unknown          it has no such case

All programs live through the whole comparison. A round asks ours and then each of its peers, one
after the other, so that a machine that grows slower does so for all, and a program that is not
asked waits for its stdin and does nothing. A first round builds and warms each case and does not count.
The ratio is peer / ours in one round, so above 1 ours is the faster; printed are the median of the
rounds' ratios, the least and the greatest.
"""

import argparse
import json
import os
import platform
import shlex
import statistics
import subprocess
import sys
from pathlib import Path

from arguments import positive

# Ours, then what it is compared with. {shape} stands for each of MATMULS.
PAIRS = [
    ("fake_quantize/per_tensor/q4/3072x768", [
        "fake_quantize/per_tensor/q4/3072x768",
        "fake_quantize/per_tensor/q4/3072x768/given_scales",
    ]),
    ("fake_quantize/per_channel/q4/3072x768", [
        "fake_quantize/per_channel/q4/3072x768",
        "fake_quantize/per_channel/q4/3072x768/given_scales",
    ]),
    ("fake_quantize/per_group:64/q4/3072x768", [
        "fake_quantize/per_group:64/q4/3072x768",
    ]),
    ("fake_quantize/per_token/q8/1024x768", [
        "fake_quantize/per_token/q8/1024x768",
        "fake_quantize/per_token/q8/1024x768/given_scales",
    ]),
    ("gpt2_forward/f32/4x256", [
        "gpt2_forward/f32/4x256",
        "gpt2_forward/f32_onednn/4x256",
        "gpt2_forward/bf16/4x256",
        "llama.cpp/gpt2_forward/f32/4x256",
    ]),
    ("gpt2_forward/bf16/4x256", [
        "gpt2_forward/bf16/4x256",
    ]),
    ("gpt2_forward/w4_bf16/4x256", [
        "gpt2_forward/bf16/4x256",
        "gpt2_forward/w4_int4pack/4x256",
    ]),
    ("gpt2_forward/w8a8/4x256", [
        "gpt2_forward/f32/4x256",
        "gpt2_forward/f32_onednn/4x256",
        "gpt2_forward/bf16/4x256",
        "gpt2_forward/w8a8_dynamic/4x256",
        "llama.cpp/gpt2_forward/q8_0/4x256",
    ]),
    ("gpt2_forward/w4a8/4x256", [
        "gpt2_forward/f32/4x256",
        "gpt2_forward/f32_onednn/4x256",
        "gpt2_forward/bf16/4x256",
        "gpt2_forward/w8a8_dynamic/4x256",
        "llama.cpp/gpt2_forward/q4_0/4x256",
    ]),
    ("gpt2_forward/w4/4x256", [
        "gpt2_forward/f32/4x256",
        "gpt2_forward/f32_onednn/4x256",
        "gpt2_forward/bf16/4x256",
        "gpt2_forward/w4_int4pack/4x256",
        "llama.cpp/gpt2_forward/q4_0/4x256",
    ]),
    ("decode/f32/1x128", [
        "decode/f32/1x128",
        "decode/bf16/1x128",
        "llama.cpp/decode/f32/1x128",
    ]),
    ("decode/q4/1x128", [
        "decode/f32/1x128",
        "decode/bf16/1x128",
        "decode/w4_int4pack/1x128",
    ]),
    ("decode/q4_head8/1x128", [
        "decode/f32/1x128",
        "decode/bf16/1x128",
        "decode/w8a8_dynamic_head8/1x128",
        "decode/w4_int4pack/1x128",
        "llama.cpp/decode/q4_0/1x128",
    ]),
    ("decode/q4a8_head8/1x128", [
        "decode/w8a8_dynamic_head8/1x128",
        "decode/w4_int4pack/1x128",
        "llama.cpp/decode/q4_0/1x128",
    ]),
    ("decode/q8a8_head8/1x128", [
        "decode/w8a8_dynamic_head8/1x128",
        "llama.cpp/decode/q8_0/1x128",
    ]),
    ("train_step/rank8/q4/4x256", [
        "train_step/rank8/q4/4x256",
        "train_step/rank8/q4_onednn/4x256",
        "train_step/rank8/q4_every_step/4x256",
        "train_step/rank8/q4/4x256/bf16",
    ]),
    ("train_step/rank8/q4_bf16/4x256", [
        "train_step/rank8/q4/4x256/bf16",
    ]),
    ("packed_matmul/bf16/{shape}", [
        "packed_matmul/bf16/{shape}",
    ]),
    ("packed_matmul/q4_bf16/{shape}", [
        "packed_matmul/bf16/{shape}",
        "packed_matmul/w4_int4pack/{shape}",
    ]),
    ("packed_matmul/q8a8/{shape}", [
        "packed_matmul/f32/{shape}",
        "packed_matmul/f32_onednn/{shape}",
        "packed_matmul/bf16/{shape}",
        "packed_matmul/w8a8_dynamic/{shape}",
    ]),
    ("packed_matmul/q4a8/{shape}", [
        "packed_matmul/f32/{shape}",
        "packed_matmul/f32_onednn/{shape}",
        "packed_matmul/bf16/{shape}",
        "packed_matmul/w8a8_dynamic/{shape}",
    ]),
    ("packed_matmul/q4/{shape}", [
        "packed_matmul/f32/{shape}",
        "packed_matmul/f32_onednn/{shape}",
        "packed_matmul/bf16/{shape}",
        "packed_matmul/w4_int4pack/{shape}",
    ]),
]
MATMULS = [f"{rows}x{d_in}x{d_out}"
           for d_in, d_out in [(768, 768), (768, 2304), (768, 3072), (3072, 768)]
           for rows in [1, 16, 256, 1024]]


class Failure(Exception):
    """A program that does not start, ends or answers what the protocol does not have."""


class Side:
    """A program that measures the ids it is asked for."""

    def __init__(self, name, command, threads):
        self.name, self.unknown = name, set()
        environment = os.environ | {
            "OMP_NUM_THREADS": str(threads),
            "RAYON_NUM_THREADS": str(threads),
        }
        try:
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                            text=True, bufsize=1, env=environment)
        except OSError as error:
            raise Failure(f"{name}: '{command[0]}' does not start: {error.strerror}") from error

    def seconds(self, case):
        """Seconds of one iteration, None if the program has no such case."""
        if case in self.unknown:
            return None
        try:
            self.process.stdin.write(case + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise Failure(f"{self.name}: ended with exit code {self.process.wait()} at '{case}'")
        words = line.split()
        if words == [case, "unknown"]:
            self.unknown.add(case)
            return None
        try:
            answered, seconds = words
            seconds = float(seconds)
        except ValueError:
            answered, seconds = None, 0.0
        # Written so that a NaN is refused.
        if answered != case or not 0.0 < seconds < float("inf"):
            raise Failure(f"{self.name}: answered '{line.strip()}', expected '{case} SECONDS'")
        return seconds

    def close(self):
        """End of input ends the program; one that goes on is killed."""
        try:
            self.process.stdin.close()
        except BrokenPipeError:
            pass
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def expanded(pairs):
    """The pairs with their shapes filled in."""
    for ours, peers in pairs:
        for shape in MATMULS if "{shape}" in ours else [""]:
            yield ours.format(shape=shape), [peer.format(shape=shape) for peer in peers]


def compare(rust, pytorch, llama, ours, peers, rounds):
    """One result per peer that both sides know; all are asked for in each round."""
    if rust.seconds(ours) is None:
        return []
    sides = {peer: llama if peer.startswith("llama.cpp/") else pytorch for peer in peers}
    peers = [peer for peer in peers if sides[peer] is not None and sides[peer].seconds(peer) is not None]
    if not peers:
        return []
    own, theirs = [], {peer: [] for peer in peers}
    for _ in range(rounds):
        own.append(rust.seconds(ours))
        for peer in peers:
            theirs[peer].append(sides[peer].seconds(peer))
    results = []
    for peer, seconds in theirs.items():
        ratios = [b / a for a, b in zip(own, seconds)]
        results.append({
            "id": ours,
            "peer": peer,
            "ours_median_s": statistics.median(own),
            "peer_median_s": statistics.median(seconds),
            "ratio": statistics.median(ratios),
            "ratio_min": min(ratios),
            "ratio_max": max(ratios),
            "ours_s": own,
            "peer_s": seconds,
        })
    return results


def milliseconds(seconds):
    return f"{1e3 * seconds:#.4g}".rstrip(".")


def row(result):
    return (f"| `{result['id']}` | {milliseconds(result['ours_median_s'])} "
            f"| `{result['peer']}` | {milliseconds(result['peer_median_s'])} "
            f"| {result['ratio']:.2f} [{result['ratio_min']:.2f}, {result['ratio_max']:.2f}] |")


def cpu_model():
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def asked(name, python, script):
    """The lines that a Python prints of itself."""
    try:
        answer = subprocess.run([python, "-c", script], capture_output=True, text=True, check=True)
    except OSError as error:
        raise Failure(f"{name}: '{python}' does not start: {error.strerror}") from error
    except subprocess.CalledProcessError as error:
        reason = (error.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise Failure(f"{name}: {reason}") from error
    return answer.stdout.splitlines()


def machine(arguments):
    """What a reader needs to judge the figures."""
    script = "import torch; print(torch.__version__, torch.backends.cpu.get_cpu_capability(), sep='\\n')"
    if arguments.device == "cuda":
        script += "; print(torch.cuda.get_device_name())"
    torch, capability, *name = asked("pytorch", arguments.python, script)
    described = {"cpu": cpu_model(), "cores": os.cpu_count(), "threads": arguments.threads, "torch": torch,
                 "torch_instructions": capability, "device": name[0] if name else "cpu",
                 "instructions": os.environ.get("SWITCHABLE_QUANT_INSTRUCTIONS", "the best there are")}
    if arguments.llama:
        script = ("import importlib.metadata, xllamacpp; print(importlib.metadata.version('xllamacpp'), "
                  "xllamacpp.get_system_info(), sep='\\n')")
        described["xllamacpp"], described["llama.cpp_instructions"] = asked("llama.cpp", arguments.llama, script)
    return described


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rust", required=True, metavar="PROGRAM", help="what measures ours")
    parser.add_argument("--python", default=sys.executable, metavar="PATH",
                        help="a Python that has torch (default: this one)")
    parser.add_argument("--llama", metavar="PATH",
                        help="a Python that has xllamacpp and gguf (default: llama.cpp is left out)")
    parser.add_argument("--rounds", type=positive(int), default=7,
                        help="rounds that count (default 7)")
    parser.add_argument("--threads", type=positive(int), default=2,
                        help="threads of each side (default 2)")
    parser.add_argument("--seconds", type=positive(float), default=0.3,
                        help="time of one batch of a peer (default 0.3)")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu",
                        help="device of the peers; that of ours is an argument of PROGRAM")
    parser.add_argument("--only", action="append", default=[], metavar="SUBSTRING",
                        help="only pairs of which our id contains this; repeatable")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every round to this file")
    arguments = parser.parse_args()

    pairs = [
        pair for pair in expanded(PAIRS)
        if not arguments.only or any(part in pair[0] for part in arguments.only)
    ]
    if not pairs:
        parser.error(f"no id contains any of {arguments.only}")
    peer_command = [arguments.python, str(Path(__file__).with_name("pytorch.py")), "--serve",
                    "--threads", str(arguments.threads), "--device", arguments.device,
                    "--seconds", str(arguments.seconds), "--repetitions", "3"]

    sides, results = [], []
    try:
        described = machine(arguments)
        rust = Side("rust", shlex.split(arguments.rust) + ["--serve"], arguments.threads)
        sides.append(rust)
        pytorch = Side("pytorch", peer_command, arguments.threads)
        sides.append(pytorch)
        llama = None
        if arguments.llama:
            command = [arguments.llama, str(Path(__file__).with_name("llama.py")), "--serve",
                       "--threads", str(arguments.threads)]
            llama = Side("llama.cpp", command, arguments.threads)
            sides.append(llama)
        print("| ours | ms | peer | ms | peer / ours |")
        print("|---|---:|---|---:|---:|", flush=True)
        for ours, peers in pairs:
            for result in compare(rust, pytorch, llama, ours, peers, arguments.rounds):
                results.append(result)
                print(row(result), flush=True)
    except Failure as failure:
        print(f"error: {failure}", file=sys.stderr)
        raise SystemExit(1) from None
    finally:
        for side in sides:
            side.close()

    versions = f"PyTorch {described['torch']} ({described['torch_instructions']}) on {described['device']}"
    if arguments.llama:
        versions += (f", llama.cpp of xllamacpp {described['xllamacpp']} "
                     f"({described['llama.cpp_instructions'].strip(' |')})")
    print(f"\n{described['cpu']}, {described['cores']} cores, {described['threads']} threads, ours with "
          f"{described['instructions']}, {versions}; medians of {arguments.rounds} rounds, peer / ours "
          f"with the least and the greatest of a round")
    for side in sides:
        if side.unknown:
            print(f"\nunknown to {side.name}: {', '.join(sorted(side.unknown))}")
    if arguments.json:
        report = {"machine": described, "rounds": arguments.rounds, "results": results}
        partial = arguments.json.with_name(arguments.json.name + ".tmp")
        partial.write_text(json.dumps(report, indent=2) + "\n")
        partial.replace(arguments.json)


if __name__ == "__main__":
    main()
