"""What guessing ahead gains on real edits, and what it costs on text where it cannot help.

    python benchmarks/speculation.py --shape 2b4t --threads 2

Random weights copy nothing, so the text is given: a wrapper runs the whole forward pass of every step and then answers
with the next token of the real text. Guesses are thus right or wrong as they are on that text, at the true cost of
every step. The texts are functions of the standard library: to be edited (a variable renamed, an argument added, a
docstring inserted), and functions whose middle is missing, with the file around them. Two kinds cannot be guessed:
tokens of which none occurs twice, and random ones of twelve, whose runs of three repeat all the time and mislead.

With and without decode the same text on two slots of one model and take turns step by step, so that a busy machine
slows both; the ratio is of tokens a second over all steps until the first of them is done. `step` is the median step
that sent no guess over the median step without speculation: what looking for guesses costs. `draft R` is a small
random model of which a share R of the guesses is made right: what a draft model of that quality would gain.
"""

import argparse
import ast
import inspect
import json
import statistics
import textwrap
import time
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from tritwise.config import ModelConfig
from tritwise.data import train_tokenizer
from tritwise.engine import Batch, CpuBackend, DraftModel, Model, NgramSpeculation, Output, Speculation
from tritwise.engine.backend import PagedCache
from tritwise.measure.shapes import SHAPES, random_tensors, shape_config

MODULES = ("json.decoder", "textwrap", "configparser", "csv", "shutil", "fractions", "statistics", "heapq")


class OneSlot:
    """The pages of one of two slots of a backend, as if there were no other, and a row for what a sequence leaves."""

    rows = 2

    def __init__(self, inner: PagedCache, slot: int) -> None:
        self._inner, self._rows = inner, (slot, 2 + slot)
        self.page_tokens, self.context, self.pages_total = inner.page_tokens, inner.context, inner.pages_total // 2

    @property
    def pages_in_use(self) -> int:
        return self._inner.pages_held(list(self._rows))

    def pages_needed(self, slot: int, first: int, end: int) -> int:
        return self._inner.pages_needed(self._rows[slot], first, end)

    def pages_held(self, slots: list[int]) -> int:
        return self._inner.pages_held([self._rows[slot] for slot in slots])

    def share(self, source: int, target: int, positions: int) -> None:
        self._inner.share(self._rows[source], self._rows[target], positions)

    def reset(self, slot: int) -> None:
        self._inner.reset(self._rows[slot])


class Dictated:
    """A backend whose answers are the next tokens of a given text; with `right` < 1 some are wrong."""

    def __init__(self, inner: CpuBackend, slot: int = 0, *, right: float = 1.0) -> None:
        self.inner, self.slot, self.text, self.right = inner, slot, [], right
        self.slots, self.context, self.vocab_size, self.info = 1, inner.context, inner.vocab_size, inner.info
        self.rows, self.cache = 0, OneSlot(inner.cache, slot)

    def forward(self, batch: Batch) -> Output:
        self.rows = len(batch.tokens)
        output = self.inner.forward(replace(batch, slots=batch.slots + np.int32(self.slot)))
        best = [self._after(int(batch.positions[row])) for row in batch.best_for]
        return Output(output.logits, np.array(best, dtype=np.int32))

    def __getattr__(self, name: str) -> object:
        return getattr(self.inner, name)

    def _after(self, position: int) -> int:
        token = self.text[min(position + 1, len(self.text) - 1)]
        draw = zlib.crc32(position.to_bytes(4, "little")) / 2**32
        return token if draw < self.right else (token + 1) % self.vocab_size

    def close(self) -> None:
        self.inner.close()


def functions(shortest: int = 25, longest: int = 70) -> Iterator[tuple[str, str, str]]:
    """(before, function, after) of module texts: what stands around a function of some size."""
    for name in MODULES:
        source = inspect.getsource(__import__(name, fromlist=["_"]))
        lines = source.splitlines(keepends=True)
        found = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)
                 and shortest <= node.end_lineno - node.lineno <= longest and node.args.args]
        for node in sorted(found, key=lambda node: node.lineno)[:2]:
            begin, end = node.lineno - 1, node.end_lineno
            yield "".join(lines[max(0, begin - 40):begin]), "".join(lines[begin:end]), "".join(lines[end:end + 40])


def renamed(source: str) -> str:
    """The last argument under another name, wherever it stands as a name."""
    tree = ast.parse(textwrap.dedent(source))
    name = tree.body[0].args.args[-1].arg
    named = [node for node in ast.walk(tree) if name in (getattr(node, "id", None), getattr(node, "arg", None))]
    spots = {(node.lineno, node.col_offset) for node in named if isinstance(node, ast.Name | ast.arg)}
    lines = textwrap.dedent(source).splitlines(keepends=True)
    for line, column in sorted(spots, reverse=True):
        encoded = lines[line - 1].encode()
        lines[line - 1] = (encoded[:column] + b"given_" + encoded[column:]).decode()
    return "".join(lines)


def with_argument(source: str) -> str:
    """One more argument, and a check of it at the beginning of the body."""
    dedented = textwrap.dedent(source)
    node = ast.parse(dedented).body[0]
    lines = dedented.splitlines(keepends=True)
    at = node.body[1 if ast.get_docstring(node) is not None and len(node.body) > 1 else 0].lineno - 1
    lines.insert(at, "    if verbose:\n        print('entering', verbose)\n")
    last = (node.args.defaults or node.args.args)[-1]
    encoded = lines[last.end_lineno - 1].encode()
    column = last.end_col_offset
    lines[last.end_lineno - 1] = (encoded[:column] + b", verbose=False" + encoded[column:]).decode()
    return "".join(lines)


def with_docstring(source: str) -> str:
    """Another docstring in the first place, and a comment in the middle."""
    dedented = textwrap.dedent(source)
    node = ast.parse(dedented).body[0]
    lines = dedented.splitlines(keepends=True)
    lines.insert(node.body[len(node.body) // 2].lineno - 1, "    # The usual case comes first.\n")
    docstring = '    """Do what the name says and return the result, or raise ValueError."""\n'
    lines.insert(node.body[0].lineno - 1, docstring)
    return "".join(lines)


def cases(tokenizer, vocab: int) -> Iterator[tuple[str, list[int], list[int]]]:
    """(kind, prompt, text)."""
    def encode(text: str) -> list[int]:
        return tokenizer.encode(text, add_special_tokens=False).ids

    edits = (renamed, with_argument, with_docstring)
    for index, (before, source, after) in enumerate(functions()):
        original = textwrap.dedent(source)
        edited = edits[index % 3](source)
        yield "edit", encode(f"# before\n{original}\n# after\n"), encode(edited)
        lines = source.splitlines(keepends=True)
        low, high = len(lines) // 4, 3 * len(lines) // 4
        middle = "".join(lines[low:high])
        prompt = encode(before + "".join(lines[:low]) + "\n<hole>\n" + "".join(lines[high:]) + after)
        yield "infill", prompt, encode(middle)
    rng = np.random.default_rng(0)
    for _ in range(4):
        ids = rng.permutation(np.arange(100, min(vocab, 30_000)))[:400].tolist()
        yield "no repeats", ids[:200], ids[200:]
        ids = rng.integers(100, 112, 400).tolist()
        yield "misleading", ids[:200], ids[200:]


def side_by_side(models: tuple[Model, Model], prompt: list[int], text: list[int], speculation: Speculation) -> dict:
    """Decode `text` without speculation on the first and with it on the second, a step each in turn."""
    works = []
    for model, way in zip(models, (None, speculation), strict=True):
        model.backend.text = prompt + text
        works.append(model._generation(prompt, max_tokens=len(text), speculation=way))
        model._scheduler.submit(works[-1])
        while len(works[-1].ids) == len(prompt):
            model._scheduler.advance(works[-1])
    seconds: tuple[list[float], list[float]] = ([], [])
    plain_rows: list[float] = []
    while not any(work.finished for work in works):
        for model, work, mine in zip(models, works, seconds, strict=True):
            began = time.perf_counter()
            model._scheduler.advance(work)
            mine.append(time.perf_counter() - began)
        if models[1].backend.rows == 1:
            plain_rows.append(seconds[1][-1])
    came = [len(work.ids) - len(prompt) - 1 for work in works]
    for model, work in zip(models, works, strict=True):
        model._scheduler.finish(work)
        if work.ids[len(prompt):] != text:
            raise SystemExit("the text is not the one that was dictated")
    result = works[1].completion()
    rates = [count / sum(mine) for count, mine in zip(came, seconds, strict=True)]
    return {"tokens": len(text), "plain": rates[0], "speedup": rates[1] / rates[0], "proposed": result.proposed,
            "accepted": result.accepted,
            "step": statistics.median(plain_rows) / statistics.median(seconds[0]) if plain_rows else None}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="2b4t", help=", ".join(SHAPES))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--functions", type=int, default=6, help="functions that are edited and filled in")
    parser.add_argument("--longest", type=int, default=250, help="tokens of a text")
    parser.add_argument("--draft", type=float, nargs="*", default=[], help="also a draft model with this share right")
    parser.add_argument("--kinds", nargs="*", default=["edit", "infill", "no repeats", "misleading"])
    parser.add_argument("--json", type=Path, help="write the runs here")
    options = parser.parse_args()

    tokenizer = train_tokenizer([inspect.getsource(__import__(name, fromlist=["_"])) for name in MODULES], 4096)
    config = shape_config(options.shape)
    runner = CpuBackend(config, random_tensors(config), threads=options.threads, slots=2, context=2048)
    models = (Model(config, Dictated(runner, 0), tokenizer=None), Model(config, Dictated(runner, 1), tokenizer=None))
    ways: dict[str, Speculation] = {"n-gram": NgramSpeculation(shared=False)}
    small = ModelConfig(vocab_size=config.vocab_size, hidden_size=512, intermediate_size=1024, num_hidden_layers=6,
                        num_attention_heads=8, tie_word_embeddings=True, max_position_embeddings=2048)
    for share in options.draft:
        drafting = CpuBackend(small, random_tensors(small), threads=options.threads, slots=1, context=2048)
        ways[f"draft {share:g}"] = DraftModel(Dictated(drafting, right=share))
    chosen: dict[str, list] = {}
    for kind, prompt, text in cases(tokenizer, config.vocab_size):
        if kind in options.kinds and len(prompt) + options.longest < 2048 and len(chosen.setdefault(kind, [])) < \
                options.functions:
            chosen[kind].append((prompt, text[:options.longest]))
    runs = []
    for _ in range(options.rounds):
        for kind, texts in chosen.items():
            for prompt, text in texts:
                for way, speculation in ways.items():
                    if isinstance(speculation, DraftModel):
                        speculation.backend.text = prompt + text
                    runs.append({"kind": kind, "way": way} | side_by_side(models, prompt, text, speculation))
                    print(json.dumps(runs[-1]), flush=True)
    print("| text | guesses by | speed-up: median (min, max) | step: median | sent a token | taken of those sent |")
    print("|---|---|---|---|---|---|")
    for kind in chosen:
        for way in ways:
            mine = [run for run in runs if run["kind"] == kind and run["way"] == way]
            ratios = [run["speedup"] for run in mine]
            steps = [run["step"] for run in mine if run["step"] is not None]
            step = f"{statistics.median(steps):.3f}" if steps else "-"
            sent, taken = sum(run["proposed"] for run in mine), sum(run["accepted"] for run in mine)
            print(f"| {kind} | {way} | {statistics.median(ratios):.3f} ({min(ratios):.3f}, {max(ratios):.3f}) | "
                  f"{step} | {sent / sum(run['tokens'] for run in mine):.2f} | {taken / sent if sent else 0:.0%} |")
    if options.json:
        options.json.write_text(json.dumps(runs, indent=1))
    for model in models:
        model.close()


if __name__ == "__main__":
    main()
