"""Tables between tasks: columns in a safetensors file, sorted by a 64-bit key.

A task that has to bring equal keys together reads the rows of its range of keys from all files of the step before: a
binary search in each memory-mapped key column. So a step writes as many files as it has tasks, whatever reads them.
"""

import json
import math
import mmap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from tritwise.common.errors import TritwiseError
from tritwise.common.files import atomic_write, open_regular

Columns = dict[str, NDArray]
_TYPES = {"U8": np.uint8, "U32": np.uint32, "U64": np.uint64, "I64": np.int64}
_LONGEST_HEADER = 1 << 16


def file_name(task: int, kind: str = "safetensors") -> str:
    """What a task's output is called."""
    return f"{task:05d}.{kind}"


def write_columns(path: Path, made_by: str, columns: Mapping[str, NDArray]) -> None:
    """Write columns, whole or not at all; `made_by` is the hash of the settings, which readers compare."""
    atomic_write(path, save({name: np.ascontiguousarray(c) for name, c in columns.items()}, {"made_by": made_by}))


def read_columns(path: Path, made_by: str) -> Columns:
    """The columns of a file as read-only memory maps.

    Raises TritwiseError when the file is missing, damaged, or was made with other settings.
    """
    try:
        with open_regular(path) as file:
            data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        return _columns(data, made_by)
    except FileNotFoundError:
        raise TritwiseError(f"{path} does not exist", why="a task of an earlier step has not run",
                            fix="run the steps in their order") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise TritwiseError(f"{path} is not readable as a table of deduplication", why=str(error),
                            fix="remove the folder and start again") from None


def _columns(data: memoryview, made_by: str) -> Columns:
    if len(data) < 8:
        raise ValueError("it is too short")
    length = int.from_bytes(data[:8], "little")
    if length > min(_LONGEST_HEADER, len(data) - 8):
        raise ValueError("its header is longer than the file")
    header = json.loads(bytes(data[8 : 8 + length]))
    if header.pop("__metadata__")["made_by"] != made_by:
        raise ValueError("it was made with other settings")
    body, result, end = data[8 + length :], {}, 0
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        kind, shape, (first, last) = np.dtype(_TYPES[entry["dtype"]]), entry["shape"], entry["data_offsets"]
        if first != end or any(n < 0 for n in shape) or last - first != kind.itemsize * math.prod(shape):
            raise ValueError(f"the place of {name} is wrong")
        result[name] = np.frombuffer(body[first:last], kind).reshape(shape) if last > first else np.empty(shape, kind)
        end = last
    if end != len(body):
        raise ValueError("it has another length than its header says")
    return result


def write_table(path: Path, made_by: str, key: NDArray[np.uint64], columns: Mapping[str, NDArray]) -> None:
    """Write rows sorted by `key`, then by the columns of one dimension in their order."""
    order = np.lexsort([*reversed([c for c in columns.values() if c.ndim == 1]), key])
    write_columns(path, made_by, {"key": key[order]} | {name: c[order] for name, c in columns.items()})


def gather(paths: Iterable[Path], made_by: str, keys: tuple[int, int]) -> Columns:
    """The rows of all files whose key lies in [first, last], in the order of the files."""
    pieces = [_rows(read_columns(path, made_by), keys) for path in paths]
    return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}


def _rows(columns: Columns, keys: tuple[int, int]) -> Columns:
    """Copies, so that the map and its file are closed before the next one is opened."""
    first = np.searchsorted(columns["key"], np.uint64(keys[0]), side="left")
    last = np.searchsorted(columns["key"], np.uint64(keys[1]), side="right")
    return {name: column[first:last].copy() for name, column in columns.items()}


def key_range(task: int, tasks: int) -> tuple[int, int]:
    """The first and last 64-bit key of a task; the ranges of all tasks are disjoint and hold every key."""
    return -(-(task << 64) // tasks), -(-((task + 1) << 64) // tasks) - 1


def mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """A permutation of the 64-bit numbers that scatters them (splitmix64's last steps)."""
    z = values.astype(np.uint64)
    z = (z ^ z >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ z >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return z ^ z >> np.uint64(31)


def unique_rows(rows: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """uint64 [rows, columns] sorted by the first column, then the next; each row once."""
    rows = rows[np.lexsort(rows.T[::-1])]
    return rows[np.append(True, (rows[1:] != rows[:-1]).any(axis=1))[: len(rows)]]


def pack_names(names: Sequence[str]) -> tuple[NDArray[np.uint8], NDArray[np.uint64]]:
    """Names as one run of UTF-8 and where each ends."""
    encoded = [name.encode("utf-8", "surrogateescape") for name in names]
    ends = np.cumsum([len(name) for name in encoded], dtype=np.uint64) if encoded else np.empty(0, np.uint64)
    return np.frombuffer(b"".join(encoded), np.uint8), ends


def name_at(characters: NDArray[np.uint8], ends: NDArray[np.uint64], index: int) -> str:
    """The name with this index."""
    first = int(ends[index - 1]) if index else 0
    return bytes(characters[first : int(ends[index])]).decode("utf-8", "surrogateescape")
