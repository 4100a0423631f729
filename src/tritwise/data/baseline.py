"""What a general compressor makes of the held-out files: the bits per byte a language model has to beat."""

import lzma
from collections.abc import Iterable

from tritwise.common.errors import TritwiseError
from tritwise.data.documents import Document


def xz_bits_per_byte(documents: Iterable[Document]) -> float:
    """Bits a byte when each file's text is compressed alone as `xz -9e` does, over the UTF-8 bytes of all."""
    compressed = total = 0
    for document in documents:
        content = document.text.encode()
        compressed += len(lzma.compress(content, format=lzma.FORMAT_XZ, check=lzma.CHECK_CRC64,
                                        preset=9 | lzma.PRESET_EXTREME))
        total += len(content)
    if not total:
        raise TritwiseError("there is nothing to compress", why="the documents are empty")
    return 8 * compressed / total
