"""What is asked of a model that must not be believed: open it, read everything, and look at the message."""

from pathlib import Path

from tritwise.engine.text import TextCodec, load_tokenizer
from tritwise.formats import open_model

LONGEST_MESSAGE = 2000


def read_everything(path: Path) -> None:
    """Open a model as the engine does, with its tokenizer and every tensor both ways."""
    opened = open_model(path)
    content = opened.tokenizer_json()
    if content is not None:
        TextCodec(load_tokenizer(content, path), opened.config)
    for name in opened.names():
        opened.source(name)
        opened.read(name)
    opened.config.rotary()


def is_a_message(text: str, path: Path) -> bool:
    """Whether an error names the file, on at most three lines that no terminal takes for commands.

    Frequencies are computed when a model is loaded, so their error does not know of a file.
    """
    lines = text.split("\n")
    named = str(path) in lines[0] or lines[0] == "this rope_scaling cannot be used"
    return (named and 1 < len(lines) <= 3 and lines[1].startswith("why: ")
            and all(line.isprintable() for line in lines) and len(text) < LONGEST_MESSAGE)
