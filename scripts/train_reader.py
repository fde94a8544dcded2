#!/usr/bin/env python3
"""Trains a GPT-2 with a span head from nothing, with PyTorch: the base that the crates then work on.

    train_reader.py --model DIR --text FILE.. --cloze FILE.. --squad FILE.. --held-out FILE --out DIR

Three stages, each from the weights that the last one left:

    text    next tokens of running text
    cloze   spans of cloze questions (example `cloze_questions`), next tokens beside them
    squad   spans of real questions, next tokens beside them; an average of the weights is kept

`--model` is a folder that `pretrain --steps 1 --learning-rate 1e-9` made: tokenizer, shape, how often a window holds
its context (`context_reads`), and the weights to start from. `--out` gets a folder of each stage, as
`GPT2ForQuestionAnswering`; `evaluate --model OUT/squad` then answers by the crates' own code. `--held-out` is measured on
after each stage; nothing is chosen by it.

Needs torch, numpy, tokenizers, safetensors, and for `.zst` files pyarrow or the program zstd.
"""

import argparse
import collections
import itertools
import json
import math
import multiprocessing
import os
import re
import shutil
import string
import subprocess
import sys
import time

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

END_OF_DOCUMENT = "<|endoftext|>"
LONGEST_ANSWER = 30
IMPOSSIBLE = -1e9


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--text", nargs="+", required=True)
    parser.add_argument("--cloze", nargs="+", required=True)
    parser.add_argument("--squad", nargs="+", required=True)
    parser.add_argument("--held-out", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--tokens", type=int, default=32768, help="tokens of a step, padding counted")
    parser.add_argument("--text-tokens", type=int, default=150_000_000, help="of the whole stage")
    parser.add_argument("--text-rate", type=float, default=2e-3)
    parser.add_argument("--cloze-questions", type=int, default=1_000_000, help="of the whole stage")
    parser.add_argument("--cloze-rate", type=float, default=1.5e-3)
    parser.add_argument("--cloze-next-token", type=float, default=0.5)
    parser.add_argument("--squad-epochs", type=float, default=6)
    parser.add_argument("--squad-rate", type=float, default=7e-4)
    parser.add_argument("--squad-next-token", type=float, default=0.2)
    parser.add_argument("--dropout", type=float, default=0.1, help="in the stage squad")
    parser.add_argument("--weight-decay", type=float, default=0.05)
    parser.add_argument("--average", type=float, default=0.998, help="decay of the average of weights per step")
    parser.add_argument("--held-out-questions", type=int, help="measure on at most so many, to try things out")
    parser.add_argument("--stop-after", type=float, default=math.inf, help="seconds after which a stage is cut short")
    return parser.parse_args()


# Reading files.


def open_text(path):
    if not path.endswith(".zst"):
        return open(path, "rb")
    try:
        import pyarrow

        return pyarrow.input_stream(path, compression="zstd")
    except ImportError:
        return subprocess.Popen(["zstd", "-dc", path], stdout=subprocess.PIPE).stdout


def documents(path):
    with open_text(path) as file:
        text = file.read().decode()
    return [text for text in (part.strip() for part in text.split("\n" + END_OF_DOCUMENT)) if text]


def tokens_of_text(tokenizer, end, path):
    encoded = tokenizer.encode_batch_fast(documents(path), add_special_tokens=False)
    return np.concatenate([np.array(one.ids + [end], dtype=np.uint16) for one in encoded])


# Windows: question, then separator and context as often as the context is read, as `squad_data::windows` has them.

Window = collections.namedtuple("Window", "ids context_start start end question first")


def windows_of(files, tokenizer, separator, longest, reads, train, limit=None):
    """The windows of SQuAD files; those without their answer are left out where they are trained on."""
    contexts, questions = [], []
    for path in files:
        with open(path) as file:
            articles = json.load(file)["data"]
        for paragraph in itertools.chain.from_iterable(article["paragraphs"] for article in articles):
            for question in paragraph["qas"]:
                answers = [(a["answer_start"], a["answer_start"] + len(a["text"]), a["text"]) for a in question["answers"]]
                questions.append((question["id"], question["question"], len(contexts), answers))
            contexts.append(paragraph["context"])
    questions = questions[:limit]
    encoded = tokenizer.encode_batch(contexts, add_special_tokens=False)
    asked = tokenizer.encode_batch_fast([question[1] for question in questions], add_special_tokens=False)
    ids = [np.array(one.ids, dtype=np.uint16) for one in encoded]
    begins = [np.array([begin for begin, _ in one.offsets]) for one in encoded]
    ends = [np.array([end for _, end in one.offsets]) for one in encoded]
    windows = []
    for number, ((_, _, context, answers), question) in enumerate(zip(questions, asked)):
        question = np.array(question.ids, dtype=np.uint16)
        room = (longest - len(question)) // reads - 1
        if room < 1:
            continue
        step = room - min(longest // 3 // reads, room // 2)
        spans = []
        for begin, end, _ in answers:
            first, behind = np.searchsorted(ends[context], begin, "right"), np.searchsorted(begins[context], end, "left")
            if first < behind:
                spans.append((first, behind - 1))
        first = 0
        while True:
            behind = min(len(ids[context]), first + room)
            inside = next(((s, e) for s, e in spans if first <= s and e < behind), None)
            if inside or not train:
                read = np.concatenate([[separator], ids[context][first:behind]])
                window = np.concatenate([question] + [read] * reads).astype(np.uint16)
                start = len(window) - (behind - first)
                span = (start + inside[0] - first, start + inside[1] - first) if inside else (0, 0)
                windows.append(Window(window, start, *span, number, first))
            if behind == len(ids[context]):
                break
            first += step
    return windows, questions, contexts, begins, ends


def batches(windows, tokens, seed):
    """Batches of windows of like length, `tokens` at most with their padding, in a random order, for ever."""
    random = np.random.default_rng(seed)
    while True:
        order = random.permutation(len(windows))
        for pool in np.array_split(order, max(1, len(order) // 8192)):
            pool = sorted(pool, key=lambda index: len(windows[index].ids))
            cut, batch = [], []
            for index in pool:
                if batch and (len(batch) + 1) * rounded(len(windows[index].ids)) > tokens:
                    cut.append(batch)
                    batch = []
                batch.append(index)
            cut.append(batch)
            for number in random.permutation(len(cut)):
                yield [windows[index] for index in cut[number]]


def rounded(length):
    return -(-length // 32) * 32


def tensors(batch, pad, device):
    longest = rounded(max(len(window.ids) for window in batch))
    ids = np.full((len(batch), longest), pad, dtype=np.int64)
    spans = np.array([(w.context_start, len(w.ids), w.start, w.end) for w in batch])
    for row, window in enumerate(batch):
        ids[row, : len(window.ids)] = window.ids
    ids, spans = torch.from_numpy(ids), torch.from_numpy(spans)
    if device.type == "cuda":
        ids, spans = ids.pin_memory(), spans.pin_memory()
    return ids.to(device, non_blocking=True), spans.to(device, non_blocking=True)


# The model.


class Reader(torch.nn.Module):
    """A GPT-2 with tied embeddings and a span head, its parameters under their Hugging Face names."""

    def __init__(self, config, weights):
        super().__init__()
        self.config = config
        self.blocks, self.heads, self.width = config["n_layer"], config["n_head"], config["n_embd"]
        self.epsilon, self.dropout = config["layer_norm_epsilon"], 0.0
        weights = dict(weights)
        for name, shape in [("qa_outputs.weight", (2, self.width)), ("qa_outputs.bias", (2,))]:
            if name not in weights:
                weights[name] = torch.zeros(shape) if "bias" in name else torch.randn(shape) * 0.02
        self.weights = torch.nn.ParameterDict(
            {name.replace(".", "/"): torch.nn.Parameter(value.float()) for name, value in weights.items()}
        )

    def of(self, name):
        return self.weights[name.replace(".", "/")]

    def normalised(self, x, name):
        return F.layer_norm(x, (self.width,), self.of(name + ".weight"), self.of(name + ".bias"), self.epsilon)

    def linear(self, x, name):
        return F.linear(x, self.of(name + ".weight").t(), self.of(name + ".bias"))

    def dropped(self, x):
        return F.dropout(x, self.dropout, self.training)

    def forward(self, ids):
        rows, length = ids.shape
        x = F.embedding(ids, self.of("transformer.wte.weight")) + self.of("transformer.wpe.weight")[:length]
        x = self.dropped(x)
        for block in range(self.blocks):
            name = f"transformer.h.{block}."
            qkv = self.linear(self.normalised(x, name + "ln_1"), name + "attn.c_attn")
            q, k, v = qkv.view(rows, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
            mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            mixed = mixed.transpose(1, 2).reshape(rows, length, self.width)
            x = x + self.dropped(self.linear(mixed, name + "attn.c_proj"))
            inner = self.linear(self.normalised(x, name + "ln_2"), name + "mlp.c_fc")
            x = x + self.dropped(self.linear(F.gelu(inner, approximate="tanh"), name + "mlp.c_proj"))
        return self.normalised(x, "transformer.ln_f")

    def next_token_loss(self, hidden, ids, padding=None):
        logits = F.linear(hidden[:, :-1], self.of("transformer.wte.weight"))
        targets = ids[:, 1:] if padding is None else ids[:, 1:].masked_fill(padding[:, 1:], -100)
        return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())

    def span_scores(self, hidden, spans):
        scores = F.linear(hidden.float(), self.of("qa_outputs.weight"), self.of("qa_outputs.bias"))
        places = torch.arange(hidden.shape[1], device=hidden.device)
        # The last separator stands for "no answer": it may be scored too.
        outside = (places < spans[:, 0:1] - 1) | (places >= spans[:, 1:2])
        return scores.masked_fill(outside[..., None], IMPOSSIBLE).unbind(-1)


class Run:
    """What the stages share."""

    def __init__(self, options, model, device):
        self.options, self.model, self.device = options, model, device
        self.log = open(os.path.join(options.out, "train.jsonl"), "a")

    def stage(self, name, steps, rate, losses, average=0.0):
        """AdamW over `steps` losses; warm-up, then linear decay to a twentieth of the rate."""
        model, options = self.model, self.options
        decayed = [p for p in model.parameters() if p.dim() > 1]
        others = [p for p in model.parameters() if p.dim() <= 1]
        groups = [{"params": decayed, "weight_decay": options.weight_decay}, {"params": others, "weight_decay": 0.0}]
        optimizer = torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98), fused=self.device.type == "cuda")
        mean = [p.detach().clone() for p in model.parameters()] if average else None
        warm_up, begun, seen, shown = max(1, steps // 25), time.time(), 0, time.time()
        model.train()
        for step in range(steps):
            late = time.time() - begun > options.stop_after
            for group in optimizer.param_groups:
                group["lr"] = rate * min((step + 1) / warm_up, 1 - 0.95 * step / steps)
            with torch.autocast(self.device.type, torch.bfloat16):
                loss, main, tokens = next(losses)(model)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            if mean:
                decay = min(average, (step + 1) / (step + 10))
                torch._foreach_lerp_(mean, [p.detach() for p in model.parameters()], 1 - decay)
            seen += tokens
            if step % 50 == 0 or step + 1 == steps or late:
                taken = time.time() - begun
                line = {"stage": name, "step": step, "of": steps, "loss": loss.item(), "main_loss": main.item()}
                line |= {"tokens": seen, "seconds": round(taken, 1)}
                print(json.dumps(line), file=self.log, flush=True)
                if time.time() - shown > 10 or step + 1 == steps or late:
                    shown = time.time()
                    left = taken / (step + 1) * (steps - step - 1)
                    print(f"{name} {step + 1}/{steps} loss {loss:.3f} (task {main:.3f}) "
                          f"{seen / taken:.0f} tokens/s, {left:.0f} s left", flush=True)
                if not math.isfinite(loss.item()):
                    sys.exit(f"{name}: the loss of step {step} is {loss.item()}")
                if late:
                    print(f"{name}: cut short")
                    break
        if mean:
            with torch.no_grad():
                for parameter, value in zip(model.parameters(), mean):
                    parameter.copy_(value)
        model.eval()

    def text_losses(self, tokens):
        options, length = self.options, 512
        length = min(length, self.model.config["n_positions"])
        rows = max(1, options.tokens // length)
        stream = torch.from_numpy(tokens.astype(np.int32)).to(self.device)
        random = np.random.default_rng(options.seed)
        starts = np.array([], dtype=np.int64)
        while True:
            if len(starts) < rows:
                # Every epoch is cut at other places.
                cut = np.arange(random.integers(length), len(tokens) - length, length)
                starts = np.concatenate([starts, random.permutation(cut)])
            some, starts = torch.from_numpy(starts[:rows]).to(self.device), starts[rows:]
            ids = stream[some[:, None] + torch.arange(length, device=self.device)].long()

            def loss(model, ids=ids):
                loss = model.next_token_loss(model(ids), ids)
                return loss, loss, ids.numel()

            yield loss

    def span_losses(self, windows, pad, next_token):
        for batch in batches(windows, self.options.tokens, self.options.seed):
            ids, spans = tensors(batch, pad, self.device)

            def loss(model, ids=ids, spans=spans, tokens=sum(len(w.ids) for w in batch)):
                hidden = model(ids)
                start, end = model.span_scores(hidden, spans)
                span = (F.cross_entropy(start, spans[:, 2]) + F.cross_entropy(end, spans[:, 3])) / 2
                total = span
                if next_token:
                    padding = torch.arange(ids.shape[1], device=ids.device) >= spans[:, 1:2]
                    total = span + next_token * model.next_token_loss(hidden, ids, padding)
                return total, span, tokens

            yield loss

    def save(self, stage):
        options, model = self.options, self.model
        target = os.path.join(options.out, stage)
        os.makedirs(target, exist_ok=True)
        for name in os.listdir(options.model):
            if name.startswith("tokenizer") or name in ("vocab.json", "merges.txt"):
                shutil.copy(os.path.join(options.model, name), target)
        config = model.config | {"architectures": ["GPT2ForQuestionAnswering"]}
        with open(os.path.join(target, "config.json"), "w") as file:
            json.dump(config, file, indent=2, sort_keys=True)
        weights = {name.replace("/", "."): value.detach().cpu().contiguous() for name, value in model.weights.items()}
        save_file(weights, os.path.join(target, "model.safetensors"), metadata={"format": "pt"})


# The official metric of SQuAD v1.1.


def normalised_answer(text):
    text = "".join(c for c in text.lower() if c not in set(string.punctuation))
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def f1(got, gold):
    got, gold = normalised_answer(got).split(), normalised_answer(gold).split()
    same = sum((collections.Counter(got) & collections.Counter(gold)).values())
    return 2 * same / (len(got) + len(gold)) if same else 0.0


def best_spans(start, end, spans):
    """Of each row the score of its best span of the context, and where the span begins and ends."""
    places = torch.arange(start.shape[1], device=start.device)
    start = start.float().masked_fill(places < spans[:, 0:1], 2 * IMPOSSIBLE)
    distance = places[None, :] - places[:, None]
    allowed = (distance >= 0) & (distance < LONGEST_ANSWER)
    pairs = (start[:, :, None] + end.float()[:, None, :]).masked_fill(~allowed, 4 * IMPOSSIBLE)
    scores, indices = pairs.flatten(1).max(1)
    return [(score, *divmod(index, start.shape[1])) for score, index in zip(scores.tolist(), indices.tolist())]


@torch.no_grad()
def measured(model, held_out, pad, device):
    windows, questions, contexts, begins, ends = held_out
    best = {}
    order = sorted(windows, key=lambda window: len(window.ids))
    for at in range(0, len(order), 64):
        batch = order[at : at + 64]
        ids, spans = tensors(batch, pad, device)
        with torch.autocast(device.type, torch.bfloat16):
            hidden = model(ids)
        start, end = model.span_scores(hidden, spans)
        for window, (score, first, last) in zip(batch, best_spans(start, end, spans)):
            if score > best.get(window.question, (-math.inf,))[0]:
                shift = window.first - window.context_start
                best[window.question] = (score, first + shift, last + shift)
    exact, overlap = 0, 0.0
    for number, (_, _, context, answers) in enumerate(questions):
        if number not in best:
            continue
        _, first, last = best[number]
        text = contexts[context][begins[context][first] : ends[context][last]]
        exact += any(normalised_answer(text) == normalised_answer(gold) for _, _, gold in answers)
        overlap += max(f1(text, gold) for _, _, gold in answers)
    return 100 * exact / len(questions), 100 * overlap / len(questions)


def main():
    options = arguments()
    os.makedirs(options.out, exist_ok=True)
    torch.manual_seed(options.seed)
    torch.set_float32_matmul_precision("high")
    device = torch.device(options.device)
    tokenizer = Tokenizer.from_file(os.path.join(options.model, "tokenizer.json"))
    pad, separator, end = (tokenizer.token_to_id(token) for token in ("<pad>", "<sep>", "<eos>"))
    with open(os.path.join(options.model, "config.json")) as file:
        config = json.load(file)
    reads, longest = config.get("context_reads", 1), config["n_positions"]
    model = Reader(config, load_file(os.path.join(options.model, "model.safetensors"))).to(device)
    run, begun = Run(options, model, device), time.time()

    def say(text):
        print(f"[{time.time() - begun:.0f} s] {text}", flush=True)

    # Every file is read by a process of its own, while the first stage runs.
    context = multiprocessing.get_context("spawn")
    with context.Pool(min(16, 2 + len(options.text) + len(options.cloze))) as pool:
        layout = (tokenizer, separator, longest, reads)
        texts = [pool.apply_async(tokens_of_text, (tokenizer, end, path)) for path in options.text]
        squad = pool.apply_async(windows_of, (options.squad, *layout, True))
        held_out = pool.apply_async(windows_of, ([options.held_out], *layout, False, options.held_out_questions))
        cloze = [pool.apply_async(windows_of, ([path], *layout, True)) for path in options.cloze]
        tokens = np.concatenate([text.get() for text in texts])
        say(f"{len(tokens)} tokens of text, {sum(p.numel() for p in model.parameters())} parameters")
        if options.text_tokens:
            run.stage("text", max(1, options.text_tokens // options.tokens), options.text_rate, run.text_losses(tokens))
        run.save("text")
        windows = list(itertools.chain.from_iterable(part.get()[0] for part in cloze))
        say(f"{len(windows)} windows of cloze questions")
        squad, held_out = squad.get()[0], held_out.get()

    results = {}

    def measure(stage):
        exact, overlap = measured(model, held_out, pad, device)
        results[stage] = {"exact_match": exact, "f1": overlap, "questions": len(held_out[1])}
        say(f"after {stage}: EM {exact:.1f}, F1 {overlap:.1f} on {len(held_out[1])} questions")

    def steps(windows, passes):
        per_pass = sum(rounded(len(window.ids)) for window in windows) / options.tokens
        return max(1, round(per_pass * passes))

    if options.cloze_questions:
        count = steps(windows, options.cloze_questions / len(windows))
        run.stage("cloze", count, options.cloze_rate, run.span_losses(windows, pad, options.cloze_next_token))
        run.save("cloze")
        measure("cloze")
    say(f"{len(squad)} windows of questions")
    model.dropout = options.dropout
    count = steps(squad, options.squad_epochs)
    run.stage("squad", count, options.squad_rate, run.span_losses(squad, pad, options.squad_next_token), options.average)
    run.save("squad")
    measure("squad")
    with open(os.path.join(options.out, "train_reader.json"), "w") as file:
        json.dump({"options": vars(options), "held_out": results}, file, indent=2, default=str)
    say("done")


if __name__ == "__main__":
    main()
