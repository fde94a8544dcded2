#!/usr/bin/env python3
"""Write the logits that transformers computes for a GPT-2 folder and a list of token ids.

The file is safetensors with `input_ids` [1, n] (i64) and `logits` [1, n, vocab] (f32, all
arithmetic in f32 whatever the folder's dtype): what the `import_gpt2` example writes too.

    python scripts/hf_logits.py --model gpt2-random --ids 15496,11,995 --out hf.safetensors
"""

import argparse
import os
import sys
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import transformers
from safetensors.torch import save_file


def token_ids(text):
    """Parse `1,2,3`."""
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"'{text}' is not a list such as 1,2,3") from error


def refuse(message):
    """Report unusable arguments."""
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(2)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, required=True, help="Hugging Face folder")
    parser.add_argument("--ids", type=token_ids, required=True, help="token ids, for example 1,2,3")
    parser.add_argument("--out", type=Path, required=True, help="safetensors file to write")
    arguments = parser.parse_args()
    if not (arguments.model / "config.json").is_file():
        refuse(f"{arguments.model / 'config.json'}: no such file")

    model = transformers.GPT2LMHeadModel.from_pretrained(
        arguments.model, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    config = model.config
    if len(arguments.ids) > config.n_positions:
        refuse(f"--ids: {len(arguments.ids)} tokens, the model has {config.n_positions} positions")
    if not all(0 <= token < config.vocab_size for token in arguments.ids):
        refuse(f"--ids: expected ids from 0 to {config.vocab_size - 1}")

    ids = torch.tensor([arguments.ids])
    with torch.no_grad():
        logits = model(input_ids=ids, use_cache=False).logits
    # Renamed when complete, so that an interrupted run leaves no half file.
    partial = arguments.out.with_name(arguments.out.name + ".tmp")
    save_file({"input_ids": ids, "logits": logits.contiguous()}, partial)
    partial.replace(arguments.out)
    print(f"{arguments.out}: logits {list(logits.shape)}, largest {logits.abs().max().item():.4f}")


if __name__ == "__main__":
    main()
