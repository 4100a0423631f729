"""Models in GGUF files that must not be believed: each is refused at once, with a message and little memory.

The files are made by tests/corpus; each says in its name what is wrong with it.
"""

import tracemalloc
from pathlib import Path

import gguf
import pytest
from corpus.gguf_layout import GGUF, array, encode, number, string, strings, text
from corpus.gguf_malformed import FILES
from corpus.gguf_models import FLOATS, TERNARY, model
from hostile import is_a_message, is_refused_within, memory_of_refusal, read_everything, refusal

from tritwise import TritwiseError
from tritwise.formats import gguf_file
from tritwise.formats.gguf_file import GGUFFile

# Of processor time, for a whole opening and reading; if need be the median of three, as the machine may be busy.
SECONDS = 0.05
# What Python objects of a small model take; a file may take twice its size beside that.
BYTES = 2 << 20


@pytest.mark.parametrize("kind", [*TERNARY, "F16", "F32"])
@pytest.mark.parametrize("arch", ["bitnet-b1.58", "llama"])
def test_the_corpus_is_made_from_models_that_open(tmp_path, kind, arch):
    path = tmp_path / "model.gguf"
    path.write_bytes(encode(model(kind, arch=arch)))
    read_everything(path)
    if kind in ("TQ1_0", "TQ2_0", "F16", "F32"):  # what the gguf package knows
        theirs = gguf.GGUFReader(path)
        assert len(theirs.tensors) == len(model(kind, arch=arch).tensors)


@pytest.mark.parametrize("kind", FLOATS)
def test_embeddings_of_every_type_open(tmp_path, kind):
    path = tmp_path / "model.gguf"
    made = model("TQ2_0", embedding=kind, head=True)
    path.write_bytes(encode(made))
    assert read_everything(path) == len(made.tensors)


def test_the_corpus_is_large_and_always_the_same():
    assert len(FILES) >= 120
    for name in list(FILES)[::40]:
        assert FILES[name]() == FILES[name]()


@pytest.mark.parametrize("name", FILES)
def test_a_malformed_model_is_refused_at_once_with_a_message(tmp_path: Path, name: str):
    path = tmp_path / "model.gguf"
    content = FILES[name]()
    path.write_bytes(content)
    assert is_a_message(refusal(path)[1], path)
    assert is_refused_within(path, SECONDS)
    assert memory_of_refusal(path) < 2 * len(content) + BYTES


@pytest.mark.parametrize("kind", ["IQ2_BN", "I2_S"])
def test_a_model_cut_at_every_64th_byte_is_refused(tmp_path: Path, kind: str):
    path = tmp_path / "model.gguf"
    content = encode(model(kind, tokenizer=kind == "IQ2_BN", embedding="F16"))
    for end in range(0, len(content), 64):
        path.write_bytes(content[:end])
        assert is_a_message(refusal(path)[1], path)


def peak_of_refusal(path: Path, match: str) -> int:
    """Bytes that Python holds at most while the container is refused."""
    tracemalloc.start()
    with pytest.raises(TritwiseError, match=match):
        GGUFFile(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak


# Such files are large, and true to their word: only limits of ours bound what Python makes of them.
@pytest.mark.parametrize(("what", "make"), [
    ("strings", lambda: GGUF((array("a", "string", bytes(8 * 2**21), 2**21),))),
    ("arrays", lambda: GGUF((array("a", "array", bytes(12 * 2**17), 2**17),))),
])
def test_more_strings_or_arrays_than_any_model_has_are_refused_before_they_are_made(tmp_path, what, make):
    path = tmp_path / "model.gguf"
    path.write_bytes(encode(make()))
    assert peak_of_refusal(path, "more than 2097152 strings") < 2 * path.stat().st_size + BYTES


@pytest.mark.parametrize("make", [
    lambda: GGUF((text("a", b"x" * 4000), text("b", b"x" * 4000))),
    lambda: GGUF((strings("a", [b"x" * 4000] * 2),)),
    lambda: GGUF((strings("a", [b"x" * 4000]), text("b", b"x" * 4000))),
    lambda: GGUF((array("a", "array", (b"\x08\0\0\0" + (1).to_bytes(8, "little") + string(b"x" * 4000)) * 2, 2),)),
])
def test_more_text_than_the_limit_is_refused(tmp_path, monkeypatch, make):
    monkeypatch.setattr(gguf_file, "MOST_TEXT", 8000 + 2)  # and the names of the keys
    path = tmp_path / "model.gguf"
    path.write_bytes(encode(make()))
    GGUFFile(path)
    monkeypatch.setattr(gguf_file, "MOST_TEXT", 7999)
    assert peak_of_refusal(path, "strings of more than 7999 bytes") < BYTES


def test_more_keys_and_tensors_than_any_model_has_are_refused(tmp_path):
    path = tmp_path / "model.gguf"
    path.write_bytes(encode(GGUF(tuple(number(f"k{i}", "u8", 1) for i in range(2**16 + 1)))))
    assert peak_of_refusal(path, "at most 65536 and 65536 are read") < BYTES
