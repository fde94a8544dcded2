#!/usr/bin/env python3
"""Write the golden fixtures of gpt2-model with Hugging Face transformers and PEFT.

Every weight and token is drawn from NumPy's PCG64 with a fixed seed, so the weights do
not depend on the version of torch; what the libraries compute from them does, in the last
bits, which is why `versions.json` records the versions and the measured f32 noise.

    python make_golden.py            # rewrites the fixtures beside this file
    python make_golden.py --out DIR  # writes them elsewhere
"""

import argparse
import json
import os
import platform
import shutil
from pathlib import Path

# Fewer threads mean fewer orders of summation: set before torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy
import peft
import safetensors
import torch
import transformers
from safetensors.torch import load_file, save_file

VOCAB = 97
LENGTH = 17
PADDING = 5
PROMPT = 5
GENERATED = 20
TRAIN_STEPS = 10
IGNORED = -100

TINY = dict(
    vocab_size=VOCAB, n_positions=32, n_embd=20, n_layer=3, n_head=4,
    resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, summary_first_dropout=0.0,
    initializer_range=0.25, bos_token_id=VOCAB - 1, eos_token_id=VOCAB - 1,
)
# `n_inner` and the epsilon differ from their defaults, so that a reader which ignores them fails.
TINY_QA = dict(TINY, n_layer=2, n_head=2, n_inner=36, layer_norm_epsilon=1e-3)


def new_config(sizes):
    """The configuration for `sizes`, with the attention whose sums are the plainest."""
    config = transformers.GPT2Config(**sizes)
    config._attn_implementation = "eager"
    return config


def randomize(model, seed):
    """Draw every parameter: no bias is zero and no layer norm is the identity."""
    rng = numpy.random.default_rng(seed)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            noise = rng.standard_normal(tuple(parameter.shape)).astype(numpy.float32)
            if name.endswith("bias"):
                value = 0.1 * noise
            elif ".ln_" in name:
                value = 1.0 + 0.2 * noise
            else:
                value = 0.25 * noise
            parameter.copy_(torch.from_numpy(value))
    return model.eval()


def draw_batch(seed):
    """Two rows of tokens; the last `PADDING` of the second are padding.

    Returns `input_ids`, `attention_mask` and `labels`, each `[2, LENGTH]` of i64.
    """
    rng = numpy.random.default_rng(seed)
    ids = torch.from_numpy(rng.integers(0, VOCAB - 1, size=(2, LENGTH)))
    mask = torch.ones_like(ids)
    mask[1, LENGTH - PADDING:] = 0
    labels = ids.masked_fill(mask == 0, IGNORED)
    return ids, mask, labels


def left_pad(ids, mask):
    """The same tokens with the padding in front, and the positions counted from the mask."""
    left_ids, left_mask = ids.clone(), mask.clone()
    left_ids[1] = torch.roll(ids[1], PADDING)
    left_mask[1] = torch.roll(mask[1], PADDING)
    positions = (left_mask.cumsum(-1) - 1).clamp(min=0)
    return left_ids, left_mask, positions


def gradients(model):
    """`grad.<name>` of every parameter that is trained; fails where one has no gradient."""
    found = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, f"no gradient for {name}"
            found[f"grad.{name}"] = parameter.grad.detach().clone()
    return found


def language_model_pass(model, ids, mask, labels):
    """One forward and backward pass: logits, loss, hidden states and every gradient."""
    hidden = {}
    transformer = model.transformer

    def keep(name):
        def hook(_module, inputs, output):
            first = output[0] if isinstance(output, tuple) else output
            hidden[name] = first.detach().clone()
        return hook

    def keep_input(_module, inputs):
        hidden["hidden.0"] = inputs[0].detach().clone()

    hooks = [transformer.h[0].register_forward_pre_hook(keep_input)]
    for index, block in enumerate(transformer.h):
        hooks.append(block.register_forward_hook(keep(f"hidden.{index + 1}")))
    hooks.append(transformer.ln_f.register_forward_hook(keep("hidden.ln_f")))

    model.zero_grad(set_to_none=True)
    output = model(input_ids=ids, attention_mask=mask, labels=labels, use_cache=False)
    output.loss.backward()
    for hook in hooks:
        hook.remove()
    result = {"logits": output.logits.detach(), "loss": output.loss.detach().reshape(1)}
    return result | hidden | gradients(model)


def train(model, ids, mask, labels):
    """The loss before each of `TRAIN_STEPS` AdamW steps on one batch, and after the last."""
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01,
        foreach=False,
    )
    losses = []
    for step in range(TRAIN_STEPS + 1):
        optimizer.zero_grad()
        loss = model(input_ids=ids, attention_mask=mask, labels=labels, use_cache=False).loss
        losses.append(loss.detach().reshape(1))
        if step < TRAIN_STEPS:
            loss.backward()
            optimizer.step()
    return {"train_losses": torch.cat(losses[:-1]), "train_final_loss": losses[-1]}


def generate(model, prompt):
    """The greedy continuation with a KV cache, and the logits each token was taken from.

    Fails where two candidates are so close that rounding could swap them.
    """
    settings = transformers.GenerationConfig(
        do_sample=False, max_new_tokens=GENERATED, use_cache=True,
        eos_token_id=None, pad_token_id=0,
        output_logits=True, return_dict_in_generate=True,
    )
    mask = torch.ones_like(prompt)
    output = model.generate(prompt, attention_mask=mask, generation_config=settings)
    step_logits = torch.stack(output.logits, dim=1)

    best_two = step_logits.topk(2, dim=-1).values
    margin = (best_two[..., 0] - best_two[..., 1]).min().item()
    assert margin > 1e-2, f"greedy tokens are separated by {margin} only: choose another seed"
    assert output.sequences.shape == (1, PROMPT + GENERATED)
    distinct = len(set(output.sequences[0, PROMPT:].tolist()))
    assert distinct > 5, f"the continuation has only {distinct} distinct tokens: choose another seed"
    with torch.no_grad():
        whole = model(output.sequences[:, :-1], use_cache=False).logits[:, PROMPT - 1:]
    assert torch.allclose(whole, step_logits, atol=1e-4), "cached and plain logits differ"
    return {"prompt_ids": prompt, "generated": output.sequences, "step_logits": step_logits}


def largest_difference(left, right):
    """The largest absolute difference over the tensors that both dictionaries hold."""
    shared = [name for name in left if name in right and left[name].is_floating_point()]
    assert shared, "nothing to compare"
    return max((left[name].double() - right[name].double()).abs().max().item() for name in shared)


def save_tensors(tensors, path):
    """Write one safetensors file; refuses values that are not finite."""
    for name, tensor in tensors.items():
        assert torch.isfinite(tensor.double()).all(), f"{name} is not finite"
    save_file({name: tensor.clone().contiguous() for name, tensor in tensors.items()}, path)


def save_model(model, folder, **options):
    """`save_pretrained` without what says nothing about the model."""
    model.save_pretrained(folder, **options)
    (folder / "generation_config.json").unlink(missing_ok=True)


def write_tiny(out, noise):
    """Every `tiny*` folder of a language model; returns the batch for the adapter."""
    config = new_config(TINY)
    model = randomize(transformers.GPT2LMHeadModel(config), seed=1)
    ids, mask, labels = draw_batch(seed=2)
    save_model(model, out / "tiny")
    save_model(model, out / "tiny_sharded", max_shard_size="30KB")
    shards = list((out / "tiny_sharded").glob("*.safetensors"))
    assert len(shards) >= 2, "the sharded folder has one shard only"

    expected = {"input_ids": ids, "attention_mask": mask, "labels": labels}
    passed = language_model_pass(model, ids, mask, labels)
    expected |= passed

    left_ids, left_mask, positions = left_pad(ids, mask)
    with torch.no_grad():
        left = model(
            input_ids=left_ids, attention_mask=left_mask, position_ids=positions, use_cache=False
        ).logits
    # A padding query has nothing to attend to: what it yields is nobody's contract.
    left = left * left_mask.unsqueeze(-1)
    real = left[1, PADDING:] - passed["logits"][1, :LENGTH - PADDING]
    assert real.abs().max() < 1e-4, "left and right padding disagree on the real tokens"
    expected |= {
        "left_padded_input_ids": left_ids, "left_padded_attention_mask": left_mask,
        "left_padded_position_ids": positions, "left_padded_logits": left,
    }
    expected |= generate(model, ids[:1, :PROMPT])

    double = transformers.GPT2LMHeadModel(config).double().eval()
    double.load_state_dict({name: value.double() for name, value in model.state_dict().items()})
    noise["tiny"] = largest_difference(passed, language_model_pass(double, ids, mask, labels))
    trained = train(model, ids, mask, labels)
    noise["tiny_train_losses"] = largest_difference(trained, train(double, ids, mask, labels))
    expected |= trained
    save_tensors(expected, out / "tiny" / "expected.safetensors")

    inputs = {"input_ids": ids, "attention_mask": mask}
    for name, dtype in (("tiny_f16", torch.float16), ("tiny_bf16", torch.bfloat16)):
        folder = out / name
        half = transformers.GPT2LMHeadModel.from_pretrained(out / "tiny", dtype=dtype)
        save_model(half, folder)
        logits = widened_logits(folder, inputs)
        assert not torch.equal(logits, passed["logits"]), f"{name} did not round its weights"
        save_tensors(inputs | {"logits": logits}, folder / "expected.safetensors")

    write_tiny_hub(out)
    again = widened_logits(out / "tiny_hub", inputs)
    assert torch.equal(again, logits), "transformers reads tiny_hub and tiny_bf16 differently"
    return ids, mask, labels


def widened_logits(folder, inputs):
    """What the half-precision weights of `folder` give when all arithmetic is f32."""
    model = transformers.GPT2LMHeadModel.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    with torch.no_grad():
        return model(**inputs, use_cache=False).logits


def write_tiny_hub(out):
    """`tiny_hub/`: the weights of `tiny_bf16/` named as in the file that the Hub serves.

    The published GPT-2 files carry no `transformer.` prefix, and each block's causal mask
    is stored among the weights as `attn.bias`, which a reader has to skip.
    """
    source, folder = out / "tiny_bf16", out / "tiny_hub"
    folder.mkdir()
    shutil.copy(source / "config.json", folder)
    weights = {
        name.removeprefix("transformer."): tensor
        for name, tensor in load_file(source / "model.safetensors").items()
    }
    side = TINY["n_positions"]
    for block in range(TINY["n_layer"]):
        mask = torch.ones(side, side, dtype=torch.bfloat16).tril().reshape(1, 1, side, side)
        weights[f"h.{block}.attn.bias"] = mask
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def write_tiny_qa(out, noise):
    """`tiny_qa/`: the span head, its loss and every gradient."""
    config = new_config(TINY_QA)
    model = randomize(transformers.GPT2ForQuestionAnswering(config), seed=3)
    ids, mask, _ = draw_batch(seed=4)
    starts, ends = torch.tensor([9, 2]), torch.tensor([12, 2])
    save_model(model, out / "tiny_qa")

    def span_pass(network):
        network.zero_grad(set_to_none=True)
        output = network(
            input_ids=ids, attention_mask=mask, start_positions=starts, end_positions=ends
        )
        output.loss.backward()
        return {
            "start_logits": output.start_logits.detach(), "end_logits": output.end_logits.detach(),
            "loss": output.loss.detach().reshape(1),
        } | gradients(network)

    passed = span_pass(model)
    double = transformers.GPT2ForQuestionAnswering(config).double().eval()
    double.load_state_dict({name: value.double() for name, value in model.state_dict().items()})
    noise["tiny_qa"] = largest_difference(passed, span_pass(double))
    inputs = {
        "input_ids": ids, "attention_mask": mask,
        "start_positions": starts, "end_positions": ends,
    }
    save_tensors(inputs | passed, out / "tiny_qa" / "expected.safetensors")


def write_peft(out, batch):
    """`peft/`: a LoRA adapter over `tiny/` as PEFT writes it, its logits and its gradients."""
    ids, mask, labels = batch
    base = transformers.GPT2LMHeadModel.from_pretrained(out / "tiny", attn_implementation="eager")
    base.name_or_path = base.config.name_or_path = "tiny"
    model = peft.get_peft_model(base, peft.LoraConfig(
        r=4, lora_alpha=8, lora_dropout=0.0, task_type="CAUSAL_LM", fan_in_fan_out=True,
        base_model_name_or_path="tiny", target_modules=["c_attn", "c_proj", "c_fc"],
    )).eval()
    rng = numpy.random.default_rng(5)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            if parameter.requires_grad:
                noise = rng.standard_normal(tuple(parameter.shape)).astype(numpy.float32)
                parameter.copy_(torch.from_numpy(0.2 * noise))

    adapter = out / "peft" / "adapter"
    model.save_pretrained(adapter, save_embedding_layers=False)
    (adapter / "README.md").unlink(missing_ok=True)
    # PEFT writes a set in the order of its hashes, which differs from run to run.
    settings = json.loads((adapter / "adapter_config.json").read_text())
    settings["target_modules"].sort()
    (adapter / "adapter_config.json").write_text(json.dumps(settings, indent=2) + "\n")

    output = model(input_ids=ids, attention_mask=mask, labels=labels, use_cache=False)
    output.loss.backward()
    with torch.no_grad(), model.disable_adapter():
        plain = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
    moved = (plain - output.logits).abs().max()
    assert moved > 0.5, f"the adapter moves the logits by {moved} only"

    # PEFT inserts the adapter's name in its parameters and drops it in the file.
    found = {name.replace(".default.", "."): value for name, value in gradients(model).items()}
    stored = {f"grad.{name}" for name in load_file(adapter / "adapter_model.safetensors")}
    assert stored == set(found), "the adapter file and the gradients name different tensors"
    save_tensors({
        "input_ids": ids, "attention_mask": mask, "labels": labels,
        "logits": output.logits.detach(), "loss": output.loss.detach().reshape(1),
    } | found, out / "peft" / "expected.safetensors")


def write_peft_qa(out):
    """`peft_qa/`: an adapter over `tiny_qa/` as PEFT writes it for question answering, with its head."""
    base = transformers.GPT2ForQuestionAnswering.from_pretrained(out / "tiny_qa", attn_implementation="eager")
    base.name_or_path = base.config.name_or_path = "tiny_qa"
    # Overlapping keys, of which the first that matches counts, and one that starts at the name's start.
    alphas = {r"^transformer\.h\.1\.attn\.c_attn": 3, "c_proj": 16, "attn.c_proj": 64}
    model = peft.get_peft_model(base, peft.LoraConfig(
        r=2, lora_alpha=6, lora_dropout=0.0, task_type="QUESTION_ANS", fan_in_fan_out=True,
        base_model_name_or_path="tiny_qa", target_modules=["c_attn", "c_proj"],
        alpha_pattern=alphas, rank_pattern={r"mlp\.c_proj": 4},
    )).eval()
    rng = numpy.random.default_rng(6)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            if parameter.requires_grad:
                noise = rng.standard_normal(tuple(parameter.shape)).astype(numpy.float32)
                parameter.copy_(torch.from_numpy(0.2 * noise))
    adapter = out / "peft_qa" / "adapter"
    model.save_pretrained(adapter, save_embedding_layers=False)
    (adapter / "README.md").unlink(missing_ok=True)
    settings = json.loads((adapter / "adapter_config.json").read_text())
    settings["target_modules"].sort()
    assert settings["modules_to_save"] == ["qa_outputs"], settings["modules_to_save"]
    # PEFT sorts the keys when it saves and counts them in the order of the file when it loads.
    settings["alpha_pattern"] = alphas
    (adapter / "adapter_config.json").write_text(json.dumps(settings, indent=2) + "\n")
    base = transformers.GPT2ForQuestionAnswering.from_pretrained(out / "tiny_qa", attn_implementation="eager")
    model = peft.PeftModel.from_pretrained(base, adapter).eval()

    inputs = load_file(out / "tiny_qa" / "expected.safetensors")
    inputs = {name: inputs[name].long() for name in ("input_ids", "attention_mask")}
    with torch.no_grad():
        output = model(**inputs)
        with model.disable_adapter():
            plain = model(**inputs)
    moved = (plain.start_logits - output.start_logits).abs().max()
    assert moved > 0.5, f"the adapter moves the scores by {moved} only"
    save_tensors(
        inputs | {"start_logits": output.start_logits, "end_logits": output.end_logits},
        out / "peft_qa" / "expected.safetensors",
    )


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).resolve().parent,
        help="folder that receives the fixtures (default: the script's own)",
    )
    out = parser.parse_args().out
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    out.mkdir(parents=True, exist_ok=True)
    for name in ("tiny", "tiny_sharded", "tiny_f16", "tiny_bf16", "tiny_hub", "tiny_qa", "peft", "peft_qa"):
        if (out / name).exists():
            shutil.rmtree(out / name)

    noise = {}
    batch = write_tiny(out, noise)
    write_tiny_qa(out, noise)
    write_peft(out, batch)
    write_peft_qa(out)
    record = {
        "made_with": {
            "python": platform.python_version(), "numpy": numpy.__version__,
            "torch": torch.__version__, "transformers": transformers.__version__,
            "peft": peft.__version__, "safetensors": safetensors.__version__,
        },
        "largest_difference_between_f32_and_f64": noise,
    }
    (out / "versions.json").write_text(json.dumps(record, indent=2) + "\n")

    fixtures = [path for path in out.rglob("*") if path.suffix in (".json", ".safetensors")]
    for path in fixtures:
        path.chmod(0o644)
    total = sum(path.stat().st_size for path in fixtures)
    print(json.dumps(record, indent=2))
    print(f"{total} bytes in {out}")
    assert total < 600_000, f"the fixtures take {total} bytes, more than 600000"


if __name__ == "__main__":
    main()
