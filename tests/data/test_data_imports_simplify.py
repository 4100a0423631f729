"""Sound code that grammars trip over counts as sound, and what is no code of its language does not."""

import random
import time

import pytest

from tritwise.data.imports import extract
from tritwise.data.imports.simplify import SIMPLIFIED, simplified

# Each is accepted by its compiler (gcc and g++ -fsyntax-only with the macros defined; Kotlin from okio's constructs).
SOUND = {
    "both branches open a brace": ("c", b"""
int f(int a) {
#ifdef FAST
  if (a > 1) {
#else
  if (a > 2) {
#endif
    return 1;
  }
  return 0;
}
"""),
    "an expression over branches": ("c", b"""
int f(int a) {
  return a +
#if defined(FAST)
    1;
#else
    2;
#endif
}
"""),
    "macros for a namespace": ("c++", b"""
NAME_SPACE_BEGIN
template <typename T> struct A;
NAME_SPACE_END
"""),
    "modifiers that are names": ("kotlin", b"""
class A(val internal: B) {
  private var final = false
  fun f() {
    internal.remove()
    final = true
  }
}
"""),
    "a comment before the constructor": ("kotlin", b"""
open class ByteString
// Trusted internal constructor does not clone data.
internal actual constructor(
  internal actual val data: ByteArray,
) : Comparable<ByteString> {
  internal actual var hashCode: Int = 0
}
"""),
}


SUFFIX = {"c": ".c", "c++": ".cpp", "c#": ".cs", "kotlin": ".kt", "swift": ".swift"}


def wrong(language: str, text: bytes) -> int:
    return extract(language, f"a{SUFFIX[language]}", text).wrong_bytes


@pytest.mark.parametrize("case", SOUND)
def test_sound_code_has_next_to_no_wrong_bytes(case):
    language, text = SOUND[case]
    assert wrong(language, text) <= 0.01 * len(text)


@pytest.mark.parametrize("language", sorted(SIMPLIFIED))
@pytest.mark.parametrize("text", [
    b"This is the first line of a letter, and it says: nothing at all.\nHere is (another one; it ends well\n" * 3,
    b"# Title\n\n- one item\n- another [item](https://a.b)\n\n> quoted text, as *this*\n" * 9,
    b"def f(a):\n    '''Adds.'''\n    return [x for x in a if x is not None]\n\n\nprint f(1)\n" * 9,
    b"}}}} ]] )) ;; == ++ {{{{ ((( [[[ \n" * 20,
])
def test_what_is_another_language_is_still_wrong(language, text):
    assert wrong(language, text) > 0.05 * len(text)


def test_comments_in_a_damaged_file_are_not_wrong():
    comment = b"/* " + b"says a lot of what follows " * 40 + b"*/\n"
    damaged = b"void f( {\n" + comment + b"  int a = ;\n"
    alone = b"void f( {\n  int a = ;\n"
    assert wrong("c", damaged) == wrong("c", alone) > 0


@pytest.mark.parametrize(("language", "text", "expected"), [
    ("c", 'a = "x//y"; // z\n', 'a = ""    ;     \n'), ("c", "a /* b\nc */ d", "a     \n     d"),
    ("c", "#if 0\na\n#else\nb\n#endif\nc", "     \n \n     \nb\n      \nc"),
    ("c", "#ifdef A\na\n#elif B\nb\n#else\nc\n#endif", "        \na\n       \n \n     \n \n      "),
    ("c", "#if A\n#if 0\na\n#else\nb\n#endif\n#else\nc\n#endif",
     "     \n     \n \n     \nb\n      \n     \n \n      "),
    ("c", "API_CALL int f(void);\nBEGIN_C\nint MACRO_A;", "         int f(void);\n       \nint MACRO_A;"),
    ("c++", 'R"(a " b)" c', '""         c'), ("kotlin", 'a("${b("c")}d")', 'a(""          )'),
    ("kotlin", '"""a\n"b"\n""" c', '""  \n   \n    c'), ("swift", '"a\\(b("c"))d" e', '""            e'),
    ("c#", '$@"a ""b"" \n{c}" d', '""         \n     d'), ("c", "'\"' \"a\" '\\''", "'\"' \"\"  '\\''"),
    ("kotlin", "#if A\nBEGIN_C\n", "#if A\nBEGIN_C\n"), ("c", "#endif\n#else\na", "      \n     \na"),
])
def test_texts_and_the_part_of_the_preprocessor_are_blanked(language, text, expected):
    assert simplified(language, text.encode()).decode() == expected


def test_lines_and_length_stay_whatever_the_text():
    chance = random.Random(3)
    pieces = ['"', "'", "//", "/*", "*/", "\n", "{", "}", "(", ")", "\\", "$", "@", '"""', 'R"(', "#if 0\n", "#else\n",
              "#endif\n", "ABCD ", "x", "é"]
    for _ in range(300):
        text = "".join(chance.choices(pieces, k=60)).encode()
        for language in SIMPLIFIED:
            result = simplified(language, text)
            assert len(result) == len(text)
            assert [i for i, byte in enumerate(result) if byte == 10] == [i for i, b in enumerate(text) if b == 10]


@pytest.mark.parametrize("piece", ['"', "'", "/*", 'R"(', '@"', '"""', '"\\(', '"${', "{", '"{"', "#if 0\n", "\\\n",
                                   " ", "#if \\\n", "ABCD(", "\t\n", '"\\(("'])
def test_no_text_takes_long(piece):
    began = time.process_time()
    for language in ("c", "kotlin"):
        simplified(language, (piece * 30_000).encode())
    assert time.process_time() - began < 1
