"""The special tokens of the tokenizers we train, and the names other code models use for the same roles."""

from typing import NamedTuple

END_OF_TEXT = "<|end_of_text|>"
FIM_BEGIN = "<|fim_begin|>"
FIM_HOLE = "<|fim_hole|>"
FIM_END = "<|fim_end|>"
PAD = "<|pad|>"

# In this order they are the first ids of a trained tokenizer.
SPECIAL_TOKENS = (END_OF_TEXT, FIM_BEGIN, FIM_HOLE, FIM_END, PAD)


class FimTokens(NamedTuple):
    """Token texts of prefix-suffix-middle order: begin, prefix, hole, suffix, end, middle."""

    begin: str
    hole: str
    end: str


# Tried in this order when a model is asked to fill a gap: ours, DeepSeek-Coder's, StarCoder's.
KNOWN_FIM_TOKENS = (
    FimTokens(FIM_BEGIN, FIM_HOLE, FIM_END),
    FimTokens("<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"),
    FimTokens("<fim_prefix>", "<fim_suffix>", "<fim_middle>"),
)
