"""Edges of Java, Kotlin and Scala files against the compilers': javac, kotlinc or scalac, then jdeps -v on the classes.

    python benchmarks/data/imports_java.py --mirrors FOLDER --language java [--set scoring] [--wrong 20]

What compiles is each repository's main source, without tests. A class stands for the file that its SourceFile attribute
names. jdeps cannot see a constant that the compiler copied (javac does so for numbers and strings), a name for a type
or an inlined function of Kotlin, nor what a comment mentions; it sees the types of values that no file names.

kotlinc: `npm install kotlin-compiler`; --kotlinc is its bin/kotlinc. scalac: --scala-jars is the folder deps/jars of
the PyPI package pyspark. --jars: for junit4 hamcrest.jar of Debian's libhamcrest-java.
"""

import argparse
import itertools
import re
import subprocess
import tempfile
import tomllib
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from scoring import LIST, Verdict, main, repositories, unpack

# A class path entry of the compiled repository, and where its main source is when not in src/main/LANGUAGE.
SOURCES = {
    "google/gson": ("gson/src/main/java",),
    "square/okio": ("okio/src/commonMain", "okio/src/hashFunctions", "okio/src/jvmMain", "okio/src/zlibMain",
                    "okio/src/systemFileSystemMain", "okio/src/nonJsMain"),
    "ajalt/colormath": ("colormath/src/commonMain", "colormath/src/jvmMain"),
    "michaelbull/kotlin-result": ("kotlin-result/src/commonMain", "kotlin-result/src/jvmMain"),
    "Kotlin/kotlinx.collections.immutable": ("core/commonMain", "core/jvmMain"),
    "com-lihaoyi/os-lib": ("os/src", "os/src-jvm", "os/src-2"),
    "com-lihaoyi/geny": ("geny/src",),
    "scala/scala-swing": ("src/main/scala", "src/main/scala-2.13+"),
    "scala/scala-collection-contrib": ("src/main/scala",),
    "scopt/scopt": ("shared/src/main/scala", "jvm/src/main/scala"),
    "scala/scala-parser-combinators": ("shared/src/main/scala", "shared/src/main/scala-2.13+",
                                       "shared/src/main/scala-2", "jvm/src/main/scala"),
    "scala/scala-xml": ("shared/src/main/scala", "shared/src/main/scala-2", "shared/src/main/scala-2.13+",
                        "shared/src/main/scala-2.x", "jvm/src/main/scala"),
}
SUFFIX = {"java": ".java", "kotlin": ".kt", "scala": ".scala"}
# What repositories allow themselves in their build files.
OPT_IN = ("kotlin.contracts.ExperimentalContracts", "kotlin.ExperimentalStdlibApi", "kotlin.ExperimentalUnsignedTypes",
          "kotlin.time.ExperimentalTime", "kotlin.uuid.ExperimentalUuidApi")
PACKAGE = re.compile(r"^\s*package\s+([\w.`]+)", re.MULTILINE)
options = argparse.Namespace()


def sources(folder: Path, name: str, language: str) -> list[Path]:
    roots = SOURCES.get(name, ("src/main/java",))
    suffixes = (SUFFIX[language], ".java")
    found = {path for root in roots for path in (folder / root).rglob("*") if path.suffix in suffixes}
    return sorted(path for path in found if path.name not in ("module-info.java", "package-info.java"))


def compile_sources(folder: Path, name: str, language: str, classes: Path, needs: Iterable[Path]) -> list[Path]:
    """Compiles what can be, into `classes`; the files that were given to the compiler."""
    files = sources(folder, name, language)
    path = ":".join(map(str, needs))
    if language == "java":
        command = ["javac", "-proc:none", "-nowarn", "-encoding", "UTF-8", "-d", classes, "-cp", path or ".", *files]
    elif language == "kotlin":
        common = [path for path in files if not {"jvmMain", "nonJsMain"} & set(path.parts)]
        command = [options.kotlinc, "-d", classes, "-Xmulti-platform", "-Xexpect-actual-classes", "-nowarn",
                   *(f"-opt-in={name}" for name in OPT_IN),
                   *([f"-Xcommon-sources={','.join(map(str, common))}"] if common else []),
                   *(["-cp", path] if path else []), *files]
    else:
        jars = ":".join(map(str, sorted(options.scala_jars.glob("scala-*.jar"))))
        command = ["java", "-cp", jars, "scala.tools.nsc.Main", "-usejavacp", "-nowarn", "-d", classes,
                   "-cp", f"{jars}:{path}", *files]
    result = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    if result.returncode:
        errors = [line for line in result.stderr.splitlines() if "error" in line]
        print("\n".join(errors[:options.wrong]))
        print(f"  {name}: the compiler found {len(errors)} errors and wrote {len([*classes.rglob('*.class')])} classes")
    return files


def _base_and_package(path: Path) -> tuple[str, str]:
    package = ".".join(PACKAGE.findall(path.read_text("utf-8", "replace"))).replace("`", "")
    return path.name, package


def source_of_classes(classes: Path, files: Iterable[Path]) -> dict[str, Path]:
    """The file of each class, by its SourceFile attribute and its package; of several, the first by path.

    Those are declarations that Kotlin expects in one file and has in another of the same name.
    """
    by_name: dict[str, list[tuple[str, Path]]] = {}
    for path in files:
        by_name.setdefault(path.name, []).append((_base_and_package(path)[1], path))
    compiled = sorted(classes.rglob("*.class"))
    text = "".join(subprocess.run(["javap", "-p", *map(str, compiled[i:i + 500])], capture_output=True, text=True,
                                  check=True).stdout for i in range(0, len(compiled), 500))
    result = {}
    for source, name in re.findall(r'^Compiled from "(.+)"\n.*?(?:class|interface) ([\w.$]+)', text, re.MULTILINE):
        package = name.rpartition(".")[0]
        candidates = by_name.get(source, [])
        near = [path for p, path in candidates if p == package]
        near = near or [path for p, path in candidates if package.startswith(p)]
        if near:
            result[name] = min(near)
    return result


def judge(folder: Path, ours: dict[str, set[str]], name: str) -> Verdict:
    language = options.language
    table = tomllib.loads(LIST.read_text())
    commits = {repository: commit for section in SUFFIX for which in ("tuning", "scoring", "second_scoring")
               for repository, commit in repositories(section, which)} | {"com-lihaoyi/geny": "HEAD"}
    with tempfile.TemporaryDirectory() as temporary:
        needs = list(options.jars)
        for need in table[language].get("needs", {}).get(name, ()):
            source, target = Path(temporary, need, "source"), Path(temporary, need, "classes")
            target.mkdir(parents=True)
            unpack(options.mirrors, need, commits[need], source)
            compile_sources(source, need, language, target, needs)
            needs.append(target)
        classes = Path(temporary, "classes")
        classes.mkdir()
        files = compile_sources(folder, name, language, classes, needs)
        source_of = source_of_classes(classes, files)
        text = subprocess.run(["jdeps", "-v", *(["-cp", ":".join(map(str, needs))] if needs else []), str(classes)],
                              capture_output=True, text=True, check=True).stdout
    relative = {path: PurePosixPath(path.relative_to(folder)).as_posix() for path in files}
    # Files of one name and package, what is expected and what is there, are taken for one.
    one_of = {}
    for _, group in itertools.groupby(sorted(files, key=_base_and_package), key=_base_and_package):
        same = sorted(group)
        one_of |= {relative[path]: relative[same[0]] for path in same}
    true = set()
    for a, b in re.findall(r"^\s+(\S+)\s+->\s+(\S+)\s", text, re.MULTILINE):
        if a in source_of and b in source_of and source_of[a] != source_of[b]:
            true.add((relative[source_of[a]], relative[source_of[b]]))
    judged = {relative[path] for path in set(source_of.values())}
    found = {(one_of[a], one_of[b]) for a, targets in ours.items() for b in targets if a in one_of and b in one_of}
    found = {(a, b) for a, b in found if a in judged and b in judged and a != b}
    return Verdict(frozenset(found), frozenset(true), f"{len(judged)} of {len(files)} files have classes")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--jars", type=Path, nargs="*", default=[], help="others' classes to compile with")
    parser.add_argument("--kotlinc", type=Path, help="the compiler of Kotlin")
    parser.add_argument("--scala-jars", type=Path, help="folder of scala-compiler, scala-library and scala-reflect")


def configure(args: argparse.Namespace) -> None:
    if not args.language:
        raise SystemExit("--language is needed")
    vars(options).update(vars(args))


if __name__ == "__main__":
    everything = ("java", "kotlin", "scala")  # they see each other
    main(__doc__, dict.fromkeys(everything, everything), judge, add_arguments, configure)
