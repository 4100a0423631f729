"""Packages as repositories: the Python files of listed wheels, one folder a package.

    python benchmarks/data/fetch_packages.py benchmarks/data/order_payoff_packages.txt --out runs/packages

The list is a requirements file with a hash for each line; pip fetches and checks (`--require-hashes`, wheels for any
platform only, so that no package's code runs). What is unpacked lies in OUT/repositories/NAME; folders of packages that
are not on the list are an error, for they would be trained on.
"""

import argparse
import re
import subprocess
import sys
import zipfile
from pathlib import Path, PurePosixPath

from tritwise.common.errors import TritwiseError
from tritwise.common.files import atomic_directory

_LARGEST_FILE, _LARGEST_PACKAGE = 1 << 24, 1 << 28


def names_of(requirements: Path) -> list[str]:
    """The packages on a list, in pip's normal form, with underscores as in the names of wheels."""
    lines = [line.split("#")[0].strip() for line in requirements.read_text(encoding="utf-8").splitlines()]
    return [re.sub(r"[-_.]+", "_", line.split("==")[0]).lower() for line in lines if line]


def download(requirements: Path, wheels: Path) -> None:
    """Fetch what is listed; what lies there already is only checked."""
    wheels.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "--no-deps", "--require-hashes",
               "--only-binary=:all:", "--platform", "any", "--python-version", "3.11", "-d", str(wheels),
               "-r", str(requirements)]
    if subprocess.run(command, check=False, stdout=sys.stderr).returncode:
        raise TritwiseError("the packages could not be fetched", why="what pip said stands above",
                            fix="the same command goes on with what is missing")


def unpack(wheel: Path, target: Path) -> int:
    """The .py files of a wheel below `target`, which appears whole; returns their number.

    Raises TritwiseError for a file that is no zip, for paths that lead outside, and for sizes that no package has.
    """
    count = total = 0
    try:
        with zipfile.ZipFile(wheel) as archive, atomic_directory(target) as directory:
            for member in archive.infolist():
                path = PurePosixPath(member.filename)
                if path.suffix != ".py":
                    continue
                total += member.file_size
                if path.is_absolute() or ".." in path.parts or "\\" in member.filename:
                    raise TritwiseError(f"{wheel} holds {member.filename}", why="it would lie outside of its folder")
                if member.file_size > _LARGEST_FILE or total > _LARGEST_PACKAGE:
                    raise TritwiseError(f"{wheel} is too large", why=f"{member.filename}: {total} bytes")
                (directory / path).parent.mkdir(parents=True, exist_ok=True)
                (directory / path).write_bytes(archive.read(member))
                count += 1
    except (zipfile.BadZipFile, OSError, NotImplementedError, RuntimeError) as error:
        raise TritwiseError(f"{wheel} cannot be unpacked", why=str(error)) from None
    return count


def fetch(requirements: Path, out: Path) -> Path:
    """Download and unpack all packages; returns the folder of repositories."""
    names, repositories = names_of(requirements), out / "repositories"
    download(requirements, out / "wheels")
    for name in names:
        found = [wheel for wheel in sorted((out / "wheels").glob("*.whl")) if
                 re.sub(r"[-_.]+", "_", wheel.name.split("-")[0]).lower() == name]
        if len(found) != 1:
            raise TritwiseError(f"{out / 'wheels'} holds {len(found)} wheels of {name}", fix="delete that folder")
        if not (repositories / name).is_dir():
            print(f"{name}: {unpack(found[0], repositories / name)} files", file=sys.stderr)
    if strangers := sorted({entry.name for entry in repositories.iterdir()} - set(names)):
        raise TritwiseError(f"{repositories} holds {strangers[0]}", why="it is not on the list",
                            fix="delete that folder, or give another --out")
    return repositories


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("requirements", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/packages"))
    arguments = parser.parse_args()
    try:
        print(fetch(arguments.requirements, arguments.out))
    except TritwiseError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
