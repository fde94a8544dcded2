#!/usr/bin/env python3
"""GPT-2 small in llama.cpp, with the shapes of the Rust benches.

    python3 -m venv venv-llama && venv-llama/bin/pip install -r benches/peers/requirements-llama.txt
    venv-llama/bin/python benches/peers/llama.py llama.cpp/decode/q4_0/1x128 llama.cpp/gpt2_forward/f32/4x256

It prints `id seconds`, a line for each id. With `--serve` it reads an id per line on stdin and answers
`id seconds` or `id unknown`; compare.py drives that. `--list` prints the ids.

The model has the random weights of a GPT-2 small, is written as GGUF to a temporary folder when an id first asks for
its number format, and has a vocabulary that stands for no texts: prompts are token ids.

    llama.cpp/gpt2_forward/FORMAT/4x256   a prompt of 256 tokens, times 4; the logits of its last token are in it
    llama.cpp/decode/FORMAT/1x128         a token, behind 128 to 144 others: logits, and the choice of the likeliest

    f32, f16          all matrices
    q8_0              8 bits, a scale for each 32 values in a row, and so in the head
    q4_0              4 bits likewise; the head, which is the token embedding, in q8_0

Products with q8_0 and q4_0 quantise activations to 8 bits, a scale for each 32. Times are llama.cpp's own.
"""

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path

import gguf
import numpy
import xllamacpp
from gguf import GGMLQuantizationType as Type

from arguments import positive

WIDTH, BLOCKS, HEADS, INNER, VOCABULARY, POSITIONS = 768, 12, 12, 3072, 50257, 1024
PROMPT, BATCH, CACHED, GENERATED = 256, 4, 128, 16
FORMATS = {  # of the matrices, of the embedding
    "f32": (Type.F32, Type.F32),
    "f16": (Type.F16, Type.F16),
    "q8_0": (Type.Q8_0, Type.Q8_0),
    "q4_0": (Type.Q4_0, Type.Q8_0),
}
IDS = {
    f"llama.cpp/{task}/{name}/{shape}": (task, name)
    for task, shape in [("gpt2_forward", f"{BATCH}x{PROMPT}"), ("decode", f"1x{CACHED}")]
    for name in FORMATS
}


def write_model(path, matrices, embedding):
    """GPT-2 small with random weights, the same in every format but for rounding."""
    random = numpy.random.default_rng(0)
    writer = gguf.GGUFWriter(path, "gpt2")
    writer.add_context_length(POSITIONS)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(INNER)
    writer.add_block_count(BLOCKS)
    writer.add_head_count(HEADS)
    writer.add_layer_norm_eps(1e-5)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([f"<{token}>" for token in range(VOCABULARY)])
    writer.add_token_types([gguf.TokenType.NORMAL] * VOCABULARY)
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(VOCABULARY - 1)
    writer.add_eos_token_id(VOCABULARY - 1)

    def add(name, shape, mean=0.0, format=Type.F32):
        values = mean + 0.02 * random.standard_normal(shape, dtype=numpy.float32)
        if format == Type.F32:
            writer.add_tensor(name, values)
        else:
            writer.add_tensor(name, gguf.quants.quantize(values, format), raw_dtype=format)

    def add_norm(name):
        add(f"{name}.weight", WIDTH, mean=1.0)
        add(f"{name}.bias", WIDTH)

    add("token_embd.weight", (VOCABULARY, WIDTH), format=embedding)
    add("position_embd.weight", (POSITIONS, WIDTH))
    add_norm("output_norm")
    for block in (f"blk.{index}" for index in range(BLOCKS)):
        add_norm(f"{block}.attn_norm")
        add_norm(f"{block}.ffn_norm")
        for name, d_out, d_in in [("attn_qkv", 3 * WIDTH, WIDTH), ("attn_output", WIDTH, WIDTH),
                                  ("ffn_up", INNER, WIDTH), ("ffn_down", WIDTH, INNER)]:
            add(f"{block}.{name}.weight", (d_out, d_in), format=matrices)
            add(f"{block}.{name}.bias", d_out)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


class Model:
    """A model in memory."""

    def __init__(self, folder, name, threads):
        path = Path(folder) / f"{name}.gguf"
        write_model(path, *FORMATS[name])
        parameters = xllamacpp.CommonParams()
        parameters.model.path = str(path)
        parameters.n_ctx = POSITIONS
        parameters.n_batch = parameters.n_ubatch = PROMPT
        parameters.n_parallel = 1
        parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = threads
        parameters.cache_ram_mib = 0
        parameters.fit_params = False
        parameters.warmup = True
        parameters.verbosity = -1
        self.server = xllamacpp.Server(parameters)
        self.ids = numpy.random.default_rng(1).integers(0, VOCABULARY - 1, PROMPT).tolist()
        path.unlink()

    def timings(self, prompt, tokens):
        """llama.cpp's own times of a prompt that it does not remember, and of tokens behind it."""
        answer = self.server.handle_completions({
            "prompt": self.ids[:prompt], "n_predict": tokens, "cache_prompt": False, "ignore_eos": True,
            "temperature": 0, "samplers": [],
        })
        timings = (json.loads(answer) if isinstance(answer, str) else answer)["timings"]
        if (timings["prompt_n"], timings["predicted_n"]) != (prompt, tokens):
            raise SystemExit(f"llama.cpp was asked for {prompt} and {tokens} tokens and counts {timings}")
        return timings

    def seconds(self, task):
        if task == "gpt2_forward":
            return 1e-3 * BATCH * self.timings(PROMPT, 1)["prompt_ms"]
        # The first of the tokens comes from the prompt's own pass.
        return 1e-3 * self.timings(CACHED, GENERATED + 1)["predicted_ms"] / GENERATED


class Models:
    """Models by their number formats, made as they are asked for."""

    def __init__(self, folder, threads, repetitions):
        self.folder, self.threads, self.repetitions, self.made = folder, threads, repetitions, {}

    def seconds(self, name):
        """The median, None for an id that is not known."""
        if name not in IDS:
            return None
        task, kind = IDS[name]
        if kind not in self.made:
            self.made[kind] = Model(self.folder, kind, self.threads)
            self.made[kind].seconds(task)
        return statistics.median(self.made[kind].seconds(task) for _ in range(self.repetitions))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ids", nargs="*", metavar="ID", help="what is timed (default: all)")
    parser.add_argument("--threads", type=positive(int), default=2, help="threads (default 2)")
    parser.add_argument("--repetitions", type=positive(int), default=3, metavar="N",
                        help="an answer is the median of so many (default 3)")
    parser.add_argument("--list", action="store_true", help="print the ids and stop")
    parser.add_argument("--serve", action="store_true", help="answer ids on stdin, see above")
    arguments = parser.parse_args()
    if arguments.list:
        print("\n".join(IDS))
        return
    with tempfile.TemporaryDirectory() as folder:
        models = Models(folder, arguments.threads, arguments.repetitions)
        names = (line.strip() for line in sys.stdin) if arguments.serve else arguments.ids or IDS
        for name in names:
            seconds = models.seconds(name)
            print(f"{name} unknown" if seconds is None else f"{name} {seconds:.9f}", flush=True)


if __name__ == "__main__":
    main()
