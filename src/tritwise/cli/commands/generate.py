"""`tritwise generate`: text from a model, as it comes."""

import sys
from pathlib import Path

from tritwise.cli.options import NO_SAMPLING, RopeScalingName, SamplingOptions
from tritwise.cli.options import rope_scaling as scaling_of
from tritwise.cli.output import Text
from tritwise.common.errors import TritwiseError
from tritwise.engine import Completion, Model, load


def generate(model: Path, /, *, prompt: Text | None = None, chat: Text | None = None, system: Text | None = None,
             suffix: Text | None = None, heal: bool = False, max_tokens: int = 128,
             sampling: SamplingOptions = NO_SAMPLING, speculate: str | None = None, backend: str = "cpu",
             threads: int | None = None, kernel: str | None = None, head: str | None = None,
             context: int | None = None, cache_type: str = "f16",
             rope_scaling: RopeScalingName | None = None, rope_scale: float | None = None) -> None:
    """Complete a prompt, fill the gap between --prompt and --suffix, or answer --chat.

    The text goes to standard output, one line of statistics to standard error.

    Parameters
    ----------
    model
        A directory, a GGUF file, or org/name.
    prompt
        Text to continue; - is standard input.
    chat
        A message to answer; - is standard input.
    system
        What stands before a chat.
    suffix
        Text behind the gap that is to be filled.
    heal
        The prompt may end inside a token.
    max_tokens
        The most tokens to write.
    speculate
        ngram, or a small model's directory.
    backend
        cpu, or cuda for an NVIDIA GPU.
    threads
        Threads; the physical cores when not given.
    kernel
        Of `tritwise doctor`; else the fastest.
    head
        int8, int4, f16 or stored: the output matrix.
    context
        Tokens in all; the model's when not given.
    cache_type
        f16, f32, int8, int4 keys and values.
    rope_scaling
        Stretch the model's positions.
    rope_scale
        By how much; as far as --context when not given.
    """
    _check(prompt, chat, system, suffix, heal)
    text = prompt if chat is None else chat
    text = sys.stdin.read() if text == "-" else text
    settings = {"max_tokens": max_tokens} | sampling.settings()
    with load(model, backend=backend, threads=threads, kernel=kernel, head=head, context=context,
              cache_type=cache_type, slots=1, speculation=speculate,
              rope_scaling=scaling_of(rope_scaling, rope_scale)) as opened:
        if chat is not None:
            messages = [] if system is None else [{"role": "system", "content": system}]
            stream = opened.stream_chat([*messages, {"role": "user", "content": text}], **settings)
        elif suffix is not None:
            stream = opened.stream_infill(text, suffix, heal=heal, **settings)
        else:
            stream = opened.stream(text, heal=heal, **settings)
        with stream:
            for piece in stream:
                print(piece, end="", flush=True)
            print()
            print(statistics(opened, stream.completion), file=sys.stderr)


def _check(prompt: str | None, chat: str | None, system: str | None, suffix: str | None, heal: bool) -> None:
    if (prompt is None) == (chat is None):
        raise TritwiseError("there is nothing to continue" if chat is None else "there are a prompt and a chat",
                            why="either --prompt or --chat is needed", fix="--prompt 'def add(a, b):'")
    if chat is None and system is not None:
        raise TritwiseError("--system needs --chat", why="it is the first message of a chat")
    if chat is not None and suffix is not None:
        raise TritwiseError("--suffix needs --prompt", why="a chat has no gap to fill")
    if chat is not None and heal:
        raise TritwiseError("--heal needs --prompt", why="a chat's template ends with whole tokens")


def statistics(model: Model, result: Completion) -> str:
    """One line: tokens, speeds, time to the first token, memory, kernel."""
    from tritwise.measure.memory import peak_rss_bytes

    parts = [f"{result.prompt_tokens} + {len(result.token_ids)} tokens ({result.finish_reason})"]
    if result.prefill_tokens_per_second:
        parts.append(f"prefill {result.prefill_tokens_per_second:,.0f} tok/s")
    if result.decode_tokens_per_second:
        parts.append(f"decode {result.decode_tokens_per_second:,.0f} tok/s")
    if result.time_to_first_token is not None:
        parts.append(f"first token {1000 * result.time_to_first_token:.1f} ms")
    if result.proposed:
        parts.append(f"{result.accepted} of {result.proposed} guesses taken")
    parts.append(f"{peak_rss_bytes() / 1e6:.0f} MB")
    device = getattr(model.backend, "peak_bytes", None)
    if device is not None:
        parts.append(f"{device / 1e6:.0f} MB of the GPU")
    parts.append(f"{model.info.kernel}, {model.info.threads} threads" if model.info.threads else model.info.kernel)
    return " | ".join(parts)
