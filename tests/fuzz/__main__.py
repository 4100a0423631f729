"""Fuzz every target, or one, for so many executions each, and count them: `python -m fuzz [TARGET] --runs 20000`.

Exit status 1 when something was found; the input lies in OUT/findings then.
"""

import argparse
import re
import subprocess
import sys
import time
from pathlib import Path

from fuzz.targets import TARGETS


def fuzz(target: str, out: Path, *, runs: int, seconds: int, megabytes: int) -> bool:
    """One target; whether nothing was found."""
    findings = out / "findings"
    findings.mkdir(parents=True, exist_ok=True)
    flags = [f"-runs={runs}", f"-rss_limit_mb={megabytes}", f"-artifact_prefix={findings}/{target}-"]
    flags += [f"-max_total_time={seconds}"] if seconds else []
    begin = time.monotonic()
    child = subprocess.run([sys.executable, "-m", "fuzz.engine", target, str(out / target), *flags],
                           capture_output=True, text=True, errors="backslashreplace", check=False)
    elapsed = time.monotonic() - begin
    (out / f"{target}.log").write_text(child.stderr)
    done = re.search(r"Done (\d+) runs", child.stderr)
    last = re.findall(r"^#(\d+)\s.*? cov: (\d+).*?rss: (\d+)Mb", child.stderr, re.MULTILINE)
    count = int(done[1]) if done else int(last[-1][0]) if last else 0
    counted = re.findall(r"^accepted (\d+), refused (\d+)", child.stderr, re.MULTILINE)
    share = f", {int(counted[-1][0]) / sum(map(int, counted[-1])):.0%} accepted" if counted else ""
    coverage = f", coverage {last[-1][1]}, {last[-1][2]} MB" if last else ""
    print(f"{target}: {count:,} executions in {elapsed:.0f} s, {count / elapsed:.0f} a second{share}{coverage}: "
          + ("nothing found" if child.returncode == 0 else f"FOUND something, see {out / target}.log"), flush=True)
    return child.returncode == 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="fuzz", description=__doc__)
    parser.add_argument("target", nargs="?", choices=list(TARGETS))
    parser.add_argument("--runs", type=int, default=20_000, help="executions a target; -1: no end")
    parser.add_argument("--seconds", type=int, default=0, help="the most seconds a target")
    parser.add_argument("--megabytes", type=int, default=1024, help="the most memory")
    parser.add_argument("--out", type=Path, default=Path("build/fuzz"))
    given = parser.parse_args()
    results = [fuzz(target, given.out, runs=given.runs, seconds=given.seconds, megabytes=given.megabytes)
               for target in ([given.target] if given.target else TARGETS)]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
