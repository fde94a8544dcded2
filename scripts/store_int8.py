#!/usr/bin/env python3
"""Stores the matrices of a model folder as int8: a quarter of the bytes, for folders that are passed on.

    store_int8.py FOLDER OUT

Of every matrix W `[rows, columns]` the codes `round(W / s)` are stored under its name, and under NAME.scale the
scale of each row, `s = max|row| / 127`; what is read back is `codes * s`. Vectors stay as they are. The crates read
such folders as floats (docs/FORMAT.md).
"""

import json
import os
import shutil
import sys

import torch
from safetensors.torch import load_file, save_file


def stored(weights):
    for name, value in weights.items():
        if value.dim() != 2 or value.numel() < 1024:
            yield name, value.float().contiguous()
            continue
        scale = value.float().abs().amax(1).clamp_min(1e-30) / 127
        yield name, (value.float() / scale[:, None]).round().clamp(-127, 127).to(torch.int8)
        yield name + ".scale", scale


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    source, target = sys.argv[1:]
    os.makedirs(target, exist_ok=True)
    weights = load_file(os.path.join(source, "model.safetensors"))
    save_file(dict(stored(weights)), os.path.join(target, "model.safetensors"), metadata={"format": "pt"})
    for name in os.listdir(source):
        if not name.endswith(".json") or name == "adapter_config.json":
            continue
        if name == "tokenizer.json":
            with open(os.path.join(source, name)) as file:
                tokenizer = json.load(file)
            with open(os.path.join(target, name), "w") as file:
                json.dump(tokenizer, file, ensure_ascii=False, separators=(",", ":"))
        else:
            shutil.copy(os.path.join(source, name), target)


if __name__ == "__main__":
    main()
