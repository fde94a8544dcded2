#!/usr/bin/env python3
"""Write the golden GGUF files of gpt2-model and llama-model with the `gguf` package of llama.cpp.

    python make_gguf.py        # rewrites tests/golden/gguf of both crates, blocks.safetensors here, seeds of fuzz/

`gguf/floats.gguf` holds the weights of the `tiny` folder in f32, as llama.cpp's converter writes them: expected
values are those of that folder. `gguf/codes.gguf` is a model of its own in which every matrix has another type, and
`gguf/expected.safetensors` what `transformers` computes from the numbers that its codes stand for. Both carry the
tokenizer of `crates/squad-data/tests/golden/tokenizer/plain`. `blocks.safetensors` holds blocks of every type and
what the package makes of them.

The packages are those of `crates/gpt2-model/tests/golden/requirements.txt`, and `gguf`.
"""

import json
import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import gguf
import numpy
import torch
import transformers
from gguf import GGMLQuantizationType as Type
from safetensors.torch import save_file

CRATES = Path(__file__).resolve().parents[3]
TOKENIZER = CRATES / "squad-data/tests/golden/tokenizer/plain"
CONTROL, NORMAL = 3, 1
ARCHITECTURES = {"llama": gguf.MODEL_ARCH.LLAMA, "gpt2": gguf.MODEL_ARCH.GPT2}
TYPES = [Type.Q4_0, Type.Q4_1, Type.Q5_0, Type.Q5_1, Type.Q8_0, Type.Q4_K, Type.Q5_K, Type.Q6_K, Type.BF16, Type.F16]


def random_blocks(rng, kind, values):
    """Bytes of codes of a type that the package reads and does not write, with scales that leave the logits small."""
    block, size = gguf.GGML_QUANT_SIZES[kind]
    raw = rng.integers(0, 256, size=(values // block, size), dtype=numpy.uint8)
    scales = (1e-4 + 1e-4 * rng.random((len(raw), 2))).astype(numpy.float16)
    if kind == Type.Q6_K:
        raw[:, -2:] = scales[:, :1].view(numpy.uint8)
    else:
        raw[:, :4] = scales.view(numpy.uint8)
    return raw


def coded(rng, weight, kind):
    """A matrix as bytes of a type, and the numbers that these stand for."""
    try:
        raw = gguf.quants.quantize(weight, kind)
    except NotImplementedError:
        raw = random_blocks(rng, kind, weight.size).reshape(len(weight), -1)
    return raw, gguf.quants.dequantize(raw, kind).reshape(weight.shape)


def permuted(weight, heads):
    """Rows as llama.cpp's rotations have them: `LlamaModel.permute` of its converter."""
    return weight.reshape(heads, 2, len(weight) // heads // 2, *weight.shape[1:]).swapaxes(1, 2).reshape(weight.shape)


def turned_back(weight, heads):
    return weight.reshape(heads, len(weight) // heads // 2, 2, *weight.shape[1:]).swapaxes(1, 2).reshape(weight.shape)


def heads_of(name, config):
    if "q_proj" in name:
        return config.num_attention_heads
    return config.num_key_value_heads if "k_proj" in name else None


def in_file(family, name, weight, config):
    """A tensor as the converter of llama.cpp lays it out."""
    if family == "gpt2":
        is_linear = name.endswith(".weight") and weight.ndim == 2 and ".h." in name
        return weight.T if is_linear else weight
    heads = heads_of(name, config)
    return permuted(weight, heads) if heads else weight


def in_folder(family, name, weight, config):
    if family == "gpt2":
        return in_file(family, name, weight, config)
    heads = heads_of(name, config)
    return turned_back(weight, heads) if heads else weight


def add_tokenizer(writer, vocabulary):
    tokens = list(json.loads((TOKENIZER / "vocab.json").read_text()))
    merges = [line for line in (TOKENIZER / "merges.txt").read_text().splitlines()[1:] if line]
    # Tokens beyond the vocabulary, as converters write them.
    tokens += [f"[PAD{index}]" for index in range(len(tokens), vocabulary)]
    tokens = tokens[:vocabulary]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([CONTROL if token == "<|endoftext|>" else NORMAL for token in tokens])
    writer.add_token_merges(merges if vocabulary >= 283 else [])
    writer.add_eos_token_id(0)


def add_config(writer, family, config):
    if family == "gpt2":
        writer.add_context_length(config.n_positions)
        writer.add_embedding_length(config.n_embd)
        writer.add_block_count(config.n_layer)
        writer.add_feed_forward_length(config.n_inner or 4 * config.n_embd)
        writer.add_head_count(config.n_head)
        writer.add_layer_norm_eps(config.layer_norm_epsilon)
        return
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)


def frequency_factors(model):
    """What llama.cpp's converter writes for the rotations of Llama 3.1: plain frequencies over stretched ones."""
    config = model.config
    theta, dim = config.rope_parameters["rope_theta"], config.head_dim
    plain = 1.0 / (theta ** (torch.arange(0, dim, 2, dtype=torch.float32) / dim))
    return (plain / model.model.rotary_emb.inv_freq).numpy().astype(numpy.float32)


def write(path, family, model, kinds):
    """Writes a model; the names of matrices in `kinds` are held as those types. Gives the numbers of the file."""
    config, rng = model.config, numpy.random.default_rng(5)
    names = gguf.get_tensor_name_map(ARCHITECTURES[family], config.num_hidden_layers)
    writer = gguf.GGUFWriter(path, family)
    add_config(writer, family, config)
    add_tokenizer(writer, config.vocab_size)
    state = {}
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        own = names.get_name(name, try_suffixes=(".weight", ".bias"))
        weight = numpy.ascontiguousarray(in_file(family, name, tensor.float().numpy(), config))
        kind = kinds(own)
        if kind is None:
            writer.add_tensor(own, weight)
        else:
            raw, weight = coded(rng, weight, kind)
            writer.add_tensor(own, raw, raw_dtype=kind)
        state[name] = torch.from_numpy(numpy.ascontiguousarray(in_folder(family, name, weight, config)))
    if family == "llama" and config.rope_parameters["rope_type"] == "llama3":
        writer.add_tensor("rope_freqs.weight", frequency_factors(model))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return state


def floats(family, kind):
    model = kind.from_pretrained(CRATES / f"{family}-model/tests/golden/tiny", dtype=torch.float32)
    write(CRATES / f"{family}-model/tests/golden/gguf/floats.gguf", family, model, lambda name: None)


def codes(family, model, kinds):
    folder = CRATES / f"{family}-model/tests/golden/gguf"
    with torch.no_grad():
        for parameter in model.parameters():
            # No bias zero, no gain one.
            parameter += 0.05 * torch.randn(parameter.shape)
    state = write(folder / "codes.gguf", family, model.eval(), lambda name: kinds.get(name))
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected and all("lm_head" in name for name in missing), (missing, unexpected)
    ids = torch.randint(0, model.config.vocab_size, (1, 24))
    with torch.no_grad():
        save_file({"input_ids": ids, "logits": model(ids).logits}, folder / "expected.safetensors")


def llama_codes():
    torch.manual_seed(3)
    config = transformers.LlamaConfig(
        vocab_size=283, hidden_size=256, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=16, max_position_embeddings=64, rms_norm_eps=1e-5, attention_bias=True,
        tie_word_embeddings=False, initializer_range=0.05, attn_implementation="eager",
        rope_parameters={
            "rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 8192,
        },
    )
    parts = ["attn_q", "attn_k", "attn_v", "ffn_gate", "ffn_up", "attn_output", "ffn_down"]
    rows = [
        [Type.Q4_0, Type.Q4_1, Type.Q5_0, Type.Q4_K, Type.Q5_K, Type.Q5_1, Type.Q8_0],
        [Type.Q6_K, Type.Q5_K, Type.BF16, Type.Q5_1, Type.F16, Type.Q4_1, Type.Q4_0],
    ]
    kinds = {f"blk.{block}.{part}.weight": kind for block, row in enumerate(rows) for part, kind in zip(parts, row)}
    kinds |= {"token_embd.weight": Type.Q8_0, "output.weight": Type.Q6_K}
    codes("llama", transformers.LlamaForCausalLM(config), kinds)


def gpt2_codes():
    torch.manual_seed(4)
    config = transformers.GPT2Config(
        vocab_size=283, n_positions=48, n_embd=32, n_layer=2, n_head=2, initializer_range=0.15,
        attn_implementation="eager", bos_token_id=0, eos_token_id=0,
    )
    parts = ["attn_qkv", "attn_output", "ffn_up", "ffn_down"]
    rows = [[Type.Q4_0, Type.Q4_1, Type.Q8_0, Type.Q4_1], [Type.F16, Type.BF16, Type.Q5_1, Type.Q5_0]]
    kinds = {f"blk.{block}.{part}.weight": kind for block, row in enumerate(rows) for part, kind in zip(parts, row)}
    kinds |= {"token_embd.weight": Type.Q8_0}
    codes("gpt2", transformers.GPT2LMHeadModel(config), kinds)


def blocks():
    """Blocks of every type, of all bytes but those of the scales, and what they stand for."""
    rng, tensors = numpy.random.default_rng(7), {}
    for kind in TYPES:
        block, size = gguf.GGML_QUANT_SIZES[kind]
        if kind in (Type.BF16, Type.F16):
            raw = rng.integers(0, 0x7C00, size=64, dtype=numpy.uint16).view(numpy.uint8).reshape(1, -1)
        else:
            raw = rng.integers(0, 256, size=(3, size), dtype=numpy.uint8)
            at = [size - 2] if kind == Type.Q6_K else [0] if kind in (Type.Q4_0, Type.Q5_0, Type.Q8_0) else [0, 2]
            for byte in at:
                scale = rng.normal(0, 2, size=3).astype(numpy.float16)
                raw[:, byte : byte + 2] = scale.view(numpy.uint8).reshape(3, 2)
        tensors[f"{kind.name}.bytes"] = torch.from_numpy(raw.copy()).flatten()
        values = gguf.quants.dequantize(raw, kind).astype(numpy.float32)
        tensors[f"{kind.name}.values"] = torch.from_numpy(values.copy()).flatten()
    save_file(tensors, Path(__file__).resolve().parent / "blocks.safetensors")


def seeds():
    """Models as small as they can be, for `fuzz/seeds/gguf_file`."""
    folder = CRATES.parent / "fuzz/seeds/gguf_file"
    folder.mkdir(exist_ok=True)
    torch.manual_seed(6)
    llama = transformers.LlamaConfig(
        vocab_size=3, hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, head_dim=2, max_position_embeddings=4, tie_word_embeddings=True,
    )
    gpt2 = transformers.GPT2Config(vocab_size=3, n_positions=4, n_embd=4, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0)
    codes = {"blk.0.attn_q.weight": Type.Q4_1, "blk.0.ffn_up.weight": Type.Q4_0, "blk.0.ffn_gate.weight": Type.Q8_0}
    write(folder / "llama", "llama", transformers.LlamaForCausalLM(llama), lambda name: codes.get(name))
    write(folder / "gpt2", "gpt2", transformers.GPT2LMHeadModel(gpt2), lambda name: None)


if __name__ == "__main__":
    for family in ARCHITECTURES:
        (CRATES / f"{family}-model/tests/golden/gguf").mkdir(exist_ok=True)
    floats("llama", transformers.LlamaForCausalLM)
    floats("gpt2", transformers.GPT2LMHeadModel)
    llama_codes()
    gpt2_codes()
    blocks()
    seeds()
