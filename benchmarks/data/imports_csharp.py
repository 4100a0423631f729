"""Edges of C# files against mcs: which file's intermediate code mentions which type, by Mono.Cecil.

    apt-get install mono-mcs mono-devel
    python benchmarks/data/imports_csharp.py --mirrors FOLDER [--set scoring] [--wrong 20]

mcs knows C# 7 and no packages, so repositories are read at commits of that time. What a type is made of is in the file
that the symbols of its methods name; a type without methods (enumerations, interfaces) is where its declaration stands,
looked for as text. A type in several files stands for all of them, a method for the one that holds it. The code does
not hold constants and members of enumerations that the source names, only their values; it holds types of values that
no file names.
"""

import argparse
import re
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path

from scoring import Verdict, main

# Folders that are compiled, constants that are defined, further options.
PROJECTS = {
    "JamesNK/Newtonsoft.Json": (("Src/Newtonsoft.Json",), "Src/Newtonsoft.Json/Newtonsoft.Json.Net40.csproj",
                                ("-r:System.Runtime.Serialization", "-r:System.Data", "-r:System.Numerics",
                                 "-r:System.Xml.Linq", "-r:System.Xml", "-r:System.Core")),
    "jbevain/cecil": (("Mono.Cecil", "Mono.Cecil.Cil", "Mono.Cecil.Metadata", "Mono.Cecil.PE", "Mono",
                       "Mono.Collections.Generic", "Mono.Security.Cryptography"), "NET_4_0", ("-r:System.Core",)),
}
DECLARATION = re.compile(r"\b(?:class|struct|interface|enum|delegate\s+[\w<>\[\], .?]+)\s+(\w+)\s*[<:({\s;]")
options = argparse.Namespace()


def compile_project(folder: Path, name: str, out: Path) -> list[Path]:
    folders, constants, arguments = PROJECTS[name]
    if constants.endswith(".csproj"):
        found = re.findall(r"<DefineConstants>(.*?)</DefineConstants>", (folder / constants).read_text("utf-8-sig"))
        constants = max(found, key=len)
    files = sorted(path for each in folders for path in (folder / each).rglob("*.cs")
                   if not {"obj", "bin"} & set(path.parts))
    result = subprocess.run(["mcs", "-target:library", "-debug", "-unsafe", "-nowarn:1-9999", f"-out:{out}",
                             f"-d:{constants}", *arguments, *map(str, files)],
                            capture_output=True, text=True, check=False)
    if result.returncode:
        errors = [line for line in (result.stdout + result.stderr).splitlines() if "error" in line]
        raise SystemExit(f"{name}: mcs found {len(errors)} errors, first {errors[:3]}")
    return files


def references(assembly: Path, folder: Path) -> list[list[str]]:
    program = folder / "References.exe"
    cecil = next(Path("/usr/lib/mono/gac/Mono.Cecil").glob("0.11*/Mono.Cecil.dll"))
    subprocess.run(["mcs", f"-out:{program}", f"-r:{cecil}", "-r:Mono.CompilerServices.SymbolWriter",
                    str(Path(__file__).with_name("csharp_references") / "References.cs")], check=True)
    lines = subprocess.run(["mono", program, assembly], capture_output=True, text=True, check=True,
                           env={"MONO_PATH": str(cecil.parent), "PATH": "/usr/bin:/bin"}).stdout.splitlines()
    return [line.split("\t") for line in lines]


def files_of_types(lines: Iterable[list[str]], files: Iterable[Path]) -> dict[str, set[str]]:
    """Files of each type: those of its methods, else those that declare its name."""
    found: dict[str, set[str]] = {}
    mentioned = set()
    for kind, *values in lines:
        if kind == "type":
            found.setdefault(values[0], set()).add(values[1])
        else:
            mentioned |= set(values)
    declared: dict[str, set[str]] = {}
    for path in files:
        for name in DECLARATION.findall(path.read_text("utf-8-sig", "replace")):
            declared.setdefault(name, set()).add(str(path))
    for name in mentioned - found.keys():
        simple = re.split(r"[.]", name)[-1].partition("`")[0]
        if len(declared.get(simple, ())) == 1:
            found[name] = declared[simple]
    return found


def judge(folder: Path, ours: dict[str, set[str]], name: str) -> Verdict:
    with tempfile.TemporaryDirectory() as temporary:
        out = Path(temporary, "Library.dll")
        files = compile_project(folder, name, out)
        lines = references(out, Path(temporary))
    relative = {str(path): path.relative_to(folder).as_posix() for path in files}
    files_of = files_of_types(lines, files)
    true, judged = set(), {relative[path] for paths in files_of.values() for path in paths if path in relative}
    for kind, user, used in lines:
        users = {user} if user in relative else files_of.get(user, set())
        if kind == "uses" and len(users) == 1:
            targets = {used} if used in relative else files_of.get(used, set())
            true |= {(relative[a], relative[b]) for a in users for b in targets if a != b}
    # A mention of a type in its own file is one of all its parts; they are no dependencies.
    parts = {(relative[a], relative[b]) for paths in files_of.values() for a in paths for b in paths}
    true -= parts
    found = {(a, b) for a, targets in ours.items() for b in targets if a in judged and b in judged} - parts
    return Verdict(frozenset(found), frozenset(true), f"{len(judged)} of {len(files)} files have types")


if __name__ == "__main__":
    main(__doc__, {"csharp": ["c#"]}, judge)
