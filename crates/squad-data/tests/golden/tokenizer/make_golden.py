"""Makes the tokenizer folders of this folder and what `transformers` reads from them.

    python3 make_golden.py        # transformers 5.23

A case is a folder of one BPE vocabulary of 300 tokens with the files that say what is added to it.
`expected.json` holds the ids of `TEXTS`, with special tokens split as other text, and the special tokens.
"""

import json
import shutil
from pathlib import Path

from tokenizers import ByteLevelBPETokenizer
from transformers import AutoTokenizer

HERE = Path(__file__).parent
TEXTS = [
    "Ada keeps a crab, and the crow <new> keeps Ada.",
    "<|endoftext|>Ada</s> <sep>keeps<pad> <new>two  crabs\n\nété 🦀",
    " the crab",
]
CORPUS = ["Ada keeps a crab, the crow keeps the camel and the crab keeps Ada.", "the the crabs the crows"] * 4


def write(case: Path, name: str, value) -> None:
    (case / name).write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def flags(content: str, special: bool, **others) -> dict:
    base = {"content": content, "lstrip": False, "rstrip": False, "single_word": False, "normalized": not special}
    return {**base, "special": special, **others}


def main() -> None:
    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(CORPUS, vocab_size=299, min_frequency=1, special_tokens=["<|endoftext|>"], show_progress=False)
    size = bpe.get_vocab_size()
    added = {"<sep>": size, "<pad>": size + 1, "<new>": size + 2, "</s>": size + 3}
    named = {"eos_token": "</s>", "sep_token": "<sep>", "pad_token": flags("<pad>", True)}
    decoder = {str(i): flags(t, t != "<new>", lstrip=t == "<new>") for t, i in added.items()}
    gpt2 = {"tokenizer_class": "GPT2Tokenizer"}
    fast = {"tokenizer_class": "PreTrainedTokenizerFast"}
    cases = {
        "plain": {},
        "added_tokens": {"added_tokens.json": added},
        "special_tokens_map": {"added_tokens.json": added, "special_tokens_map.json": named},
        "decoder": {"tokenizer_config.json": {**gpt2, "added_tokens_decoder": decoder, "eos_token": "</s>", "pad_token": "<pad>"}},
        "prefix_space": {"tokenizer_config.json": {**gpt2, "add_prefix_space": True}},
        "named_only": {"tokenizer_config.json": {**gpt2, "eos_token": "</s>", "pad_token": "<pad>"}},
        "disagreeing": {"added_tokens.json": added, "special_tokens_map.json": {"eos_token": "<sep>"}, "tokenizer_config.json": {**gpt2, "eos_token": "</s>"}},
        "json_decoder": {"tokenizer.json": None, "tokenizer_config.json": {**fast, "added_tokens_decoder": decoder, "eos_token": "</s>"}},
        "json_added_tokens": {"tokenizer.json": None, "added_tokens.json": added, "special_tokens_map.json": named},
    }
    expected = {}
    for name, files in cases.items():
        case = HERE / name
        shutil.rmtree(case, ignore_errors=True)
        case.mkdir()
        if "tokenizer.json" in files:
            files = {k: v for k, v in files.items() if k != "tokenizer.json"}
            bpe.save(str(case / "tokenizer.json"), pretty=False)
        else:
            bpe.save_model(str(case))
        write(case, "config.json", {"model_type": "gpt2"})
        for file, value in files.items():
            write(case, file, value)
        tokenizer = AutoTokenizer.from_pretrained(case)
        expected[name] = {
            "ids": [tokenizer(text, split_special_tokens=True)["input_ids"] for text in TEXTS],
            "eos": tokenizer.eos_token_id,
            "pad": tokenizer.pad_token_id,
            "sep": tokenizer.sep_token_id,
            "size": len(tokenizer),
        }
    write(HERE, "expected.json", {"texts": TEXTS, "cases": expected})


main()
