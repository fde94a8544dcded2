#!/usr/bin/env python3
"""Load an adapter folder with PEFT and compare the logits with those in a file.

The file is safetensors and holds `input_ids` [rows, tokens] (i64), `logits`
[rows, tokens, vocab] (f32), and optionally `attention_mask` [rows, tokens] (i64); where a
mask is given only the unmasked positions are compared. With `start_logits` and `end_logits`
[rows, tokens] in place of `logits`, base and adapter answer questions.

    python check_peft_loads_ours.py --base tiny --adapter peft/adapter \\
        --expected peft/expected.safetensors

Exit codes: 0 equal, 1 different (values, or tensors that PEFT did not take), 2 bad input.
"""

import argparse
import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import transformers
from peft import PeftModel, get_peft_model_state_dict
from safetensors.torch import load_file


def refuse(message):
    """Report input that cannot be compared at all."""
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(2)


def load_expected(path):
    """The tensors of the expected file, checked for what the comparison needs."""
    tensors = load_file(path)
    scores = ("start_logits", "end_logits") if "start_logits" in tensors else ("logits",)
    for name in ("input_ids", *scores):
        if name not in tensors:
            refuse(f"{path}: no tensor '{name}', the file has {sorted(tensors)}")
    ids = tensors["input_ids"]
    logits = torch.stack([tensors[name] for name in scores], -1) if len(scores) > 1 else tensors["logits"]
    if ids.dim() != 2 or logits.shape[:2] != ids.shape:
        refuse(f"{path}: input_ids {list(ids.shape)} and logits {list(logits.shape)} do not fit")
    mask = tensors.get("attention_mask", torch.ones_like(ids))
    if mask.shape != ids.shape:
        refuse(f"{path}: attention_mask {list(mask.shape)}, expected {list(ids.shape)}")
    return ids.long(), mask.long(), logits.float(), len(scores) > 1


def tensor_differences(model, adapter):
    """What differs between the adapter file and what PEFT holds after loading it.

    PEFT only warns of tensors that it did not find or could not place, so that a
    misspelt name would otherwise pass as an adapter of its initial values.
    """
    stored = load_file(adapter / "adapter_model.safetensors")
    held = get_peft_model_state_dict(model, save_embedding_layers=False)
    differences = [f"not in the file: {name}" for name in sorted(set(held) - set(stored))]
    differences += [f"not taken by PEFT: {name}" for name in sorted(set(stored) - set(held))]
    for name in sorted(set(stored) & set(held)):
        if not torch.equal(stored[name].float(), held[name].float()):
            differences.append(f"other values in PEFT: {name}")
    return differences


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--base", type=Path, required=True, help="Hugging Face folder of the base")
    parser.add_argument("--adapter", type=Path, required=True, help="adapter folder in PEFT's layout")
    parser.add_argument("--expected", type=Path, required=True, help="safetensors file of logits")
    parser.add_argument(
        "--tolerance", type=float, default=1e-4, help="largest absolute difference (default 1e-4)"
    )
    arguments = parser.parse_args()
    for path in (
        arguments.base / "config.json",
        arguments.adapter / "adapter_config.json",
        arguments.adapter / "adapter_model.safetensors",
        arguments.expected,
    ):
        if not path.is_file():
            refuse(f"{path}: no such file")
    ids, mask, wanted, answers = load_expected(arguments.expected)

    torch.set_num_threads(1)
    family = transformers.GPT2ForQuestionAnswering if answers else transformers.GPT2LMHeadModel
    base = family.from_pretrained(
        arguments.base, dtype=torch.float32, attn_implementation="eager"
    )
    model = PeftModel.from_pretrained(base, arguments.adapter).eval()
    differences = tensor_differences(model, arguments.adapter)
    for difference in differences:
        print(difference, file=sys.stderr)

    with torch.no_grad():
        if answers:
            output = model(input_ids=ids, attention_mask=mask)
            logits = torch.stack([output.start_logits, output.end_logits], -1)
        else:
            logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
    if logits.shape != wanted.shape:
        refuse(f"{arguments.expected}: logits {list(wanted.shape)}, the model's are {list(logits.shape)}")
    largest = (logits - wanted).abs()[mask.bool()].max().item()
    # Written so that a NaN counts as different.
    equal = largest <= arguments.tolerance and not differences
    verdict = "equal" if equal else "DIFFERENT"
    print(f"{verdict}: largest difference of the logits {largest:.3e}, tolerance {arguments.tolerance:.1e}")
    raise SystemExit(0 if equal else 1)


if __name__ == "__main__":
    main()
