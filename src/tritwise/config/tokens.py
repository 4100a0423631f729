"""The special tokens of the tokenizers we train, and the names other code models use for the same roles."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

END_OF_TEXT = "<|end_of_text|>"
FIM_BEGIN = "<|fim_begin|>"
FIM_HOLE = "<|fim_hole|>"
FIM_END = "<|fim_end|>"
PAD = "<|pad|>"

# In this order they are the first ids of a trained tokenizer.
SPECIAL_TOKENS = (END_OF_TEXT, FIM_BEGIN, FIM_HOLE, FIM_END, PAD)


# What a model was trained to fill gaps in: prefix, suffix, middle, or suffix, prefix, middle.
FimOrder = Literal["psm", "spm"]


class FimTokens(NamedTuple):
    """Token texts of the roles; `fim_prompt` says where each stands."""

    begin: str
    hole: str
    end: str


# Tried in this order when a model is asked to fill a gap: ours, DeepSeek-Coder's, StarCoder's.
KNOWN_FIM_TOKENS = (
    FimTokens(FIM_BEGIN, FIM_HOLE, FIM_END),
    FimTokens("<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"),
    FimTokens("<fim_prefix>", "<fim_suffix>", "<fim_middle>"),
)


def fim_prompt(order: FimOrder, begin: int, hole: int, end: int, prefix: Sequence[int],
               suffix: Sequence[int]) -> tuple[Sequence[int], ...]:
    """The ids behind which the middle follows, in parts.

        psm    begin prefix hole suffix end          (arXiv 2401.14196, section 3.1.2)
        spm    begin hole suffix end prefix          the second variant of arXiv 2207.14255; StarCoder's, too
    """
    if order == "spm":
        return (begin, hole), suffix, (end,), prefix
    return (begin,), prefix, (hole,), suffix, (end,)
