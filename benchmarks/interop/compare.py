"""One trained model in several programs: whether they agree, and what the difference is made of.

    python benchmarks/interop/compare.py runs/export-9m/ternary --data runs/export-9m/data \
        --llama-cpp-python PEERS/llama --ik PEERS/ik_llama.cpp/build/bin --bitnet-cpp PEERS/BitNet/build/bin \
        --out interop.json

- transformers opens the directory: top-1 agreement, and whether every disagreement lies within the rounding.
- llama.cpp opens our TQ1_0 and TQ2_0: top-1 agreement, KL divergence, perplexity; then the same against our model with
  llama.cpp's activation quantiser in place of ours (blockwise.py): what is left is rounding.
- bitnet.cpp opens our I2_S; ik_llama.cpp makes its IQ2_BN of it, as it does with Microsoft's (it has no product for
  I2_S itself): perplexity on the same chunks (`llama-perplexity`), greedy continuations side by side (`llama-cli`).
- their quantisers (`llama-quantize`) make ternary types of our F32 file: the codes that we read back.

A peer that is not given is left out. The text is the held-out split. docs/benchmarks.md says how the peers are built.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from blockwise import logits as emulated_logits

from tritwise.data import load_documents
from tritwise.engine import load
from tritwise.evaluate.peers import open_peer
from tritwise.formats import TernaryTensor, open_model
from tritwise.pipeline.export import export_gguf, open_source

# What `llama-quantize` makes of floats. bitnet.cpp's I2_S is whole on one thread only: on several, each part of a
# matrix gets a scale of its own behind it.
QUANTIZED = {"ik_llama.cpp": ("IQ2_BN", "IQ1_BN", "IQ2_BN_R4"), "bitnet.cpp": ("I2_S", "TQ1_0", "TQ2_0")}
PROMPTS = ("def add(a, b):", "class Stack:\n    def __init__(self):", "import os\nimport sys\n\n")


def main() -> None:
    options = _options()
    model = load(options.model, head="stored", cache_type="f32")
    text = "\n".join(document.text for document in load_documents(options.data, split="held_out"))
    windows = _windows(model, text, options.positions)
    ours = np.stack([model.logits(window.tolist()) for window in windows])
    result = {"windows": list(windows.shape), "perplexity": _perplexity(ours, windows)}
    print(f"{windows.size} positions in windows of {windows.shape[1]}, perplexity {result['perplexity']:.4f}")
    with tempfile.TemporaryDirectory() as scratch:
        result["transformers"] = _transformers(options.model, windows, ours)
        if options.llama_cpp_python:
            result["llama.cpp"] = {kind: _llama_cpp(options, Path(scratch), windows, ours, kind)
                                   for kind in ("TQ1_0", "TQ2_0")}
        for name, binaries in (("ik_llama.cpp", options.ik), ("bitnet.cpp", options.bitnet_cpp)):
            if binaries:
                result[name] = _binaries(options, model, Path(scratch), text, binaries, again=name == "ik_llama.cpp")
                result[name]["quantizer"] = _quantizer(options, Path(scratch), binaries, QUANTIZED[name])
    print(json.dumps(result, indent=1))
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + "\n")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--positions", type=int, default=10_240)
    parser.add_argument("--llama-cpp-python", type=Path, help="a virtual environment that has it")
    parser.add_argument("--ik", type=Path, help="directory of ik_llama.cpp's binaries")
    parser.add_argument("--bitnet-cpp", type=Path, help="directory of bitnet.cpp's binaries")
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


def _windows(model, text: str, positions: int) -> np.ndarray:
    """int32 [windows, context]: pieces of the text behind the id that a text begins with."""
    length = model.config.max_position_embeddings
    ids = np.array(model.codec.encode(text), np.int32)
    count = min(-(-positions // length), len(ids) // (length - 1))
    pieces = ids[:count * (length - 1)].reshape(count, length - 1)
    return np.concatenate([np.full((count, 1), model.codec.start_id, np.int32), pieces], axis=1)


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True, dtype=np.float64)).astype(np.float32)


def _perplexity(logits: np.ndarray, windows: np.ndarray) -> float:
    """Of every token after the first of its window."""
    total = 0.0
    for scores, window in zip(logits, windows, strict=True):
        total -= float(_log_softmax(scores[:-1])[np.arange(len(window) - 1), window[1:]].sum(dtype=np.float64))
    return float(np.exp(total / (windows.size - len(windows))))


def _agreement(ours: np.ndarray, theirs: np.ndarray, windows: np.ndarray) -> dict[str, float]:
    """Over all positions: share with the same best token, KL of theirs from ours in nats, largest difference."""
    same, kl, largest = 0, [], 0.0
    for mine, other in zip(ours, theirs, strict=True):
        same += int((mine.argmax(-1) == other.argmax(-1)).sum())
        p, q = _log_softmax(mine), _log_softmax(other)
        kl.append((np.exp(p) * (p - q)).sum(-1))
        largest = max(largest, float(np.abs(mine - other).max()))
    return {"top1": same / windows.size, "kl_mean": float(np.mean(kl)), "kl_max": float(np.max(kl)),
            "largest_difference": largest, "perplexity": _perplexity(theirs, windows)}


def _transformers(path: Path, windows: np.ndarray, ours: np.ndarray) -> dict[str, float]:
    with open_peer("transformers", path, context=windows.shape[1]) as peer:
        theirs = np.stack([peer.logits(window.tolist()) for window in windows])
    result = _agreement(ours, theirs, windows)
    outside = 0
    for mine, other in zip(ours, theirs, strict=True):
        for at in np.flatnonzero(mine.argmax(-1) != other.argmax(-1)):
            # Both programs round the two candidates: they can change places when they lie closer than both moved.
            first, second = mine[at].argmax(), other[at].argmax()
            moved = abs(mine[at, first] - other[at, first]) + abs(mine[at, second] - other[at, second])
            outside += int(mine[at, first] - mine[at, second] > moved)
    return result | {"disagreements_outside_rounding": outside}


def _llama_cpp(options, scratch: Path, windows: np.ndarray, ours: np.ndarray, kind: str) -> dict[str, object]:
    file, ids = scratch / f"{kind}.gguf", scratch / "ids.npy"
    export_gguf(open_source(options.model), file, ternary_type=kind, float_type="F32")
    np.save(ids, windows)
    result = {"as it is": _agreement(ours, _llama_cpp_logits(options, file, ids, ""), windows)}
    theirs = _llama_cpp_logits(options, file, ids, "--plain")
    opened = open_model(file)
    for name, blocks in (("one scale a token, float32 cache", False), ("a scale for 256 inputs, float32 cache", True)):
        mine = emulated_logits(opened, torch.from_numpy(windows).long(), blocks=blocks).numpy()
        result[name] = _agreement(mine, theirs, windows)
    return result


def _llama_cpp_logits(options, file: Path, ids: Path, plain: str) -> np.ndarray:
    out = file.with_suffix(".npy")
    worker = Path(__file__).with_name("llama_cpp_logits.py")
    subprocess.run([options.llama_cpp_python / "bin" / "python", worker, file, ids, out, plain], check=True,
                   stdout=subprocess.DEVNULL)
    return np.load(out, mmap_mode="r")


def _binaries(options, model, scratch: Path, text: str, binaries: Path, *, again: bool) -> dict[str, object]:
    """`llama-perplexity` and greedy `llama-cli` on our I2_S file, or on the IQ2_BN made of it, beside ours."""
    file, sample = scratch / "i2_s.gguf", scratch / "text.txt"
    export_gguf(open_source(options.model), file, ternary_type="I2_S")
    made = {}
    if again:
        before, file = file, scratch / "iq2_bn.gguf"
        _run([binaries / "llama-quantize", "--allow-requantize", before, file, "IQ2_BN", 1])
        made = {"IQ2_BN of our I2_S": _difference(open_model(before), open_model(file))}
    ids = model.codec.document(text)
    length = model.config.max_position_embeddings
    chunks = min(len(ids) // length, -(-options.positions // (length // 2)))
    sample.write_text(text)
    said = _run([binaries / "llama-perplexity", "-m", file, "-f", sample, "-c", length, "-b", length, "-t", 2,
                 "--chunks", chunks])
    found = re.search(r"Final estimate: PPL.* = ([\d.]+)", said)
    opened = load(file, head="stored", cache_type="f32")
    mine = _chunked_perplexity(opened, ids, length, chunks)
    theirs = float(found[1]) if found else None
    result = made | {"chunks": chunks, "perplexity": theirs, "ours": mine, "ratio": theirs and theirs / mine,
                     "greedy": []}
    for prompt in PROMPTS:
        said = _run([binaries / "llama-cli", "-m", file, "-p", prompt, "-n", 24, "--temp", 0, "-t", 2,
                     "--no-display-prompt"], errors=False)
        result["greedy"].append({"prompt": prompt, "theirs": said,
                                 "ours": opened.generate(prompt, max_tokens=24).text})
    return result


def _chunked_perplexity(model, ids: list[int], length: int, chunks: int) -> float:
    """As llama-perplexity: chunks without overlap, each behind the beginning id, the second half of each scored."""
    total, count, first = 0.0, 0, length // 2
    for at in range(0, chunks * length, length):
        window = [model.codec.start_id, *ids[at + 1:at + length]]
        scores = _log_softmax(model.logits(window))
        total -= float(scores[np.arange(first, length - 1), window[first + 1:]].sum(dtype=np.float64))
        count += length - 1 - first
    return float(np.exp(total / count))


def _quantizer(options, scratch: Path, binaries: Path, kinds: tuple[str, ...]) -> dict[str, str]:
    """Codes of what `llama-quantize` makes of our float file, and the largest relative difference of its scales."""
    plain = scratch / "f32.gguf"
    export_gguf(open_source(options.model), plain, ternary_type="F32")
    before, result = open_model(plain), {}
    for kind in kinds:
        out = scratch / f"theirs-{kind}.gguf"
        _run([binaries / "llama-quantize", "--token-embedding-type", "f16", plain, out, kind, 1])
        result[kind] = _difference(before, open_model(out))
    return result


def _difference(before, after) -> str:
    wrong, largest, count = 0, 0.0, 0
    for name in before.names():
        one = before.read(name)
        if isinstance(one, TernaryTensor):
            other = after.read(name)
            count += one.shape[0] * one.shape[1]
            wrong += int((one.codes() != other.codes()).sum())
            largest = max(largest, abs(float(other.scale[0] / one.scale[0]) - 1))
    return f"{wrong} of {count} codes differ, scales by {largest:.2g} at most"


def _run(command: list[object], *, errors: bool = True) -> str:
    """Standard output (and errors, where results are printed there too) of a program that has to succeed."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, timeout=600,
                          stdin=subprocess.DEVNULL)
    if done.returncode:
        raise RuntimeError(f"{Path(str(command[0])).name} ended with {done.returncode}: {done.stderr[-300:]!r}")
    return done.stdout + (done.stderr if errors else "")


if __name__ == "__main__":
    sys.exit(main())
