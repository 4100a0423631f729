"""One safetensors file, checked by the safetensors library and mapped into memory.

The library copies a tensor when it hands out a numpy array, and refuses bfloat16 there. So it is used to check the
file (header, offsets that cover the file without gaps, sizes), and the arrays are views of one read-only map. A file
that is replaced by renaming, as everything here is written, stays what it was for those who have it open; one that is
overwritten in place changes under them.
"""

import json
import mmap
import os
import weakref
from pathlib import Path
from typing import NamedTuple

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open

from tritwise.common.errors import TritwiseError
from tritwise.common.files import open_regular, unique_keys

# The types a model directory may hold, by their names in the file.
DTYPES: dict[str, np.dtype] = {
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "U8": np.dtype(np.uint8),
}


# Of a header, which is the names of some hundred thousand tensors; the library would parse 100 MB.
MOST_HEADER = 1 << 24
# Up to this many bytes a tensor is read: a map would make the pages around it resident as well.
_SMALL = 1 << 12


class StoredTensor(NamedTuple):
    """What the header says of a tensor: type name, shape, and where its bytes lie in the file."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


class SafetensorsFile:
    """A checked, mapped file. `tensors` maps names to what the header says; `array` gives the values.

    `descriptor` is the open file, for as long as this object lives.

    Raises TritwiseError when the file is missing, truncated or garbage.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with open_regular(path) as file:
                self.descriptor = os.dup(file.fileno())
                weakref.finalize(self, os.close, self.descriptor)
                length = int.from_bytes(file.read(8), "little")
                if length > MOST_HEADER:
                    raise ValueError(f"its header has {length} bytes, and at most {MOST_HEADER} are read")
                # The library reads the path again; a directory that is replaced meanwhile is replaced by renaming,
                # so both see whole files, and a mixture is caught by the length of the map.
                safe_open(path, framework="numpy")
                header = json.loads(file.read(length), object_pairs_hook=unique_keys)
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except FileNotFoundError:
            raise TritwiseError(f"{path} does not exist") from None
        except (SafetensorError, OSError, ValueError, RecursionError) as error:
            raise TritwiseError(
                f"{path} is not a whole safetensors file", why=str(error),
                fix="the file was cut short or damaged: copy or download it again") from None
        header.pop("__metadata__", None)
        begin = 8 + length
        self.tensors = {
            name: StoredTensor(entry["dtype"], tuple(entry["shape"]),
                               begin + entry["data_offsets"][0], begin + entry["data_offsets"][1])
            for name, entry in header.items()}

    def array(self, name: str) -> np.ndarray:
        """The tensor's values, read-only, of a type in `DTYPES`; a view of the file unless its bytes lie unaligned.

        When the array (with every view of it) is dropped, its pages are handed back to the system, so reading a
        large file tensor by tensor needs the memory of one tensor.
        """
        entry = self.tensors[name]
        dtype = DTYPES[entry.dtype]
        size = entry.stop - entry.start
        if size <= _SMALL:
            with open(self.descriptor, "rb", closefd=False) as file:
                file.seek(entry.start)
                content = file.read(size)
            if len(content) == size:
                return np.frombuffer(content, dtype=dtype).reshape(entry.shape)
            raise TritwiseError(f"{self.path} is not a whole safetensors file", why=f"{name} lies beyond its end",
                                fix="the file was cut short while it was in use: copy or download it again")
        flat = np.frombuffer(self._map, dtype=np.uint8, count=entry.stop - entry.start, offset=entry.start)
        if entry.start % dtype.itemsize:
            return np.frombuffer(flat.tobytes(), dtype=dtype).reshape(entry.shape)
        if hasattr(mmap, "MADV_DONTNEED"):
            page_start = entry.start // mmap.PAGESIZE * mmap.PAGESIZE
            release = weakref.finalize(flat, self._map.madvise, mmap.MADV_DONTNEED, page_start,
                                       entry.stop - page_start)
            release.atexit = False
        return flat.view(dtype).reshape(entry.shape)
