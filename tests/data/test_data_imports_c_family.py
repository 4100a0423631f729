"""C and C++: includes as gcc reads them, and where they lead without include paths."""

import random
import re
import shutil
import subprocess

import pytest
from repository_graph import facts_of, graph

from tritwise.data.imports import extract


def includes(text: str) -> list[tuple[str, ...]]:
    facts = extract("c++", "a.cc", text.encode())
    return sorted(each for each in facts.imports if each[0] in '"<')


TRAPS = """\
#include "one.h"
  #  include  <two.h>  // "no.h"
/* #include "no1.h" */ #include "three.h"
// #include "no2.h"
/* a
#include "no3.h"
*/
const char *text = "\\
#include \\"no4.h\\"\\n";
const char *other = "/*"; /* "
#include "no5.h"
*/
#include "four.h"
#if 0
#include "five.h"
#endif
char quote = '"';
#include "six.h" /* "
" */
#include_next <seven.h>
#import "eight.h"
"""


def test_includes_in_comments_and_strings_are_none():
    quoted = ["eight.h", "five.h", "four.h", "one.h", "six.h", "three.h"]
    assert includes(TRAPS) == [*(('"', name) for name in quoted), ("<", "seven.h"), ("<", "two.h")]


FRAGMENTS = ['#include "a.h"\n', "#include <b.h>\n", '# include "c.h" // d\n', "/* x", "*/", "/* y */", "// z", "\n",
             "\n", ";", '"s"', "'c'", '"\\""', "int x;", '#define P "q.h"\n', "/", "*", " ", 'R"(', ')"', "\\\n"]


@pytest.mark.skipif(shutil.which("g++") is None, reason="g++ runs it (apt install g++), as in CI")
def test_gcc_reads_the_same_includes(tmp_path):
    choose = random.Random(0)
    texts = [TRAPS.replace("#include_next <seven.h>", "")]
    texts += ["".join(choose.choices(FRAGMENTS, k=choose.randrange(12))) + "\n" for _ in range(60)]
    for number, text in enumerate(texts):
        (tmp_path / f"{number}.cc").write_text(text.replace("#if 0\n", "").replace("#endif\n", ""))
    command = ["g++", "-M", "-MG", "-w", "-nostdinc", "-I.", *(f"{number}.cc" for number in range(len(texts)))]
    child = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    wrong = set(re.findall(r"^(\d+)\.cc:.*error", child.stderr, re.MULTILINE))
    rules = {rule.split(".")[0]: set(rule.split()[2:]) for rule in child.stdout.replace("\\\n", " ").splitlines()}
    found = {number: names for number, names in rules.items() if number not in wrong}
    assert len(found) > 40
    assert {number: {name for _, name in includes((tmp_path / f"{number}.cc").read_text())} for number in found} == \
        found


def test_a_header_is_sought_beside_its_includer_first_and_then_in_every_root():
    files = {
        "src/main.c": '#include "near.h"\n#include "util/far.h"\n#include <lib/api.h>\n#include "../tools/t.h"\n',
        "src/near.h": "", "other/near.h": "", "core/util/far.h": "", "include/lib/api.h": "", "tools/t.h": "",
    }
    assert graph(files) == {"src/main.c": ["core/util/far.h", "include/lib/api.h", "src/near.h", "tools/t.h"]}


def test_of_several_headers_the_nearest_is_meant_and_then_the_root_that_explains_more():
    files = {
        "a/src/x.c": '#include "common.h"\n', "a/include/common.h": "", "b/include/common.h": "",
        "test/t.cc": '#include <json/all.hpp>\n#include <json/part.hpp>\n',
        "include/json/all.hpp": "", "include/json/part.hpp": "", "single/json/all.hpp": "",
    }
    assert graph(files) == {"a/src/x.c": ["a/include/common.h"],
                            "test/t.cc": ["include/json/all.hpp", "include/json/part.hpp"]}


def test_system_headers_are_not_a_repository_s_own_unless_it_is_a_c_library():
    fallback = {"src/a.c": "#include <string.h>\n#include <config.h>\n", "compat/string.h": "", "vendor/config.h": ""}
    library = {"src/a.c": "#include <string.h>\n", "include/string.h": "", "include/stdio.h": ""}
    assert graph(fallback) == {}
    assert graph(library) == {"src/a.c": ["include/string.h"]}


def test_guarded_headers_that_include_each_other_are_a_cycle_of_two_edges():
    files = {"a.h": '#ifndef A\n#define A\n#include "b.h"\n#endif\n', "b.h": '#include "a.h"\n',
             "a.c": '#include "a.h"\n'}
    assert graph(files) == {"a.h": ["b.h"], "b.h": ["a.h"], "a.c": ["a.h"]}


def test_a_source_depends_on_its_own_header_when_another_header_brings_it():
    files = {"x.c": '#include "all.h"\n', "all.h": '#include "x.h"\n', "x.h": "", "y.c": '#include "all.h"\n',
             "z.h": "", "z.c": ""}
    assert graph(files) == {"x.c": ["all.h", "x.h"], "all.h": ["x.h"], "y.c": ["all.h"]}


def test_an_include_by_macro_leads_to_what_the_macro_stands_for():
    files = {"a.c": '#define CONFIG "conf.h"\n#include CONFIG\n', "conf.h": "", "b.c": "#include OTHER\n",
             "o.h": '#define OTHER "conf.h"\n'}
    assert graph(files) == {"a.c": ["conf.h"], "b.c": ["conf.h"]}


def test_c_and_c_plus_plus_share_headers_and_a_header_is_parsed_as_what_it_is():
    files = {"a.cc": '#include "c.h"\n', "c.h": "int f(void);\n",
             "d.h": "namespace n { class C { public: int x; }; }\n"}
    assert graph(files) == {"a.cc": ["c.h"]}
    facts = facts_of(files)
    assert [facts[path].language for path in ("c.h", "d.h")] == ["c", "c++"]
    assert [facts[path].wrong_bytes for path in ("c.h", "d.h")] == [0, 0]


def test_names_that_leave_the_repository_lead_nowhere():
    assert graph({"a.c": '#include "../../a.c"\n#include "/etc/passwd"\n#include ""\n#include <a/../../b.h>\n'}) == {}
