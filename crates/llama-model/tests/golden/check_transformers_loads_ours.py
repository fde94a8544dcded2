#!/usr/bin/env python3
"""Load a folder that llama-model exported with transformers and compare logits.

    python check_transformers_loads_ours.py --model DIR --expected FILE

The exit code is 1 where transformers computes other logits than `FILE` holds for its
`input_ids` and `attention_mask`, or finds a tensor missing or left over.
"""

import argparse
import os
import sys

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import transformers
from safetensors.torch import load_file

TOLERANCE = 1e-4


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, help="folder of the exported model")
    parser.add_argument("--expected", required=True, help="safetensors file with inputs and logits")
    arguments = parser.parse_args()

    model, report = transformers.LlamaForCausalLM.from_pretrained(
        arguments.model, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if report[kind]:
            sys.exit(f"{kind}: {sorted(report[kind])}")
    expected = load_file(arguments.expected)
    with torch.no_grad():
        logits = model.eval()(
            input_ids=expected["input_ids"], attention_mask=expected["attention_mask"]
        ).logits
    real = expected["attention_mask"].bool()
    difference = (logits - expected["logits"])[real].abs().max().item()
    if difference > TOLERANCE:
        sys.exit(f"logits differ by {difference}")
    print(f"largest difference {difference}")


if __name__ == "__main__":
    main()
