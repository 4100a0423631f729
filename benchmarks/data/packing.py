"""What each way from documents to windows costs: documents that are cut, padding, processor time.

    python benchmarks/data/packing.py runs/quickstart/data --window 2048 --window 16384

Takes a data directory (`tritwise data build`) and writes its training documents anew in each way, in one process.
`cut`: documents (at context level: files) that stand in more than one window. `one stream`: those that would if the
same documents were concatenated and cut. `together`: of the files that fit a window with the next file, how many are in
one with it; for document level, where a file is a document. MB are 10^6 bytes of files; processor time is that of
reading, encoding and packing.
"""

import argparse
import tempfile
import time
from itertools import pairwise
from pathlib import Path

import numpy as np

from tritwise.config import FimSettings, PackingSettings
from tritwise.data import open_shards
from tritwise.data.token_steps import encode_corpus


def ways(window: int) -> dict[str, tuple[str, PackingSettings]]:
    """FIM level and packing, by name."""
    best_fit = PackingSettings(method="best_fit", window=window)
    neighbours = PackingSettings(method="best_fit", window=window, keep_neighbours=True)
    return {"document, one stream": ("document", PackingSettings()), "document, best fit": ("document", best_fit),
            "document, neighbours": ("document", neighbours), "context": ("context", PackingSettings(window=window)),
            "context, best fit": ("context", best_fit), "context, neighbours": ("context", neighbours)}


def entries(directory: Path) -> list[tuple[bytes, int]]:
    """Every document of the shards, and where it begins."""
    found, place = [], 0
    for shard in open_shards(directory, "train").shards:
        ends = shard.ends.astype(np.int64).tolist()
        found += [(shard.ids[a:b].tobytes(), place + a) for a, b in pairwise([0, *ends])]
        place += len(shard.ids)
    return found


def together(stream: list[tuple[bytes, int]], packed: list[tuple[bytes, int]], size: int, width: int) -> str:
    """The share of neighbouring documents that one window could hold, and does."""
    place_of = dict(packed)
    pairs = [(a, b) for (a, _), (b, _) in pairwise(stream) if len(a) + len(b) <= size * width]
    same = sum(len({place_of[a] // size, (place_of[a] + len(a) // width - 1) // size, place_of[b] // size,
                    (place_of[b] + len(b) // width - 1) // size}) == 1 for a, b in pairs)
    return f"{100 * same / len(pairs):.1f} %" if pairs else "-"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--window", type=int, action="append")
    options = parser.parse_args()
    columns = f"{'tokens':>11} {'windows':>8} {'padding':>8} {'cut':>7} {'one stream':>10} {'together':>8}"
    print(f"{'window':>6}  {'way':<20} {columns} {'MB/s':>6}")
    for window in options.window or [2048]:
        stream: list[tuple[bytes, int]] = []
        for name, (level, packing) in ways(window).items():
            with tempfile.TemporaryDirectory() as home:
                out, began = Path(home) / "tokens", time.process_time()
                counts = encode_corpus(options.data, out, options.data / "tokenizer.json", FimSettings(level=level),
                                       packing, workers=1)
                speed = counts["bytes"] / 1e6 / (time.process_time() - began)
                found = entries(out)
                width = open_shards(out, "train").shards[0].ids.dtype.itemsize
            if packing.window is None:
                stream = found
                near = together(stream, stream, window + 1, width)
                rest = f"{'':>8} {'':>8} {'':>7} {'':>10} {near:>8}"
            else:
                padded = 100 * counts["padding"] / (counts["padding"] + counts["tokens"])
                near = together(stream, found, window + 1, width) if level == "document" else ""
                rest = (f"{counts['windows']:>8,} {padded:>6.2f} % {counts['cut_documents']:>7,} "
                        f"{counts['cut_if_concatenated']:>10,} {near:>8}")
            print(f"{window:>6}  {name:<20} {counts['tokens']:>11,} {rest} {speed:>6.1f}", flush=True)


if __name__ == "__main__":
    main()
