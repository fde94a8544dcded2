#!/usr/bin/env python3
"""Resident memory of cases and of their peers in PyTorch, each in a process of its own, as a Markdown table.

    python3 benches/peers/memory.py --rust PROGRAM --python venv/bin/python \\
        --pair train_step/rank8/q4_bf16/4x256 train_step/rank8/q4/4x256/bf16

The programs are those of compare.py. A process computes its case once, so that all is made that the case keeps; then the
system's mark of the most that was resident is taken back (`/proc/PID/clear_refs`, Linux), the case is computed three
times more, and the mark is read: what a step takes, without what preparing it took. What the process held before it was
asked, which for PyTorch is mostly its libraries, stands beside it.
"""

import argparse
import shlex
import sys
from pathlib import Path

from arguments import positive
from compare import Failure, Side

PAIRS = [
    ("train_step/rank8/q4/4x256", "train_step/rank8/q4_onednn/4x256"),
    ("train_step/rank8/q4_bf16/4x256", "train_step/rank8/q4/4x256/bf16"),
    ("gpt2_forward/f32/4x256", "gpt2_forward/f32_onednn/4x256"),
    ("gpt2_forward/bf16/4x256", "gpt2_forward/bf16/4x256"),
    ("gpt2_forward/w4a8/4x256", "gpt2_forward/w8a8_dynamic/4x256"),
]


def megabytes(process, field):
    """A field of the process's status, in decimal megabytes."""
    for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024 / 1e6
    raise Failure(f"/proc/{process.pid}/status has no {field}")


def resident(name, command, threads, case):
    """Megabytes before the case and at most while it is computed; None if the program has no such case."""
    side = Side(name, command, threads)
    try:
        if side.seconds("nothing") is not None:
            raise Failure(f"{name}: has a case 'nothing'")
        before = megabytes(side.process, "VmRSS")
        if side.seconds(case) is None:
            return None
        Path(f"/proc/{side.process.pid}/clear_refs").write_text("5")
        for _ in range(3):
            side.seconds(case)
        return before, megabytes(side.process, "VmHWM")
    finally:
        side.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rust", required=True, metavar="PROGRAM", help="what computes ours")
    parser.add_argument("--python", default=sys.executable, metavar="PATH",
                        help="a Python that has torch (default: this one)")
    parser.add_argument("--threads", type=positive(int), default=2, help="threads of each side (default 2)")
    parser.add_argument("--pair", nargs=2, action="append", metavar=("OURS", "PEER"),
                        help="a case and its peer; repeatable (default: training steps and forward passes)")
    arguments = parser.parse_args()
    ours = shlex.split(arguments.rust) + ["--serve"]
    theirs = [arguments.python, str(Path(__file__).with_name("pytorch.py")), "--serve",
              "--threads", str(arguments.threads), "--seconds", "0.1", "--repetitions", "1"]
    print("| ours | before, MB | at most, MB | peer | before, MB | at most, MB | ours / peer |")
    print("|---|---:|---:|---|---:|---:|---:|", flush=True)
    for case, peer in arguments.pair or PAIRS:
        measured = [resident("rust", ours, arguments.threads, case),
                    resident("pytorch", theirs, arguments.threads, peer)]
        for name, found in zip((case, peer), measured):
            if found is None:
                raise Failure(f"nobody has a case '{name}'")
        (own_before, own), (peer_before, most) = measured
        print(f"| `{case}` | {own_before:.0f} | {own:.0f} | `{peer}` | {peer_before:.0f} | {most:.0f} | {own / most:.2f} |",
              flush=True)


if __name__ == "__main__":
    try:
        main()
    except Failure as failure:
        sys.exit(f"error: {failure}")
