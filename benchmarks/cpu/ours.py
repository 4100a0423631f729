"""Tritwise as one of the systems: a model directory in the shape, opened with `tritwise.load`."""

import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from worker import started
from works import Opened, Work

from tritwise.config import ModelConfig
from tritwise.formats import write_model, write_quantised
from tritwise.measure.shapes import random_tensors, shape_config

_LONGEST_TOKEN = 12


class Tritwise:
    """This engine with some arguments of `load`."""

    def __init__(self, shape: str, cache: Path, options: dict[str, Any], dense: bool = False) -> None:
        self._directory, self._dense, self._options = cache / f"{shape}-tritwise", dense, options
        self._config = shape_config(shape)
        settings = ", ".join(f"{key} {value}" for key, value in options.items())
        self.name = f"tritwise{' dense bfloat16' if dense else ''}{f' ({settings})' if settings else ''}"

    def does(self, work: Work) -> bool:
        return work.dense == self._dense

    @contextmanager
    def open(self, work: Work) -> Iterator[Opened]:
        if not self._directory.exists():
            write_directory(self._directory, self._config)
        worker = started(sys.executable, "tritwise_worker.py", work, self._directory, options=self._options)
        with worker as (burst, ready):
            note = f"kernel {ready['kernel']}, head {ready['head']}" if ready else "from tritwise.load, in the process"
            yield Opened(burst, ready.get("bytes_per_token", 0), note)


def write_directory(path: Path, config: ModelConfig) -> None:
    """A model directory of random weights with a tokenizer of the vocabulary's size."""
    tokenizer = path.parent / f"tokenizer-{config.vocab_size}.json"
    if not tokenizer.exists():
        tokenizer.write_text(json.dumps(tokenizer_json(config.vocab_size), ensure_ascii=False))
    tensors = dict(random_tensors(config))
    partial = path.with_name(f"{path.name}.part")
    shutil.rmtree(partial, ignore_errors=True)
    if config.linear_type == "dense":
        write_model(partial, config, tensors, form="float", tokenizer_file=tokenizer)
    else:
        write_quantised(partial, config, tensors, tokenizer_file=tokenizer)
    partial.rename(path)


def tokenizer_json(size: int) -> dict[str, Any]:
    """A byte-level BPE of `size` tokens whose merges join random earlier tokens: of real size, with no meaning."""
    from tokenizers.pre_tokenizers import ByteLevel

    tokens = sorted(ByteLevel.alphabet())
    known, merges = set(tokens), []
    draw = np.random.default_rng(0)
    while len(tokens) < size:
        for left, right in draw.integers(0, len(tokens), (4096, 2)):
            joined = tokens[left] + tokens[right]
            if len(tokens) < size and len(joined) <= _LONGEST_TOKEN and joined not in known:
                merges.append([tokens[left], tokens[right]])
                known.add(joined)
                tokens.append(joined)
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None,
        "pre_tokenizer": byte_level, "post_processor": None, "decoder": byte_level,
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
                  "vocab": {token: index for index, token in enumerate(tokens)}, "merges": merges},
    }
