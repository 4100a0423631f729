"""Keys and values of all sequences on the device, in pages that sequences may share.

One tensor of pages for all layers; a page index means the same page in each of them:

    keys, values   [layers, pages, kv heads, page tokens, stored]
    their scales   [layers, pages, kv heads, page tokens(, groups)]

    type   stored                scales               bytes of a key, head size 128
    f16    float16 [width]       none                 256
    int8   uint8   [width]       float32, one         132     code + 128, codes -127..127
    int4   uint8   [width / 2]   float16 [width / 32]  72     two codes + 8 a byte

`width` is the head size padded to 32 with zeros. Codes and scales are those of the CPU core
(native/src/cache_kernels.hpp): int8 has one scale a position and head, int4 one a group of 32 dimensions, with the sign
that makes the code of the largest magnitude -8; neither has a zero point. A byte of int4 holds dimension 32 g + i in
its lower four bits and 32 g + 16 + i in its upper ones, i < 16, so that both halves share a scale.

Which sequence holds which page is decided on the host (tritwise.engine.page_tables).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from tritwise.common.errors import TritwiseError

CACHE_TYPES = ("f16", "int8", "int4")
INT4_GROUP = 32
_ALIGNMENT = 32


def padded_width(head_dim: int) -> int:
    """Stored dimensions of a key or value."""
    return -(-head_dim // _ALIGNMENT) * _ALIGNMENT


@dataclass(frozen=True)
class LayerCache:
    """One layer's pages, views into a `KVCache`; the scales of f16 are empty tensors."""

    type: str
    head_dim: int
    keys: Tensor
    key_scales: Tensor
    values: Tensor
    value_scales: Tensor

    @property
    def kv_heads(self) -> int:
        return self.keys.shape[1]

    @property
    def page_tokens(self) -> int:
        return self.keys.shape[2]

    @property
    def width(self) -> int:
        return padded_width(self.head_dim)


class KVCache:
    """The pages of all layers. Raises TritwiseError for an unknown type and for sizes that cannot be."""

    def __init__(self, cache_type: str, *, layers: int, pages: int, kv_heads: int, head_dim: int,
                 page_tokens: int = 64, device: torch.device | str = "cpu") -> None:
        if cache_type not in CACHE_TYPES:
            raise TritwiseError(f"there is no cache type {cache_type!r} on a GPU",
                                why=f"the choices are {', '.join(CACHE_TYPES)}")
        if page_tokens < 16 or page_tokens & page_tokens - 1:
            raise TritwiseError(f"a page of {page_tokens} tokens cannot be",
                                why="a power of two from 16 up is needed")
        if min(layers, pages, kv_heads) < 1 or head_dim < 2 or head_dim > 256 or head_dim % 2:
            raise TritwiseError(f"a cache of {layers} layers, {pages} pages, {kv_heads} heads of {head_dim} cannot be",
                                why="at least one of each is needed, and an even head size up to 256")
        width = padded_width(head_dim)
        shape = (layers, pages, kv_heads, page_tokens)
        stored, scale_shape, dtype, scale_dtype = {
            "f16": (width, (0,), torch.float16, torch.float32),
            "int8": (width, shape, torch.uint8, torch.float32),
            "int4": (width // 2, (*shape, width // INT4_GROUP), torch.uint8, torch.float16),
        }[cache_type]
        self.type, self.head_dim, self.page_tokens, self.pages = cache_type, head_dim, page_tokens, pages
        # Zeros, so that what was never written is a number.
        self.keys, self.values = (torch.zeros(*shape, stored, dtype=dtype, device=device) for _ in range(2))
        self.key_scales, self.value_scales = (
            torch.zeros(scale_shape, dtype=scale_dtype, device=device) for _ in range(2))

    def _tensors(self) -> list[Tensor]:
        scales = [] if self.type == "f16" else [self.key_scales, self.value_scales]
        return [self.keys, self.values, *scales]

    def layer(self, index: int) -> LayerCache:
        """The pages of one layer, without a copy."""
        scales = (self.key_scales, self.value_scales)
        if self.type != "f16":
            scales = tuple(each[index] for each in scales)
        return LayerCache(self.type, self.head_dim, self.keys[index], scales[0], self.values[index], scales[1])

    @property
    def bytes_per_token(self) -> int:
        """Of one position in all layers."""
        return sum(each.nbytes for each in self._tensors()) // (self.pages * self.page_tokens)

    def copy_pages(self, pairs: list[tuple[int, int]]) -> None:
        """Copy whole pages (source, target) in all layers, as if all sources were read first."""
        if not pairs:
            return
        sources, targets = (torch.tensor(each, device=self.keys.device) for each in zip(*pairs, strict=True))
        for tensor in self._tensors():
            tensor[:, targets] = tensor[:, sources]
