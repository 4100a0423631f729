"""Ruby dependencies against Ruby itself: which file requires which while each library loads.

    apt-get install ruby
    python benchmarks/data/imports_ruby.py --mirrors DIR --set scoring

This runs the libraries' top-level code. What a method requires later is not seen, so precision is a lower bound. Edges
that come from constants alone have no oracle and are left out; the note counts them.
"""

import subprocess
from dataclasses import replace
from pathlib import Path

from scoring import Verdict, by_extension, main, paths_below, read_facts

from tritwise.data.imports import dependencies as find_dependencies


def judge(folder: Path, dependencies: dict[str, set[str]], repository: str) -> Verdict:
    libraries = sorted(path.relative_to(folder).as_posix() for path in folder.glob("**/lib") if path.is_dir()
                       and not {"test", "spec", "vendor"} & set(path.relative_to(folder).parts))
    program = Path(__file__).with_name("ruby_edges") / "main.rb"
    child = subprocess.run(["ruby", program, folder, *libraries], cwd=folder, capture_output=True,
                           text=True, timeout=120, check=True, stdin=subprocess.DEVNULL)
    true = {tuple(line.split("\t")) for line in child.stdout.splitlines() if line}
    facts, _, _ = read_facts(folder, by_extension(folder, ("ruby",)))
    facts = {path: replace(each, uses=()) for path, each in facts.items()}
    required = find_dependencies(facts, paths=paths_below(folder), repository=repository)
    known = {path for path in dependencies if any(path.startswith(f"{library}/") for library in libraries)}
    # Ruby says "require", too, when a constant first loads what an autoload names.
    return Verdict(frozenset((a, b) for a in known for b in dependencies[a]
                             if b in known and (b in required[a] or (a, b) in true)),
                   frozenset((a, b) for a, b in true if {a, b} <= known and a != b),
                   f"{len(known)} files in {', '.join(libraries)}; "
                   f"{sum(len(dependencies[path] - required[path]) for path in known)} edges by constants")


if __name__ == "__main__":
    main(__doc__, {"ruby": ("ruby",)}, judge)
