"""Files of any content have facts: nothing in them is believed before it is checked."""

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tritwise.data.imports import Facts, dependencies, extract
from tritwise.data.imports.parse import SlowFileError

LANGUAGES = {"python": "py", "java": "java", "kotlin": "kt", "scala": "scala", "c#": "cs", "swift": "swift"}
PIECES = [
    "import ", "from ", "package ", "using ", "static ", "namespace ", "class ", "object ", "fun ", "func ", "def ",
    "extension ", "extends ", "this ", "val ", "case ", "A", "a", "b.C", "A.b(", "a.b", "*", "_", "=>", " as ", "(",
    ")", "{", "}", "<", ">", "[", "]", ".", ",", ":", ";", "=", "@", "#if X\n", "`", '"', '"""', "'", "$", "\\", "//",
    "/*", "*/", "\n", " ", "\0", "é", "\ufeff", "1", "?",
]


@pytest.mark.parametrize("language", LANGUAGES)
@settings(max_examples=40, deadline=None)
@given(pieces=st.lists(st.sampled_from(PIECES), max_size=25), cut=st.integers(0, 3))
def test_pieces_of_files_in_any_order_have_facts_that_can_be_stored_and_used(language, pieces, cut):
    path = f"a/X.{LANGUAGES[language]}"
    content = "".join(pieces).encode()
    with contextlib.suppress(SlowFileError):
        facts = extract(language, path, content[:len(content) - cut])
        assert Facts.from_json(facts.to_json()) == facts
        for names in (facts.imports, facts.defines, facts.uses):
            assert list(names) == sorted(set(names))
        found = dependencies({path: facts, f"b/{path}": facts})
        assert found.keys() == {path, f"b/{path}"}
        assert all(path not in targets for path, targets in found.items())
