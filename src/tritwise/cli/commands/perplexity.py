"""`tritwise perplexity`: how well a model predicts a text."""

import sys
from pathlib import Path

from tritwise.cli.options import RopeScalingName
from tritwise.cli.options import rope_scaling as scaling_of
from tritwise.cli.output import Text, print_facts, print_json
from tritwise.common.errors import TritwiseError
from tritwise.engine import load
from tritwise.evaluate import perplexity as score


def perplexity(model: Path, file: Text, /, *, context: int | None = None, stride: int | None = None,
               backend: str = "cpu", threads: int | None = None, rope_scaling: RopeScalingName | None = None,
               rope_scale: float | None = None, json: bool = False) -> None:
    """Score a text file as one document: perplexity a token and bits a byte.

    Parameters
    ----------
    model
        The model directory.
    file
        A UTF-8 text file; - reads standard input.
    context
        Tokens of a window; the model's context when not given.
    stride
        How far windows are apart; half of the context when not given. Small is exact and slow.
    backend
        cpu, or cuda for an NVIDIA GPU.
    threads
        Threads; the physical cores when not given.
    rope_scaling
        Stretch the model's positions: linear, yarn, llama3 or ntk.
    rope_scale
        By how much; as far as --context when not given.
    json
        Print one JSON object.
    """
    text = read_text(file)
    scaling = scaling_of(rope_scaling, rope_scale)
    with load(model, backend=backend, threads=threads, context=None if scaling is None else context,
              rope_scaling=scaling) as opened:
        result = score(opened, text, context, stride)
    if json:
        print_json(result.to_json())
        return
    print_facts([("perplexity a token", f"{result.perplexity:.4f}"), ("bits a byte", f"{result.bits_per_byte:.4f}"),
                 ("tokens", f"{result.tokens:,}"), ("bytes", f"{result.bytes:,}")])


def read_text(file: str) -> str:
    """The text of a UTF-8 file, or of standard input for `-`. Raises TritwiseError."""
    try:
        content = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
        return content.decode()
    except OSError as error:
        raise TritwiseError(f"{file} cannot be read", why=error.strerror or str(error)) from None
    except UnicodeDecodeError as error:
        raise TritwiseError(f"{file} is not UTF-8 text", why=str(error)) from None
