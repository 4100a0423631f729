"""One model in a fresh process, with no PyTorch in it: completions, then the held-out score.

The pipeline starts it with a request as JSON on standard input and reads one JSON object from standard output;
completions appear on standard error as they come.
"""

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tritwise.common.errors import TritwiseError
from tritwise.data import load_documents
from tritwise.engine import Model, load
from tritwise.evaluate import bits_per_byte
from tritwise.measure.memory import peak_rss_bytes
from tritwise.pipeline.tasks import Task, scored_texts


def probe_in_child(model: Path, data: Path, tasks: list[Task], *, context: int, stride: int,
                   show: bool) -> dict[str, Any]:
    """Run `probe` in a fresh process; with `show`, the completions stream to standard error."""
    request = {"model": str(model), "data": str(data), "tasks": [asdict(task) for task in tasks], "context": context,
               "stride": stride, "show": show}
    child = subprocess.run([sys.executable, "-m", "tritwise.pipeline.probe"], input=json.dumps(request), text=True,
                           stdout=subprocess.PIPE, check=False)
    if child.returncode != 0:
        raise TritwiseError(f"running {model} failed", why=f"the process ended with status {child.returncode}; "
                            "what it said stands above", fix=f"tritwise inspect {model}")
    return json.loads(child.stdout)


def probe(model: Path, data: Path, tasks: list[Task], *, context: int, stride: int, show: bool) -> dict[str, Any]:
    """Completions, peak memory until then, and the score of the held-out documents, ready for JSON."""
    with load(model) as opened:
        completions = [_complete(opened, task, show=show) for task in tasks]
        peak = peak_rss_bytes()
        documents = load_documents(data, split="held_out")
        texts, byte_count = scored_texts(documents)
        likelihood = bits_per_byte(opened, texts, context, stride, title="held-out")
        info = opened.info
    # Each token is scored given the path comment too, but divided by the file's own bytes, as for training and xz.
    nats_to_bits = 1.4426950408889634
    return {
        "completions": completions,
        "kernel": info.kernel,
        "threads": info.threads,
        "peak_rss_bytes": peak,
        "held_out": {"bits_per_byte": likelihood.total_nats * nats_to_bits / byte_count,
                     "perplexity": likelihood.perplexity, "tokens": likelihood.tokens, "bytes": byte_count,
                     "documents": len(documents), "context": context, "stride": stride},
        "torch_imported": "torch" in sys.modules,
    }


def _complete(model: Model, task: Task, *, show: bool) -> dict[str, Any]:
    settings = {"max_tokens": task.max_tokens}
    if task.kind == "infill":
        stream = model.stream_infill(task.prefix, task.suffix, **settings)
    else:
        stream = model.stream(task.prefix, **settings)
    if show:
        _show(f"\n--- {task.kind}, {task.source}\n{task.prefix}", end="[[")
    with stream:
        for piece in stream:
            if show:
                _show(piece, end="")
        result = stream.completion
    if show:
        _show(f"]]{task.suffix}\n--- {_statistics(model, result)}")
    return {"kind": task.kind, "source": task.source, "prefix": task.prefix, "suffix": task.suffix,
            "original": task.original, "text": result.text, "tokens": len(result.token_ids),
            "finish_reason": result.finish_reason, "seconds_to_first_token": result.time_to_first_token,
            "tokens_per_second": result.decode_tokens_per_second}


def _statistics(model: Model, result) -> str:
    rate = result.decode_tokens_per_second
    speed = f"{rate:,.0f} tokens/s" if rate else "too short to time"
    return (f"{len(result.token_ids)} tokens, {speed}, first token after {1000 * result.time_to_first_token:.1f} ms, "
            f"{peak_rss_bytes() / 1e6:.0f} MB, kernel {model.info.kernel}, {model.info.threads} threads")


def _show(text: str, end: str = "\n") -> None:
    print(text, end=end, file=sys.stderr, flush=True)


def _child() -> int:
    request = json.load(sys.stdin)
    tasks = [Task(**task) for task in request.pop("tasks")]
    try:
        answer = probe(Path(request.pop("model")), Path(request.pop("data")), tasks, **request)
    except TritwiseError as error:
        print(error, file=sys.stderr)
        return 1
    json.dump(answer, sys.stdout, allow_nan=False)
    return 0


if __name__ == "__main__":
    sys.exit(_child())
