"""`[train.ranks]`: what several ranks of a training trade for memory. Codes and losses do not depend on it."""

from typing import Literal

from tritwise.config.settings import Settings


class RankSettings(Settings):
    """How often ranks exchange gradients and weights in an optimizer step of several micro-batches."""

    # `step` exchanges gradients once, and until then every rank holds whole float32 gradients: 4 bytes a weight.
    # `micro_batch` exchanges them after each micro-batch, and a rank holds its share of these 4 bytes.
    reduce_gradients: Literal["step", "micro_batch"] = "step"
    # Gather a weight once a step instead of in each forward and each backward. Every rank then holds all blocks' 2-bit
    # codes at once, a quarter of a byte a weight, where it holds those of a block or two otherwise.
    keep_gathered: bool = False
