"""Rust dependencies against `rustc --emit=dep-info`: the files of each crate's module tree.

    python benchmarks/data/imports_rust.py --mirrors DIR --set scoring

rustc names the files that it reads for a crate; modules that `#[cfg]` leaves out are not read. Other crates are not
here, so it may stop with errors before it writes them down, but after it has read them: then strace tells which files
it opened. Each must be in the closure of our edges from the root. Only recall is judged: our graph holds, beside
`mod`, what a file uses.
"""

import posixpath
import re
import subprocess
import tempfile
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from scoring import Verdict, closure, main


def _roots(folder: Path) -> list[tuple[str, str, str]]:
    """(root file, kind, edition) of the crates that Cargo.toml files name or imply."""
    found = []
    for manifest in sorted(folder.rglob("Cargo.toml")):
        try:
            value = tomllib.loads(manifest.read_text())
        except tomllib.TOMLDecodeError:
            continue
        if "package" not in value:
            continue
        edition = value["package"].get("edition", "2015")
        edition = edition if isinstance(edition, str) else "2021"
        place = manifest.parent
        files = {place / value.get("lib", {}).get("path", "src/lib.rs"): "lib", place / "src/main.rs": "bin"}
        files |= {place / each["path"]: "bin" for kind in ("bin", "test", "bench", "example")
                  for each in value.get(kind, []) if "path" in each}
        for name in ("src/bin", "tests", "examples", "benches"):
            files |= dict.fromkeys(sorted((place / name).glob("*.rs")), "test" if name == "tests" else "bin")
        found += [(file.relative_to(folder).as_posix(), kind, edition) for file, kind in files.items()
                  if file.is_file()]
    return sorted(set(found))


def _read(folder: Path, root: str, kind: str, edition: str) -> set[str]:
    with tempfile.TemporaryDirectory() as out:
        trace = Path(out) / "trace"
        trace = Path(out) / "trace"
        command = ["strace", "-f", "-qq", "-e", "trace=open,openat", "-o", trace, "rustc", "--emit=dep-info",
                   "--edition", edition, "--crate-type", "lib" if kind == "lib" else "bin", "--cfg", 'feature="full"',
                   "--out-dir", out, *(["--test"] if kind == "test" else []), root]
        subprocess.run(command, cwd=folder, capture_output=True, check=False)
        text = "".join(path.read_text() for path in Path(out).glob("*.d"))
        if not text:
            text = "\n".join(f"{name}:" for name in re.findall(r'"([^"]+\.rs)", O_RDONLY\S* = \d', trace.read_text()))
    names = {posixpath.normpath(name) for name in re.findall(r"^(\S+\.rs):$", text, re.MULTILINE)}
    return {name for name in names if not name.startswith("/")} - {root}


def judge(folder: Path, dependencies: dict[str, set[str]], repository: str) -> Verdict:
    roots = _roots(folder)
    with ThreadPoolExecutor(2) as pool:
        read = list(pool.map(lambda each: _read(folder, *each), roots))
    true = {(root, file) for (root, _, _), files in zip(roots, read, strict=True) for file in files
            if file in dependencies}
    found = {(root, file) for root, _, _ in roots for file in closure(dependencies, root)}
    return Verdict(frozenset(found & true), frozenset(true),
                   f"{len(roots)} crates, {sum(bool(files) for files in read)} with modules")


if __name__ == "__main__":
    main(__doc__, {"rust": ("rust",)}, judge)
