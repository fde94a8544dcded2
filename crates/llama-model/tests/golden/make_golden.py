#!/usr/bin/env python3
"""Write the golden fixtures of llama-model with Hugging Face transformers and PEFT.

Every weight and token is drawn from NumPy's PCG64 with a fixed seed, so the weights do
not depend on the version of torch; what the libraries compute from them does, in the last
bits, which is why `versions.json` records the versions and the measured f32 noise. The
committed files were made with

    python 3.11.7  numpy 2.4.6  torch 2.15.0  transformers 5.23.0  peft 0.21.2  safetensors 0.8.0

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

# Four query heads share two key and value heads; the head is the token embedding.
TINY = dict(
    vocab_size=VOCAB, max_position_embeddings=32, hidden_size=24, intermediate_size=36,
    num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2,
    tie_word_embeddings=True, rope_parameters={"rope_type": "default", "rope_theta": 500.0},
    initializer_range=0.25, bos_token_id=VOCAB - 1, eos_token_id=VOCAB - 1, pad_token_id=None,
)
# None of the defaults fits, so that a reader which ignores a field fails: a head of its own,
# heads wider than hidden / heads, biases everywhere, another epsilon, scaled rotations of which
# the first frequency keeps its length, the second lies between, and the others are divided.
TINY_UNTIED = dict(
    TINY, hidden_size=20, intermediate_size=28, num_hidden_layers=2, num_attention_heads=2,
    num_key_value_heads=1, head_dim=12, tie_word_embeddings=False, attention_bias=True,
    mlp_bias=True, rms_norm_eps=1e-3,
    rope_parameters={
        "rope_type": "llama3", "rope_theta": 100.0, "factor": 4.0, "low_freq_factor": 1.0,
        "high_freq_factor": 2.0, "original_max_position_embeddings": 16,
    },
)
LINEAR = {"rope_type": "linear", "rope_theta": 500.0, "factor": 3.0}
TINY_QA = dict(TINY, num_hidden_layers=2, num_key_value_heads=4, rms_norm_eps=1e-3)


def new_config(sizes):
    """The configuration for `sizes`, with the attention whose sums are the plainest."""
    config = transformers.LlamaConfig(**sizes)
    config._attn_implementation = "eager"
    return config


def randomize(model, seed):
    """Draw every parameter: no bias is zero and no normalisation's gain is one."""
    rng = numpy.random.default_rng(seed)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            noise = rng.standard_normal(tuple(parameter.shape)).astype(numpy.float32)
            if name.endswith("bias"):
                value = 0.1 * noise
            elif name.endswith("norm.weight"):
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
    body = model.model

    def keep(name):
        def hook(_module, inputs, output):
            first = output[0] if isinstance(output, tuple) else output
            hidden[name] = first.detach().clone()
        return hook

    def keep_input(_module, inputs):
        hidden["hidden.0"] = inputs[0].detach().clone()

    hooks = [body.layers[0].register_forward_pre_hook(keep_input)]
    for index, block in enumerate(body.layers):
        hooks.append(block.register_forward_hook(keep(f"hidden.{index + 1}")))
    hooks.append(body.norm.register_forward_hook(keep("hidden.norm")))

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


def in_double(kind, config, model):
    """The same model with all arithmetic in f64."""
    double = kind(config).double().eval()
    double.load_state_dict({name: value.double() for name, value in model.state_dict().items()})
    return double


def save_tensors(tensors, path):
    """Write one safetensors file; refuses values that are not finite."""
    for name, tensor in tensors.items():
        assert torch.isfinite(tensor.double()).all(), f"{name} is not finite"
    save_file({name: tensor.clone().contiguous() for name, tensor in tensors.items()}, path)


def save_model(model, folder, **options):
    """`save_pretrained` without what says nothing about the model."""
    model.save_pretrained(folder, **options)
    (folder / "generation_config.json").unlink(missing_ok=True)


def write_language_model(folder, sizes, seed, noise):
    """A language model's folder with everything that is expected of it; returns model and batch."""
    config = new_config(sizes)
    model = randomize(transformers.LlamaForCausalLM(config), seed=seed)
    ids, mask, labels = draw_batch(seed=seed + 1)
    save_model(model, folder)
    stored = load_file(folder / "model.safetensors")
    assert ("lm_head.weight" in stored) != sizes["tie_word_embeddings"]

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

    double = in_double(transformers.LlamaForCausalLM, config, model)
    noise[folder.name] = largest_difference(passed, language_model_pass(double, ids, mask, labels))
    trained = train(model, ids, mask, labels)
    noise[f"{folder.name}_train_losses"] = largest_difference(
        trained, train(double, ids, mask, labels)
    )
    save_tensors(expected | trained, folder / "expected.safetensors")
    return ids, mask, labels


def write_sharded(out, ids, mask):
    """`tiny_sharded_bf16/`: the weights of `tiny/` rounded and in shards, rotations scaled linearly."""
    folder = out / "tiny_sharded_bf16"
    plain = transformers.LlamaForCausalLM.from_pretrained(
        out / "tiny", dtype=torch.bfloat16, attn_implementation="eager"
    )
    config = new_config(dict(TINY, rope_parameters=LINEAR))
    rounded = transformers.LlamaForCausalLM(config).to(torch.bfloat16)
    rounded.load_state_dict(plain.state_dict())
    save_model(rounded, folder, max_shard_size="12KB")
    shards = list(folder.glob("*.safetensors"))
    assert len(shards) >= 2, "the sharded folder has one shard only"

    widened = transformers.LlamaForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    with torch.no_grad():
        logits = widened(input_ids=ids, attention_mask=mask, use_cache=False).logits
    tiny = load_file(out / "tiny" / "expected.safetensors")["logits"]
    assert (tiny - logits).abs().max() > 0.5, "the scaling of rotations changes next to nothing"
    save_tensors(
        {"input_ids": ids, "attention_mask": mask, "logits": logits}, folder / "expected.safetensors"
    )


def write_qa(out, noise):
    """`tiny_qa/`: the span head, its loss and every gradient."""
    config = new_config(TINY_QA)
    model = randomize(transformers.LlamaForQuestionAnswering(config), seed=5)
    ids, mask, _ = draw_batch(seed=6)
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
    double = in_double(transformers.LlamaForQuestionAnswering, config, model)
    noise["tiny_qa"] = largest_difference(passed, span_pass(double))
    inputs = {
        "input_ids": ids, "attention_mask": mask,
        "start_positions": starts, "end_positions": ends,
    }
    save_tensors(inputs | passed, out / "tiny_qa" / "expected.safetensors")


def write_peft(out, batch):
    """`peft/`: a LoRA adapter over `tiny/` as PEFT writes it, its logits and its gradients."""
    ids, mask, labels = batch
    base = transformers.LlamaForCausalLM.from_pretrained(out / "tiny", attn_implementation="eager")
    base.name_or_path = base.config.name_or_path = "tiny"
    model = peft.get_peft_model(base, peft.LoraConfig(
        r=2, lora_alpha=4, lora_dropout=0.0, task_type="CAUSAL_LM", base_model_name_or_path="tiny",
        target_modules=[
            "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"
        ],
    )).eval()
    rng = numpy.random.default_rng(7)
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
    for name in ("tiny", "tiny_untied", "tiny_sharded_bf16", "tiny_qa", "peft"):
        if (out / name).exists():
            shutil.rmtree(out / name)

    noise = {}
    batch = write_language_model(out / "tiny", TINY, 9, noise)
    write_language_model(out / "tiny_untied", TINY_UNTIED, 20, noise)
    ids, mask, _ = batch
    write_sharded(out, ids, mask)
    write_qa(out, noise)
    write_peft(out, batch)
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
