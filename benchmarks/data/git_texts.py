"""Source texts of commits of a git repository, for measurements: read from its objects, nothing is checked out."""

import subprocess
from pathlib import Path

SUFFIXES = (".c", ".h", ".cc", ".cpp", ".hpp", ".py", ".lua", ".tcl", ".go", ".java", ".js", ".ts", ".rs", ".sh", ".rb")
MOST_BYTES = 1_000_000


def git(repository: Path, *arguments: str, data: bytes | None = None) -> bytes:
    command = ["git", "-C", str(repository), *arguments]
    return subprocess.run(command, input=data, stdout=subprocess.PIPE, check=True).stdout


def commits(repository: Path, count: int) -> list[str]:
    """Commits of the first parents' line, the newest first; the steps between them grow evenly."""
    line = git(repository, "rev-list", "--first-parent", "HEAD").decode().split()
    return [line[i * i * len(line) // count**2] for i in range(count)]


def tree(repository: Path, commit: str) -> dict[str, str]:
    """Path -> blob of the source files of a commit."""
    result = {}
    for entry in git(repository, "ls-tree", "-r", "-z", commit).decode(errors="surrogateescape").split("\0"):
        if entry:
            (_, kind, blob), path = entry.split("\t", 1)[0].split(), entry.split("\t", 1)[1]
            if kind == "blob" and path.endswith(SUFFIXES):
                result[path] = blob
    return result


def read_blobs(repository: Path, blobs: set[str]) -> dict[str, str]:
    """Blob -> text, of those that are UTF-8 without null bytes and not too large."""
    names = sorted(blobs)
    output = git(repository, "cat-file", "--batch", data="".join(f"{name}\n" for name in names).encode())
    result, at = {}, 0
    for name in names:
        end = output.index(b"\n", at)
        header = output[at:end].split()
        if header[1] == b"missing":  # a snapshot may lack its largest files
            at = end + 1
            continue
        size = int(header[2])
        content = output[end + 1 : end + 1 + size]
        at = end + size + 2
        if size <= MOST_BYTES and b"\0" not in content:
            try:
                result[name] = content.decode()
            except UnicodeDecodeError:
                continue
    return result
