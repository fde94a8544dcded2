"""Writes an adapter with PEFT, and what PEFT computes with it.

    python make_golden.py                 writes adapter/ and expected.safetensors beside this file
    python make_golden.py --check DIR     loads an adapter folder that this crate wrote into PEFT and
                                          compares its outputs with expected.safetensors; the crate's
                                          tests leave such a folder in target/tmp/peft-check

Needs torch, transformers, peft and safetensors. Two sites have a rank or an alpha of their own.
"""

import argparse
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import GPT2Config, GPT2LMHeadModel

HERE = Path(__file__).parent
SUB_MODULES = ["attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"]
SITES = [f"h.{block}.{sub}" for block in range(2) for sub in SUB_MODULES]


def base_model():
    torch.manual_seed(1)
    config = GPT2Config(n_layer=2, n_embd=8, n_head=2, n_positions=16, vocab_size=32)
    return GPT2LMHeadModel(config).eval()


def outputs(model):
    """Input, frozen weight and bias, and output of every adapted module."""
    tensors = {}
    generator = torch.Generator().manual_seed(2)
    for site in SITES:
        module = model.base_model.model.transformer.get_submodule(site)
        weight, bias = module.base_layer.weight, module.base_layer.bias
        x = torch.randn(3, weight.shape[0], generator=generator)
        y = module(x)
        for name, tensor in {"x": x, "weight": weight, "bias": bias, "y": y}.items():
            tensors[f"{site}.{name}"] = tensor.detach().contiguous().clone()
    return tensors


def make():
    config = LoraConfig(
        r=3,
        lora_alpha=6,
        target_modules=["c_attn", "c_proj", "c_fc"],
        rank_pattern={"h.1.mlp.c_fc": 2},
        alpha_pattern={"h.0.attn.c_attn": 1.5},
        fan_in_fan_out=True,
        task_type="CAUSAL_LM",
    )
    model = get_peft_model(base_model(), config)
    torch.manual_seed(3)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    model.eval()
    model.save_pretrained(HERE / "adapter")
    (HERE / "adapter" / "README.md").unlink(missing_ok=True)
    save_file(outputs(model), HERE / "expected.safetensors")


def check(folder):
    model = PeftModel.from_pretrained(base_model(), folder).eval()
    expected = load_file(HERE / "expected.safetensors")
    worst = 0.0
    for name, tensor in outputs(model).items():
        worst = max(worst, (tensor - expected[name]).abs().max().item())
    print(f"largest difference over {len(SITES)} sites: {worst:.2e}")
    assert worst < 1e-6, "PEFT computes something else with this adapter"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", type=Path)
    arguments = parser.parse_args()
    if arguments.check:
        check(arguments.check)
    else:
        make()
