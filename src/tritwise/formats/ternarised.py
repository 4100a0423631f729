"""Codes and scales of weights that are stored as floats, but hold only -s, 0 and +s.

The TriLM models of SpectraSuite are published so ("unpacked", float16, in LLaMA's layout): each matrix was cut into as
many shards as there were model-parallel devices, and each device took the scale of its own shard. Their README: at most
`pretraining_model_parallel` (1 to 6) magnitudes a matrix. Shards of rows are what is read here; a row with several
magnitudes, as shards of columns would leave, is refused. onebitllms' bfloat16 export has the same form with one scale.
"""

import numpy as np
from numpy.typing import NDArray

_BLOCK = 1 << 20  # values that are looked at together: the weight may be a map of a large file


def codes_and_scales(values: NDArray) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Codes int8 [out, in] and scales float32 [n] of finite floats [out, in], with as few blocks of rows as can be.

    Exact: codes times scales are the values. Rows of zeros fit any scale. Raises ValueError, which names the first row
    that holds more than one magnitude.
    """
    rows, inner = values.shape
    codes = np.empty((rows, inner), np.int8)
    largest = np.empty(rows, np.float32)
    step = max(1, _BLOCK // inner)
    for begin in range(0, rows, step):
        block = values[begin:begin + step].astype(np.float32)
        sizes = np.abs(block)
        top = largest[begin:begin + step] = sizes.max(axis=1)
        bad = ((sizes != 0) & (sizes != top[:, None])).any(axis=1)
        if bad.any():
            row = int(bad.argmax())
            raise ValueError(f"row {begin + row} holds {len(np.unique(sizes[row][sizes[row] > 0]))} magnitudes, "
                             "one scale a row is what is read")
        codes[begin:begin + step] = np.sign(block)
    return codes, _fewest(largest)


def _fewest(largest: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scales [n] of the fewest equal blocks of rows in which all that are not zero agree."""
    rows = len(largest)
    for count in range(1, rows + 1):
        if rows % count:
            continue
        blocks = largest.reshape(count, -1)
        scales = blocks.max(axis=1)
        if ((blocks == scales[:, None]) | (blocks == 0)).all():
            scales[scales == 0] = 1  # of a block without a weight
            return scales
    raise AssertionError("rows are blocks of one row")
