"""Documents: a Parquet round trip that keeps every character, and refusals."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tritwise.common.errors import TritwiseError
from tritwise.data import Document, document_text, load_documents
from tritwise.data.documents import by_repository, part_file, read_documents, save_documents

DOCUMENT = Document("r", "p/q.py", "python", "x = 1\n", 6, "00", split="held_out", position=0)


@given(texts=st.lists(st.text(), max_size=5))
def test_documents_come_back_as_they_went(texts, tmp_path_factory):
    path = tmp_path_factory.mktemp("documents") / "00000.parquet"
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


def test_what_holds_no_documents_is_refused(tmp_path):
    import pyarrow
    import pyarrow.parquet

    with pytest.raises(TritwiseError, match="holds no documents"):
        load_documents(tmp_path)
    with pytest.raises(TritwiseError, match=r"00000\.parquet does not exist"):
        list(read_documents(tmp_path / "00000.parquet"))
    (tmp_path / "00000.parquet").write_text("not Parquet")
    with pytest.raises(TritwiseError, match="not readable as Parquet"):
        load_documents(tmp_path)
    pyarrow.parquet.write_table(pyarrow.table({"text": ["x"]}), tmp_path / "00000.parquet")
    with pytest.raises(TritwiseError, match="does not hold documents"):
        load_documents(tmp_path)


def test_parts_of_a_data_directory_follow_one_another_and_rows_come_in_groups(tmp_path):
    documents = [replace(DOCUMENT, repository=f"r{n // 3000}", path=f"{n}.py") for n in range(9000)]
    save_documents(part_file(tmp_path / "documents", 0), documents[:6000])
    save_documents(part_file(tmp_path / "documents", 1), documents[6000:])
    assert load_documents(tmp_path) == documents
    assert [(name, len(members)) for name, members in by_repository(load_documents(tmp_path))] == [
        ("r0", 3000), ("r1", 3000), ("r2", 3000)]


def test_equal_documents_give_equal_bytes(tmp_path):
    for name in ("a", "b"):
        save_documents(tmp_path / name, [DOCUMENT] * 5000)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("split", ["train", "held_out"])
def test_a_reader_of_one_split_gets_its_rows_in_their_order_and_no_facts_if_it_wants_none(tmp_path, split):
    documents = [replace(DOCUMENT, path=f"{n}.py", split=("train", "held_out", None)[n % 3], facts="{}", position=n)
                 for n in range(10)]
    only_train = [replace(DOCUMENT, path="only.py", split="train")] * 5000  # row groups without the other split
    save_documents(tmp_path / "a", only_train + documents)
    expected = [document for document in only_train + documents if document.split == split]
    assert list(read_documents(tmp_path / "a", split)) == expected
    assert list(read_documents(tmp_path / "a", split, facts=False)) == [replace(d, facts=None) for d in expected]
