#!/usr/bin/env python3
"""Write the golden files of generation with Hugging Face transformers.

    python make_generation.py        # rewrites scores.json here, generation.json of gpt2-model and of llama-model

`scores.json`: what the processors and warpers of transformers leave of fixed scores, which tokens and with which
probabilities. `generation.json`: greedy continuations of the `tiny` folder of a family, alone with a repetition
penalty, and as a batch padded on the left of which a sequence ends early. The packages are those of
`crates/gpt2-model/tests/golden/requirements.txt`.
"""

import json
import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy
import torch
import transformers

HERE = Path(__file__).resolve().parent
CRATES = HERE.parents[2]
NEW = 16
LENGTHS = [1, 9, 4, 6]


def configuration(case):
    """The options of a case as transformers has them; its defaults are all that is not named."""
    draws = case["draws"]
    return transformers.GenerationConfig(
        do_sample=True,
        repetition_penalty=case["repetition_penalty"],
        temperature=draws["temperature"],
        top_k=draws["top_k"] or 0,
        top_p=1.0 if draws["top_p"] is None else draws["top_p"],
    )


def kept(model, case):
    """The tokens that may be drawn and their probabilities, by the processors that `generate` itself builds."""
    settings = configuration(case)
    ids = torch.tensor([case["seen"]])
    processors = model._get_logits_processor(generation_config=settings, input_ids_seq_length=ids.shape[1])
    scores = processors(ids, torch.tensor([case["scores"]], dtype=torch.float32))[0]
    probabilities = scores.double().softmax(-1)
    tokens = [token for token, score in enumerate(scores.tolist()) if score > -float("inf")]
    return {"tokens": tokens, "probabilities": [round(probabilities[token].item(), 9) for token in tokens]}


def scores():
    """Every combination of options over scores of both signs, and scores that are equal."""
    model = transformers.GPT2LMHeadModel.from_pretrained(CRATES / "gpt2-model/tests/golden/tiny")
    rng = numpy.random.default_rng(11)
    rows = [(3.0 * rng.standard_normal(40)).astype(numpy.float32).tolist() for _ in range(2)]
    cases = []
    for row in rows:
        for penalty in (1.0, 1.3):
            for temperature in (1.0, 0.6, 1.7):
                for top_k in (None, 1, 7, 40, 100):
                    for top_p in (None, 0.9, 0.5, 0.05):
                        draws = {"temperature": temperature, "top_k": top_k, "top_p": top_p}
                        seen = [3, 17, 3, 39, int(numpy.argmax(row)), int(numpy.argmin(row))]
                        cases.append({"row": rows.index(row), "seen": seen, "repetition_penalty": penalty, "draws": draws})
    equal = [[1.0] * 4, [2.0, 1.0, 2.0, 1.0, 0.0], [0.0, 3.0, 3.0, 3.0, -1.0]]
    for row in equal:
        for top_k, top_p in ((None, 0.6), (2, None), (1, None), (3, 0.7)):
            draws = {"temperature": 1.0, "top_k": top_k, "top_p": top_p}
            cases.append({"row": len(rows) + equal.index(row), "seen": [0], "repetition_penalty": 1.0, "draws": draws})
    rows += equal
    for case in cases:
        case["scores"] = rows[case["row"]]
        case |= kept(model, case)
        del case["scores"]
    assert len({json.dumps(case["tokens"]) for case in cases}) > 20, "the options make no difference"
    return {"rows": rows, "cases": cases}


def greedy(model, prompts, eos, penalty):
    """The new tokens of each prompt, up to the end; fails where two candidates are close."""
    longest = max(map(len, prompts))
    ids = torch.tensor([[0] * (longest - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    output = model.generate(
        ids, attention_mask=mask,
        generation_config=transformers.GenerationConfig(
            do_sample=False, max_new_tokens=NEW, eos_token_id=eos, pad_token_id=0, repetition_penalty=penalty,
            output_scores=True, return_dict_in_generate=True,
        ),
    )
    texts = []
    for row, tokens in enumerate(output.sequences[:, longest:].tolist()):
        end = tokens.index(eos) if eos in tokens else len(tokens)
        texts.append(tokens[:end])
        for step in range(min(end + 1, len(tokens))):
            best = output.scores[step][row].topk(2).values
            assert best[0] - best[1] > 1e-3, f"row {row}, step {step}: {best.tolist()}: choose another seed"
    return texts


def generation(folder, seed):
    """Greedy continuations of a folder's model."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    model.eval()
    model.generation_config = transformers.GenerationConfig()
    rng = numpy.random.default_rng(seed)
    prompts = [rng.integers(0, model.config.vocab_size, size=length).tolist() for length in LENGTHS]
    whole = greedy(model, prompts, None, 1.0)
    assert all(len(text) == NEW for text in whole)
    # Ends the second sequence after some tokens, if not others too.
    stop = whole[1][4]
    batch = greedy(model, prompts, stop, 1.0)
    assert len({len(text) for text in batch}) > 1, "all sequences end together"
    alone = [greedy(model, [prompt], stop, 1.0)[0] for prompt in prompts]
    assert alone == batch, "transformers itself gives a sequence other tokens in a batch"
    penalised = [greedy(model, [prompt], None, 1.3)[0] for prompt in prompts]
    assert penalised != whole, "the penalty makes no difference"
    return {"prompts": prompts, "whole": whole, "stop": stop, "batch": batch, "penalty": 1.3, "penalised": penalised}


def main():
    torch.set_num_threads(1)
    files = {HERE / "scores.json": scores()}
    for family, seed in (("gpt2-model", 21), ("llama-model", 22)):
        golden = CRATES / family / "tests/golden"
        files[golden / "generation.json"] = generation(golden / "tiny", seed)
    for path, value in files.items():
        path.write_text(json.dumps(value) + "\n")
        print(path.relative_to(CRATES), path.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
