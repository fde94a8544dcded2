#!/usr/bin/env python3
"""Write a GPT-2 folder with random weights, as transformers' `save_pretrained` does.

The layout is that of a real GPT-2, the weights are transformers' own initialisation under
the seed given: for trying loaders, memory and speed without a download.

    python scripts/random_gpt2.py --out gpt2-random --tokenizer DIR
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import transformers

SIZES = {
    "tiny": dict(n_layer=2, n_embd=64, n_head=4, n_positions=256),
    "small": dict(n_layer=12, n_embd=768, n_head=12),
    "medium": dict(n_layer=24, n_embd=1024, n_head=16),
    "large": dict(n_layer=36, n_embd=1280, n_head=20),
    "xl": dict(n_layer=48, n_embd=1600, n_head=25),
}
DTYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
TOKENIZER_FILES = ("vocab.json", "merges.txt")


def refuse(message):
    """Report unusable arguments."""
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(2)


def vocabulary_size(tokenizer):
    """The number of tokens in the tokenizer folder; fails where a file is missing."""
    for name in TOKENIZER_FILES:
        if not (tokenizer / name).is_file():
            refuse(f"{tokenizer / name}: no such file")
    vocabulary = json.loads((tokenizer / "vocab.json").read_text(encoding="utf-8"))
    return max(vocabulary.values()) + 1


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to write; must not exist")
    parser.add_argument("--size", choices=SIZES, default="small", help="default small (124M)")
    parser.add_argument("--dtype", choices=DTYPES, default="f32", help="default f32")
    parser.add_argument("--seed", type=int, default=0, help="default 0")
    parser.add_argument(
        "--tokenizer", type=Path,
        help="folder whose vocab.json and merges.txt are copied; it also sets the vocabulary size",
    )
    parser.add_argument(
        "--max-shard-size", default="50GB", help="for example 200MB, for a sharded folder"
    )
    arguments = parser.parse_args()
    out = arguments.out
    if out.exists():
        refuse(f"{out}: exists already")
    vocab_size = vocabulary_size(arguments.tokenizer) if arguments.tokenizer else 50257

    config = transformers.GPT2Config(
        vocab_size=vocab_size, bos_token_id=vocab_size - 1, eos_token_id=vocab_size - 1,
        **SIZES[arguments.size],
    )
    torch.manual_seed(arguments.seed)
    model = transformers.GPT2LMHeadModel(config).to(DTYPES[arguments.dtype])

    # Written beside the target and renamed, so that an interrupted run leaves no half folder.
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as scratch:
        folder = Path(scratch) / out.name
        model.save_pretrained(folder, max_shard_size=arguments.max_shard_size)
        for name in TOKENIZER_FILES if arguments.tokenizer else ():
            shutil.copyfile(arguments.tokenizer / name, folder / name)
        for path in folder.iterdir():
            path.chmod(0o644)
        folder.rename(out)

    parameters = sum(parameter.numel() for parameter in model.parameters())
    size = sum(path.stat().st_size for path in out.iterdir())
    print(f"{out}: {parameters:,} parameters in {arguments.dtype}, {size:,} bytes")


if __name__ == "__main__":
    main()
