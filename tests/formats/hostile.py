"""What is asked of a model that must not be believed: open it, read everything, and look at the message."""

import statistics
import time
import tracemalloc
from pathlib import Path

import pytest

from tritwise import TritwiseError
from tritwise.engine.text import TextCodec, load_tokenizer
from tritwise.formats import open_model

LONGEST_MESSAGE = 2000


def read_everything(path: Path) -> int:
    """Open a model as the engine does, with its tokenizer and every tensor both ways; how many tensors it has."""
    opened = open_model(path)
    content = opened.tokenizer_json()
    if content is not None:
        TextCodec(load_tokenizer(content, path), opened.config)
    for name in opened.names():
        opened.source(name)
        opened.read(name)
    opened.config.rotary()
    return len(opened.names())


def is_a_message(text: str, path: Path) -> bool:
    """Whether an error names the file, on at most three lines that no terminal takes for commands.

    Frequencies are computed when a model is loaded, so their error does not know of a file.
    """
    lines = text.split("\n")
    named = str(path) in lines[0] or lines[0] == "this rope_scaling cannot be used"
    return (named and 1 < len(lines) <= 3 and lines[1].startswith("why: ")
            and all(line.isprintable() for line in lines) and len(text) < LONGEST_MESSAGE)


def refusal(path: Path) -> tuple[float, str]:
    """Seconds of processor time that a refusal took, and its message."""
    begin = time.process_time()
    with pytest.raises(TritwiseError) as caught:
        read_everything(path)
    return time.process_time() - begin, str(caught.value)


def is_refused_within(path: Path, seconds: float) -> bool:
    """If need be by the median of three, as the machine may be busy."""
    return refusal(path)[0] < seconds or statistics.median(refusal(path)[0] for _ in range(3)) < seconds


def memory_of_refusal(path: Path) -> int:
    """Bytes that Python holds at most meanwhile."""
    tracemalloc.start()
    refusal(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak
