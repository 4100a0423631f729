"""C and C++ dependencies against `gcc -MM`: the repository's headers that each translation unit reaches.

    python benchmarks/data/imports_c.py --mirrors DIR --set scoring --branches all

gcc gets the include paths of the repository's own build (INCLUDES below); our resolver gets none. With `--branches all`
gcc sees the sources with their conditional directives taken out and `#pragma once` put in, so it follows every
`#include`, as our graph does; with `--branches taken` it sees them as they are, configured for this machine, and
what it leaves out (headers for other systems) counts as wrong. Headers that a build would write are ignored (-MG).
Compared are pairs (translation unit, header): gcc's list, and the closure of our edges.
"""

import argparse
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

from scoring import Verdict, closure, main

_SOURCES = (".c", ".cc", ".cpp", ".cxx")
_CONDITIONAL = re.compile(rb"^[ \t]*#[ \t]*(?:if|ifdef|ifndef|elif|elifdef|elifndef|else|endif|error|warning)\b"
                          rb"(?:[^\n\\/]|\\\r?\n|\\.|/(?!\*)|/\*.*?\*/)*", re.MULTILINE | re.DOTALL)
_COMPUTED = re.compile(rb"^[ \t]*#[ \t]*include(?:_next)?[ \t]+[A-Za-z_].*$", re.MULTILINE)

# Folders of translation units, and the include paths that the repository's build files give them (`-I`).
INCLUDES: dict[str, dict[str, tuple[str, ...]]] = {
    "valkey-io/valkey": {
        "src": ("deps/hiredis", "deps/linenoise", "deps/lua/src", "deps/hdr_histogram", "deps/fpconv",
                "deps/jemalloc/include"),
        "tests/modules": ("src",), "deps/hiredis": ("deps/hiredis",), "deps/lua/src": (), "deps/linenoise": (),
        "deps/hdr_histogram": (), "deps/fpconv": (),
    },
    "lua/lua": {"": (".",)},
    "DaveGamble/cJSON": {"cJSON.c": (), "cJSON_Utils.c": (), "test.c": (), "fuzzing": (), "tests/unity/src": (),
                         "tests": ("tests/unity/src", "tests/unity/examples", "tests/unity/extras/fixture/src"),
                         "tests/unity/test": ("tests/unity/src", "tests/unity/test/testdata"),
                         **{f"tests/unity/examples/example_{i}": (
                             "tests/unity/src", "tests/unity/extras/fixture/src",
                             f"tests/unity/examples/example_{i}/src") for i in (1, 2, 3)}},
    "jqlang/jq": {"src": ("src", "vendor"), "vendor": ("vendor",), "tests": ("src", "vendor")},
    "git/git": {"": (".",), "compat/regex": ("compat/regex", "."), "compat/poll": ("compat/poll", "."),
                "t/unit-tests": (".", "t/unit-tests")},
    "curl/curl": {"lib": ("include", "lib"), "src": ("include", "lib", "src"),
                  "tests/libtest": ("include", "lib", "src", "tests/libtest"),
                  "tests/unit": ("include", "lib", "src", "tests/libtest", "tests/unit"),
                  "tests/tunit": ("include", "lib", "src", "tests/libtest", "tests/tunit"),
                  "tests/server": ("include", "lib", "src", "tests/server")},
    "libuv/libuv": {"src": ("include", "src"), "test": ("include", "src"), "docs/code": ("include",)},
    "fmtlib/fmt": {"src": ("include",), "test": ("include", "test", "test/gtest")},
    "google/leveldb": {"": (".", "include")},
    "nlohmann/json": {"tests/src": ("include", "tests/thirdparty/doctest", "tests/thirdparty/fifo_map"),
                      "docs/examples": ("include",), "tests/benchmarks": ("include",), "tests/abi": (
                          "include", "tests/thirdparty/doctest", "tests/abi/include")},
    "gabime/spdlog": {"src": ("include",), "tests": ("include",), "example": ("include",), "bench": ("include",)},
    "catchorg/Catch2": {"src": ("src",), "tests": ("src", "tests/SelfTest"), "examples": ("src",),
                        "fuzzing": ("src",)},
}

_branches = "all"


def _take_all_branches(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file() and path.suffix in (*_SOURCES, ".h", ".hh", ".hpp", ".hxx", ".inc", ".inl", ".ipp", ".def"):
            text = _COMPUTED.sub(b"", _CONDITIONAL.sub(b"", path.read_bytes()))
            path.write_bytes(b"#pragma once\n" + text)


def _reached(folder: Path, source: str, roots: tuple[str, ...]) -> set[str] | None:
    """Files of the folder that gcc reads for a translation unit, or None when it fails."""
    command = ["g++" if PurePosixPath(source).suffix != ".c" else "gcc", "-MM", "-MG", "-w"]
    command += [f"-I{folder / root}" for root in roots or (".empty",)] + (["-nostdinc"] if _branches == "all" else [])
    child = subprocess.run([*command, str(folder / source)], capture_output=True, text=True, errors="replace",
                           check=False)
    if child.returncode:
        print(f"  gcc failed on {source}: {child.stderr.splitlines()[0]}", file=sys.stderr)
        return None
    names = child.stdout.partition(":")[2].replace("\\\n", " ").split()
    found = set()
    for name in names:
        path = Path(name).resolve()
        if path.is_file() and path.is_relative_to(folder.resolve()):
            found.add(path.relative_to(folder.resolve()).as_posix())
    return found - {source}


def judge(folder: Path, dependencies: dict[str, set[str]], repository: str) -> Verdict:
    (folder / ".empty").mkdir()
    if _branches == "all":
        _take_all_branches(folder)
    groups = INCLUDES[repository]
    units = {}
    for path in dependencies:
        if PurePosixPath(path).suffix in _SOURCES:
            group = max((g for g in groups if not g or path == g or path.startswith(g + "/")), key=len, default=None)
            if group is not None:
                units[path] = groups[group]
    with ThreadPoolExecutor(2) as pool:
        reached = dict(zip(units, pool.map(lambda unit: _reached(folder, *unit), units.items()), strict=True))
    failed = [unit for unit, headers in reached.items() if headers is None]
    judged = [unit for unit in units if unit not in set(failed)]
    return Verdict(frozenset((unit, header) for unit in judged for header in closure(dependencies, unit)),
                   frozenset((unit, header) for unit in judged for header in reached[unit] if header in dependencies),
                   f"{len(judged)} units, gcc failed on {len(failed)}")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--branches", choices=("all", "taken"), default="all")


def configure(args: argparse.Namespace) -> None:
    global _branches
    _branches = args.branches


if __name__ == "__main__":
    main(__doc__, {"c": ("c", "c++"), "c++": ("c++", "c")}, judge, add_arguments, configure)
