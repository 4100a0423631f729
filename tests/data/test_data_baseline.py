"""The xz baseline counts what the program `xz -9e` writes."""

import pytest

from tritwise.common.errors import TritwiseError
from tritwise.data import Document, xz_bits_per_byte


def document(text: str) -> Document:
    return Document("r", "p.py", "python", text, len(text), "", split="held_out", position=0)


TEXT = "".join(f"line {i} of {i * i}\n" for i in range(1000))  # 18 427 bytes


def test_a_file_counts_as_many_bits_as_the_program_writes():
    # `xz -9e -c FILE | wc -c` of XZ Utils 5.4.1 prints 3016.
    assert xz_bits_per_byte([document(TEXT)]) == 8 * 3016 / 18427


def test_each_file_is_compressed_alone():
    assert xz_bits_per_byte([document(TEXT)] * 2) == xz_bits_per_byte([document(TEXT)])


def test_bytes_are_counted_not_characters():
    assert xz_bits_per_byte([document("é" * 500)]) < 2 * xz_bits_per_byte([document("e" * 500)])


def test_no_text_is_refused():
    with pytest.raises(TritwiseError, match="nothing to compress"):
        xz_bits_per_byte([])
