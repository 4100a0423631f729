"""What is asked of an input: an answer or a TritwiseError, within a second of processor time.

`TARGETS` maps a name to a function of bytes. Whatever else it raises is a finding.
"""

import tempfile
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np

from tritwise.common.errors import TritwiseError
from tritwise.config import ModelConfig
from tritwise.engine.text import Detokenizer, TextCodec, load_tokenizer
from tritwise.formats import TernaryTensor, open_model
from tritwise.formats.gguf_file import GGUFFile
from tritwise.formats.gguf_tokenizer import tokenizer_json
from tritwise.formats.reader import read_config
from tritwise.formats.weight_files import INDEX, WEIGHTS
from tritwise.ternary import codecs  # noqa: F401  counted with what is covered

SECONDS = 1.0
TEXTS = ("def add(a, b):\n    return a + b  # é\n", "<|end|> ab 123  \r\n", "")
PARTS = ("config.json", WEIGHTS, "tokenizer.json", INDEX)
SMALL = ModelConfig(vocab_size=300, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=4)


@cache
def folder() -> Path:
    """A place in memory where there is one."""
    memory = Path("/dev/shm")
    return Path(tempfile.mkdtemp(prefix="fuzz-", dir=memory if memory.is_dir() else None))


def join(parts: dict[str, bytes]) -> bytes:
    """Files of a directory as one input; what is missing has no bytes."""
    found = [parts.get(name, b"") for name in PARTS]
    return b"".join(len(part).to_bytes(4, "little") for part in found) + b"".join(found)


def split(data: bytes) -> dict[str, bytes]:
    """The files of an input; any bytes are some."""
    at, parts = 4 * len(PARTS), {}
    for number, name in enumerate(PARTS):
        size = int.from_bytes(data[4 * number:4 * number + 4], "little")
        parts[name] = data[at:at + size]
        at += len(parts[name])
    return {name: part for name, part in parts.items() if part}


def gguf(data: bytes) -> None:
    """A GGUF file: opened as a model, its tokenizer and every tensor read."""
    path = folder() / "model.gguf"
    path.write_bytes(data)
    _read_model(path)


def gguf_tokenizer(data: bytes) -> None:
    """The tokenizer of a GGUF file's metadata, whatever its tensors are."""
    path = folder() / "tokenizer.gguf"
    path.write_bytes(data)
    content = tokenizer_json(GGUFFile(path).metadata, SMALL.vocab_size)
    if content is not None:
        _use_tokenizer(content, path, SMALL)


def directory(data: bytes) -> None:
    """A directory of config.json, safetensors, tokenizer.json and perhaps an index with one shard."""
    path = folder() / "directory"
    path.mkdir(exist_ok=True)
    for name in PARTS:
        (path / name).unlink(missing_ok=True)
    parts = split(data)
    if INDEX in parts and WEIGHTS in parts:
        (path / "a.safetensors").write_bytes(parts.pop(WEIGHTS))
    for name, content in parts.items():
        (path / name).write_bytes(content)
    _read_model(path)


def config(data: bytes) -> None:
    """A config.json, what follows from it, and the way back."""
    path = folder() / "config"
    path.mkdir(exist_ok=True)
    (path / "config.json").write_bytes(data)
    found = read_config(path)
    if found.num_hidden_layers * (found.num_experts or 1) > 1000 or found.head_dim > 1 << 16:
        return  # the reader compares them with the tensors before anything is made of them
    found.tensor_shapes()
    found.parameter_count()
    found.rotary()
    again = ModelConfig.from_hf(found.to_hf(dtype="float32"))
    if again != found:
        raise AssertionError("a configuration that is written is read as another one")


def tokenizer(data: bytes) -> None:
    """A tokenizer.json, and a few texts through it."""
    path = folder() / "tokenizer.json"
    path.write_bytes(data)
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return
    _use_tokenizer(text, path, SMALL)


def _use_tokenizer(content: str, path: Path, settings: ModelConfig) -> None:
    codec = TextCodec(load_tokenizer(content, path), settings)
    for text in TEXTS:
        ids = codec.document(text)
        if not 0 <= min(ids, default=0) <= max(ids, default=0) < settings.vocab_size:
            continue  # as the engine looks at ids before it takes them
        detokenizer = Detokenizer(codec.tokenizer)
        for token in ids:
            detokenizer.push(token)
        detokenizer.finish()


def _read_model(path: Path) -> None:
    opened = open_model(path)
    opened.config.rotary()
    for name in opened.names():
        opened.source(name)
        values = opened.read(name)
        if isinstance(values, TernaryTensor):
            sound = np.isfinite(values.scale[0]) and values.scale[0] > 0 and abs(values.codes()).max() <= 1
        else:
            sound = np.isfinite(values.astype(np.float32)).all()
        if not sound or values.shape != opened.config.tensor_shapes()[name]:
            raise AssertionError(f"{name} was read, and is no weight")
    content = opened.tokenizer_json()
    if content is not None:
        _use_tokenizer(content, path, opened.config)


TARGETS: dict[str, Callable[[bytes], None]] = {
    "gguf": gguf, "gguf-tokenizer": gguf_tokenizer, "directory": directory, "config": config, "tokenizer": tokenizer}


def check(target: str, data: bytes) -> bool:
    """Run one input. Returns whether it was accepted; raises what is a finding."""
    begin = time.process_time()
    try:
        TARGETS[target](data)
        accepted = True
    except TritwiseError as error:
        accepted = False
        text = str(error)
        if len(text.split("\n")) > 3 or not all(line.isprintable() for line in text.split("\n")):
            raise AssertionError(f"no message: {text!r}") from error
    if (seconds := time.process_time() - begin) > SECONDS:
        raise AssertionError(f"it took {seconds:.1f} s")
    return accepted
