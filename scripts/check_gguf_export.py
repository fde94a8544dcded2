#!/usr/bin/env python3
"""What llama.cpp makes of a file that `export-gguf` wrote, beside the plan that it was written of.

    switchable-quant export-gguf FLAGS --out FILE.gguf
    python scripts/check_gguf_export.py PROGRAM FILE.gguf "A prompt" [TOKENS] -- FLAGS

PROGRAM is `switchable-quant`, or the folder of the examples; FLAGS are those of model and plan, which `generate` takes
as well. It compares

- logits of the prompt by llama.cpp on the file's floats, everything in f32, with those of `import` on the same file:
  whether the file is read as it was meant;
- logits by llama.cpp on the file as it is, with its own arithmetic beside codes;
- the text that each continues the prompt with, by the best token, for TOKENS tokens, 48 by default, or to the end: of
  the floats in f32, and of the file as it is. Where the latter departs from the plan's, it says how far apart the two
  tokens are in f32: less than llama.cpp's own arithmetic moves a logit there, or the file is not that of the plan.

It fails where the logits of the floats differ by more than 1e-3 of the largest, or their texts do, or the file as it is
departs between tokens that are further apart than the largest difference. What it needs is said in
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


def continued(model, ids, tokens):
    """The best tokens behind some, and the logits that they were chosen by."""
    rows, new = [model.logits(ids)[-1]], []
    model.library.llama_vocab_is_eog.restype = ctypes.c_bool
    while len(new) < tokens:
        token = int(numpy.argmax(rows[-1]))
        if model.library.llama_vocab_is_eog(model.vocabulary, token):
            break
        new.append(token)
        rows.append(model.logits([token], len(ids) + len(new) - 1)[0])
    return new, numpy.stack(rows)


def runner(program):
    """Runs a command of the program, or of a folder of examples."""

    def run(command, *line):
        examples = {"import": "import_gpt2", "generate": "generate"}
        start = [str(Path(program) / examples[command])] if Path(program).is_dir() else [program, command]
        return subprocess.run([*start, *line], check=True, capture_output=True, text=True).stdout

    return run


def main():
    split = sys.argv.index("--")
    program, file, prompt, *rest = sys.argv[1:split]
    tokens, flags = int(rest[0]) if rest else 48, sys.argv[split + 1 :]
    run, faults = runner(program), []

    ids = tokenize(Model(file, exact=False), prompt)
    with tempfile.TemporaryDirectory() as folder:
        out, floats = Path(folder) / "logits.safetensors", Path(folder) / "floats.gguf"
        run("import", "--model", file, "--ids", ",".join(map(str, ids)), "--out", str(out))
        (ours,) = load_file(out).values()
        in_floats(file, floats)
        exact = Model(floats, exact=True).logits(ids)
        exact_ids, exact_rows = continued(Model(floats, exact=True), ids, tokens)
    theirs = Model(file, exact=False)
    own_ids, own_rows = continued(theirs, ids, tokens)
    ours = ours.reshape(exact.shape)
    largest, difference = numpy.abs(ours).max(), numpy.abs(exact - ours).max()
    print(f"{len(ids)} tokens, logits up to {largest:.2f}")
    print(f"floats of the file in f32   largest difference {difference:.1e}")
    if difference > 1e-3 * largest:
        faults.append("the file is read otherwise")

    length = ["--max-new-tokens", str(tokens), "--greedy"]
    plan = run("generate", *flags, "--prompt", prompt, *length).strip().removeprefix(prompt.strip()).rstrip("\n")
    texts = [text_of(theirs, ids) for ids in (exact_ids, own_ids)]
    if texts[0].strip() != plan.strip():
        faults.append(f"the text of the plan is {plan!r}, that of the floats {texts[0]!r}")
    same = next((i for i, (a, b) in enumerate(zip(exact_ids, own_ids)) if a != b), min(len(exact_ids), len(own_ids)))
    moved = numpy.abs(exact_rows[: same + 1] - own_rows[: same + 1]).max()
    print(f"the file as it is           largest difference {moved:.1e}, the same {same} tokens of {len(exact_ids)}")
    if exact_ids != own_ids:
        best, other = exact_rows[same].max(), exact_rows[same][own_rows[same].argmax()]
        print(f"                            then two tokens that are {best - other:.1e} apart in f32")
        if best - other > 2 * moved:
            faults.append("the file as it is departs between tokens that are not close")
    print(f"text        {texts[0]!r}")
    if faults:
        sys.exit("; ".join(faults))


if __name__ == "__main__":
    main()
