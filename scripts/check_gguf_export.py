#!/usr/bin/env python3
"""What llama.cpp makes of a file that `export-gguf` wrote, beside the plan that it was written of.

    switchable-quant export-gguf FLAGS --out FILE.gguf
    python scripts/check_gguf_export.py PROGRAM FILE.gguf "A prompt" [TOKENS] -- FLAGS

PROGRAM is `switchable-quant`, or the folder of the examples; FLAGS are those of model and plan, which `generate` takes
as well. It compares

- logits of the prompt by llama.cpp on the file's floats, everything in f32, with those of `import` on the same file:
  whether the file is read as it was meant;
- logits by llama.cpp on the file as it is, with its own arithmetic beside codes;
- the text that each continues the prompt with, by the best token, for TOKENS tokens, 48 by default, or to the end.

It fails where the first differ by more than 1e-3 of the largest logit, or the texts differ. What it needs is said in
`compare_llama_cpp.py`.
"""

import ctypes
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy
from safetensors.numpy import load_file

from compare_llama_cpp import Model, in_floats


def tokenize(model, text):
    data, room = text.encode(), 4 * len(text.encode()) + 8
    ids = (ctypes.c_int32 * room)()
    count = model.library.llama_tokenize(
        model.vocabulary, data, len(data), ids, room, ctypes.c_bool(False), ctypes.c_bool(False)
    )
    return list(ids[:count])


def text_of(model, ids):
    pieces, room = b"", 256
    for token in ids:
        piece = ctypes.create_string_buffer(room)
        length = model.library.llama_token_to_piece(model.vocabulary, token, piece, room, 0, ctypes.c_bool(False))
        pieces += piece.raw[:length]
    return pieces.decode(errors="replace")


def continued(path, prompt, tokens):
    """The best tokens behind a prompt."""
    model = Model(path, exact=False)
    ids = tokenize(model, prompt)
    logits, new = model.logits(ids)[-1], []
    model.library.llama_vocab_is_eog.restype = ctypes.c_bool
    while len(new) < tokens:
        token = int(numpy.argmax(logits))
        if model.library.llama_vocab_is_eog(model.vocabulary, token):
            break
        new.append(token)
        logits = model.logits([token], len(ids) + len(new) - 1)[0]
    return text_of(model, new)


def main():
    split = sys.argv.index("--")
    program, file, prompt, *rest = sys.argv[1:split]
    tokens, flags = int(rest[0]) if rest else 48, sys.argv[split + 1 :]

    def run(command, *line):
        examples = {"import": "import_gpt2", "generate": "generate"}
        start = [str(Path(program) / examples[command])] if Path(program).is_dir() else [program, command]
        return subprocess.run([*start, *line], check=True, capture_output=True, text=True).stdout

    as_it_is = Model(file, exact=False)
    ids = tokenize(as_it_is, prompt)
    with tempfile.TemporaryDirectory() as folder:
        out, floats = Path(folder) / "logits.safetensors", Path(folder) / "floats.gguf"
        run("import", "--model", file, "--ids", ",".join(map(str, ids)), "--out", str(out))
        (ours,) = load_file(out).values()
        in_floats(file, floats)
        exact = Model(floats, exact=True).logits(ids)
    theirs = as_it_is.logits(ids)
    ours = ours.reshape(exact.shape)
    largest = numpy.abs(ours).max()
    difference, own = numpy.abs(exact - ours).max(), numpy.abs(theirs - ours).max()
    same = (theirs.argmax(axis=1) == ours.argmax(axis=1)).sum()
    print(f"{len(ids)} tokens, logits up to {largest:.2f}")
    print(f"floats of the file in f32: largest difference {difference:.2e}")
    print(f"the file as it is: largest difference {own:.2e}, the same best token behind {same} of {len(ids)}")
    length = ["--max-new-tokens", str(tokens), "--greedy"]
    expected = run("generate", *flags, "--prompt", prompt, *length)
    got = continued(file, prompt, tokens)
    # `generate` prints the prompt first and ends the line.
    expected = expected.removesuffix("\n").removeprefix(prompt)
    print(f"plan       {expected!r}\nllama.cpp  {got!r}")
    if difference > 1e-3 * largest or got.strip() != expected.strip():
        sys.exit("not the same")


if __name__ == "__main__":
    main()
