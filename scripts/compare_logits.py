#!/usr/bin/env python3
"""Compare the tensor `logits` of two safetensors files.

    python scripts/compare_logits.py ours.safetensors hf.safetensors --tolerance 1e-4

Exit codes: 0 within the tolerance, 1 different, 2 files that cannot be compared.
"""

import argparse
import sys
from pathlib import Path

import numpy
from safetensors import SafetensorError
from safetensors.numpy import load_file


def refuse(message):
    """Report input that cannot be compared at all."""
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(2)


def load(path, name):
    """One floating-point tensor of a file, in f64."""
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        refuse(f"{path}: {error}")
    if name not in tensors:
        refuse(f"{path}: no tensor '{name}', the file has {sorted(tensors)}")
    return tensors[name].astype(numpy.float64)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("left", type=Path, metavar="A.safetensors")
    parser.add_argument("right", type=Path, metavar="B.safetensors")
    parser.add_argument(
        "--tolerance", type=float, default=1e-4, help="largest absolute difference (default 1e-4)"
    )
    parser.add_argument("--tensor", default="logits", help="which tensor (default logits)")
    arguments = parser.parse_args()

    left = load(arguments.left, arguments.tensor)
    right = load(arguments.right, arguments.tensor)
    if left.shape != right.shape:
        refuse(f"'{arguments.tensor}' is {list(left.shape)} in {arguments.left}, "
               f"{list(right.shape)} in {arguments.right}")
    if left.size == 0:
        refuse(f"'{arguments.tensor}' is empty: nothing to compare")

    difference = numpy.abs(left - right)
    place = [int(index) for index in numpy.unravel_index(difference.argmax(), difference.shape)]
    largest = difference[tuple(place)]
    # Written so that a NaN counts as different.
    equal = bool(largest <= arguments.tolerance)
    verdict = "equal" if equal else "DIFFERENT"
    print(f"{verdict}: largest difference {largest:.3e} at {place}, mean {difference.mean():.3e}, "
          f"tolerance {arguments.tolerance:.1e}, shape {list(left.shape)}")
    if left.ndim >= 2:
        agree = (left.argmax(-1) == right.argmax(-1)).mean()
        print(f"same best token at {100 * agree:.1f} % of the positions")
    raise SystemExit(0 if equal else 1)


if __name__ == "__main__":
    main()
