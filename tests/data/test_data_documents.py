"""Documents: a Parquet round trip that keeps every character, and refusals."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tritwise.common.errors import TritwiseError
from tritwise.data import Document, document_text, load_documents
from tritwise.data.documents import save_documents
from tritwise.data.languages import COMMENT_PREFIX, language_of

DOCUMENT = Document("r", "p/q.py", "python", "x = 1\n", 6, "00", split="held_out", position=0)


@given(texts=st.lists(st.text(), max_size=5))
def test_documents_come_back_as_they_went(texts, tmp_path_factory):
    path = tmp_path_factory.mktemp("documents") / "documents.parquet"
    documents = [replace(DOCUMENT, text=text, position=i) for i, text in enumerate(texts)]
    documents.append(replace(DOCUMENT, text="", split=None, position=None, dropped_by="syntax"))
    documents.append(replace(DOCUMENT, split="train"))
    save_documents(path, documents)
    assert load_documents(path, split=None) == documents
    assert load_documents(path) == load_documents(path.parent) == documents[:-2]
    assert load_documents(path, split="train") == documents[-1:]


def test_a_document_is_scored_with_its_path_in_a_comment_of_its_language():
    assert document_text(DOCUMENT) == "# p/q.py\nx = 1\n"
    assert document_text(replace(DOCUMENT, path="a.rs", language="rust")) == "// a.rs\nx = 1\n"


@pytest.mark.parametrize(("path", "language"), [
    ("a/b.py", "python"), ("B.PY", "python"), ("x.h", "c"), ("x.tsx", "typescript"), ("x.txt", None), ("py", None)])
def test_the_extension_gives_the_language(path, language):
    assert language_of(path) == language
    assert language is None or language in COMMENT_PREFIX


def test_what_holds_no_documents_is_refused(tmp_path):
    import pyarrow
    import pyarrow.parquet

    with pytest.raises(TritwiseError, match=r"documents\.parquet does not exist"):
        load_documents(tmp_path)
    (tmp_path / "documents.parquet").write_text("not Parquet")
    with pytest.raises(TritwiseError, match="not readable as Parquet"):
        load_documents(tmp_path)
    pyarrow.parquet.write_table(pyarrow.table({"text": ["x"]}), tmp_path / "documents.parquet")
    with pytest.raises(TritwiseError, match="does not hold documents"):
        load_documents(tmp_path)
