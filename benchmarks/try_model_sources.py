"""What a model was trained on: packages with version and licence, and the standard library, with files and bytes."""

import email.parser
import hashlib
import platform
import re
import sys
import sysconfig
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parent / "data"))
from fetch_packages import names_of

from tritwise.common.errors import TritwiseError
from tritwise.common.files import sha256_file
from tritwise.data import Document
from tritwise.data.documents import part_files, read_documents
from tritwise.data.sources.licence_text import licences_of_text
from tritwise.data.sources.licences import is_licence_file

_LICENCE_OF_PYTHON = "PSF-2.0"
# What the trove classifiers call, as SPDX; the classifier of BSD says nothing about its clauses.
_CLASSIFIERS = {"MIT License": "MIT", "Apache Software License": "Apache-2.0"}
_MOST_METADATA = 1 << 22


class Source(NamedTuple):
    """A repository of the data: `package` is False for the standard library's. Files and bytes are those kept."""

    name: str
    version: str
    licence: str
    package: bool
    split: str
    files: int
    bytes: int


class Package(NamedTuple):
    """A listed wheel."""

    name: str
    version: str
    licence: str


def sources_of(data: Path, requirements: Path, wheels: Path) -> tuple[list[Source], str]:
    """The sources of a data directory, packages first, and the version of the Python whose library is in it.

    Raises TritwiseError when a wheel is not the listed one, or the library's files are not those of this interpreter.
    """
    packages = {package.name: package for package in packages_of(requirements, wheels)}
    counts: dict[tuple[str, str], list[int]] = {}
    for document in _kept(data):
        if document.repository not in packages:
            _check_library(document)
        count = counts.setdefault((document.repository, str(document.split)), [0, 0])
        count[0] += 1
        count[1] += len(document.text.encode())
    found = []
    for (name, split), (files, size) in sorted(counts.items(), key=lambda entry: (entry[0][0] not in packages, entry)):
        package = packages.get(name)
        version, licence = (package.version, package.licence) if package else (
            platform.python_version(), _LICENCE_OF_PYTHON)
        found.append(Source(name, version, licence, package is not None, split, files, size))
    return found, platform.python_version()


def _kept(data: Path) -> Iterator[Document]:
    return (document for part in part_files(data) for document in read_documents(part, facts=False)
            if document.is_kept)


def _check_library(document: Document) -> None:
    path = Path(sysconfig.get_paths()["stdlib"]) / document.path
    if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != document.sha256:
        raise TritwiseError(f"{document.repository} is neither a listed package nor of this Python's library",
                            why=f"{path} is not the file that the data was built of",
                            fix="the list of packages and the Python that built the data")


def packages_of(requirements: Path, wheels: Path) -> list[Package]:
    """The listed packages, each wheel checked against its hash. Raises TritwiseError."""
    packages = []
    lines = [line.split("#")[0].strip() for line in requirements.read_text(encoding="utf-8").splitlines()]
    for name, line in zip(names_of(requirements), filter(None, lines), strict=True):
        match = re.fullmatch(r"[\w.-]+==(\S+)\s+--hash=sha256:([0-9a-f]{64})", line)
        if match is None:
            raise TritwiseError(f"{requirements} has a line that names no version and hash", why=line)
        found = [wheel for wheel in sorted(wheels.glob("*.whl"))
                 if re.sub(r"[-_.]+", "_", wheel.name.split("-")[0]).lower() == name]
        if len(found) != 1 or sha256_file(found[0]) != match[2]:
            raise TritwiseError(f"{wheels} does not hold the listed wheel of {name}", why="it is missing, or has "
                                "another hash", fix="python benchmarks/data/fetch_packages.py LIST --out runs/packages")
        packages.append(Package(name, match[1], licence_of(found[0])))
    return packages


def licence_of(wheel: Path) -> str:
    """What a wheel's metadata say: License-Expression, License, its classifier; else what its licence file holds.

    Raises TritwiseError when nothing says it.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            names = [name for name in archive.namelist() if name.split("/")[0].endswith(".dist-info")]
            [metadata] = [name for name in names if name.count("/") == 1 and name.endswith("/METADATA")]
            headers = email.parser.HeaderParser().parsestr(_text(archive, metadata))
            texts = [_text(archive, name) for name in sorted(names) if is_licence_file(name)]
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise TritwiseError(f"{wheel} has no readable metadata", why=repr(error)) from None
    if expression := headers.get("License-Expression"):
        return expression.strip()
    known = list(filter(None, map(licences_of_text, texts)))
    stated = (headers.get("License") or "").strip()
    classifiers = [_CLASSIFIERS.get(value.rsplit(" :: ", 1)[1], value.rsplit(" :: ", 1)[1])
                   for value in headers.get_all("Classifier", []) if value.startswith("License :: OSI Approved :: ")]
    # A short SPDX name stands as it is; what others write there is as good as their licence file, or their classifier.
    if re.fullmatch(r"[A-Za-z0-9.+-]+-[0-9.]+(-Clause)?|MIT|ISC", stated):
        return stated
    for answer in (known[:1], classifiers[:1], [stated.splitlines()[0].strip()] if stated else []):
        if answer:
            return answer[0]
    raise TritwiseError(f"{wheel} does not say its licence")


def _text(archive: zipfile.ZipFile, name: str) -> str:
    if archive.getinfo(name).file_size > _MOST_METADATA:
        raise ValueError(f"{name} is too large")
    return archive.read(name).decode("utf-8", "replace")
