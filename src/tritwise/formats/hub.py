"""Models by their name on the Hugging Face Hub: fetched once, checked against its hashes, then read from the cache.

    fetch("org/name")                 # the snapshot's directory
    fetch("org/name@v1.0")            # a branch, a tag or a commit
    fetch("org/name/model.gguf")      # one file

Only what a model is made of is fetched: config.json, safetensors weights, the tokenizer's files, the chat template.
Never code, never pickle. The cache is that of the library huggingface_hub (`HF_HOME`); a file `tritwise.json` in the
model's folder there records which commit a revision meant and which files of it have been checked. When the hub does
not answer, what is recorded is used.
"""

import json
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha1
from pathlib import Path, PurePosixPath
from typing import Any

from tritwise.common.errors import TritwiseError
from tritwise.common.files import atomic_write_json, sha256_file

_NAME = re.compile(r"(?P<repository>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(@(?P<revision>[\w.-][\w./-]*?))?"
                   r"(?P<file>(/[\w.-]+)+\.gguf)?", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SMALL = ("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")
_WEIGHTS, _INDEX = "model.safetensors", "model.safetensors.index.json"
_SHARD = re.compile(r"[\w.-]+\.safetensors", re.ASCII)
_RECORD = "tritwise.json"
_SECONDS, _ATTEMPTS = 10.0, 3


@dataclass(frozen=True)
class HubName:
    """`org/name`, the revision wanted, and the one file wanted (GGUF), None for a directory."""

    repository: str
    revision: str
    file: str | None

    def __str__(self) -> str:
        return f"{self.repository}@{self.revision}" + (f"/{self.file}" if self.file else "")


@dataclass(frozen=True)
class _File:
    name: str
    size: int
    sha256: str | None  # of files that the hub keeps apart (LFS)
    blob: str           # git's name of a file's content, for the others


def parse_name(text: str) -> HubName | None:
    """A name on the hub; None for what cannot be one."""
    match = _NAME.fullmatch(text)
    if match is None or ".." in text or "--" in match["repository"]:
        return None
    return HubName(match["repository"], match["revision"] or "main", match["file"][1:] if match["file"] else None)


def fetch(text: str) -> Path:
    """The directory or file of a model on the hub, complete and checked. One line on standard error says its commit.

    Raises TritwiseError when the name does not exist, when the hub does not answer and nothing is recorded, when there
    is no model in a form that is read, and for a file that is not what the hub says it is (which is deleted).
    """
    name = parse_name(text)
    if name is None:
        raise TritwiseError(f"{text} is no name of a model", why="it is org/name, org/name@revision or "
                            "org/name/file.gguf")
    hub = _library(name)
    folder = Path(hub.constants.HF_HUB_CACHE) / f"models--{name.repository.replace('/', '--')}"
    record = _Record(folder)
    commit = name.revision if _COMMIT.fullmatch(name.revision) else None
    if commit is None or not record.complete(commit, name.file):
        commit = _updated(hub, name, record)
    files = record.complete(commit, name.file)
    size = sum(record.files(commit)[each]["size"] for each in files)
    print(f"{name.repository}: commit {commit} ({len(files)} files, {size / 1e6:,.1f} MB)", file=sys.stderr)
    snapshot = folder / "snapshots" / commit
    return snapshot / name.file if name.file else snapshot


def _library(name: HubName) -> Any:
    try:
        import huggingface_hub
    except ImportError:
        raise TritwiseError(f"{name.repository} does not exist here",
                            why="there is no such path, and to fetch a model from the Hugging Face Hub takes the "
                            "library huggingface_hub", fix="pip install 'tritwise[hub]'") from None
    import huggingface_hub.constants
    import huggingface_hub.errors

    return huggingface_hub


def _updated(hub: Any, name: HubName, record: "_Record") -> str:
    """Ask the hub which commit is meant and fetch what is missing of it; the commit."""
    errors = hub.errors
    try:
        info = hub.HfApi().model_info(name.repository, revision=name.revision, files_metadata=True, timeout=_SECONDS)
    except errors.GatedRepoError:
        raise TritwiseError(f"{name.repository} cannot be fetched", why="its publisher asks for an agreement first",
                            fix="agree on its page, then: hf auth login") from None
    except errors.RepositoryNotFoundError:
        raise TritwiseError(f"{name.repository} does not exist", why="there is no such path here, and no such model on "
                            "the Hugging Face Hub, or it is private",
                            fix="check the spelling; for a private model: hf auth login") from None
    except errors.RevisionNotFoundError:
        raise TritwiseError(f"{name.repository} has no revision {name.revision!r}",
                            why="there is no branch, tag or commit of that name") from None
    except Exception as error:  # each version of the library has other classes for a network that is away
        commit = record.commit(name.revision)
        if commit is None or not record.complete(commit, name.file):
            raise TritwiseError(f"{name} cannot be fetched",
                                why=f"there is no such path here, and the hub does not answer: {_first_line(error)}",
                                fix="check the path, or try again with the network") from None
        print(f"{name.repository}: the hub does not answer; what was fetched before is used", file=sys.stderr)
        return commit
    commit = info.sha
    if not isinstance(commit, str) or not _COMMIT.fullmatch(commit) or (
            _COMMIT.fullmatch(name.revision) and commit != name.revision):
        raise TritwiseError(f"{name.repository} cannot be fetched", why=f"the hub says that its commit is {commit!r}")
    there = {each.rfilename: _described(each) for each in info.siblings or ()}
    wanted = _wanted(name, there)
    for file in wanted:
        if file.name == _INDEX:
            _fetch_one(hub, name, commit, file, record)
            wanted = [*wanted, *_shards(name, record.folder / "snapshots" / commit / _INDEX, there)]
    for file in wanted:
        _fetch_one(hub, name, commit, file, record)
    record.finish(name.revision, commit, name.file, [file.name for file in wanted])
    return commit


def _described(sibling: Any) -> _File | None:
    lfs = sibling.lfs
    digest = None if lfs is None else lfs["sha256"] if isinstance(lfs, dict) else lfs.sha256
    if not isinstance(sibling.size, int) or not (digest or sibling.blob_id):
        return None
    return _File(sibling.rfilename, sibling.size, digest, sibling.blob_id or "")


def _wanted(name: HubName, there: dict[str, _File | None]) -> list[_File]:
    if name.file is not None:
        names = [name.file]
    else:
        weights = next((each for each in (_WEIGHTS, _INDEX) if each in there), None)
        if weights is None or "config.json" not in there:
            other = sorted(each for each in there if PurePosixPath(each).suffix == ".gguf")
            missing = "config.json" if weights else f"{_WEIGHTS} or {_INDEX}"
            raise TritwiseError(f"{name.repository} holds no model that is read", why=f"it has no {missing}; weights "
                                "in pickle files are never read",
                                fix=f"{name.repository}/{other[0]}" if other else "look for a safetensors version")
        names = [*(each for each in _SMALL if each in there), weights]
    return [_known(name, each, there) for each in names]


def _known(name: HubName, file: str, there: dict[str, _File | None]) -> _File:
    if there.get(file) is None:
        raise TritwiseError(f"{name.repository} has no {file}" if file not in there else f"{file} cannot be fetched",
                            why=f"the hub lists {len(there)} files of {name.revision} without it" if file not in there
                            else "the hub states neither its size nor a hash")
    return there[file]


def _shards(name: HubName, index: Path, there: dict[str, _File | None]) -> list[_File]:
    try:
        weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        names = sorted(set(weight_map.values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise TritwiseError(f"{name.repository}: {_INDEX} is not readable", why=str(error)) from None
    for each in names:
        if not isinstance(each, str) or not _SHARD.fullmatch(each):
            raise TritwiseError(f"{name.repository}: {_INDEX} is not readable", why=f"it names the file {each!r}")
    return [_known(name, each, there) for each in names]


def _fetch_one(hub: Any, name: HubName, commit: str, file: _File, record: "_Record") -> None:
    """Fetch a file unless it is there, and check it unless that is recorded."""
    path = record.folder / "snapshots" / commit / file.name
    if record.checked(commit, file.name):
        return
    for left in reversed(range(_ATTEMPTS)):  # not every version of the library goes on after a broken connection
        try:
            hub.hf_hub_download(name.repository, file.name, revision=commit, etag_timeout=_SECONDS)
            break
        except Exception as error:  # as above
            if left == 0 or isinstance(error, hub.errors.HfHubHTTPError):
                raise TritwiseError(f"{name.repository}: {file.name} could not be fetched", why=_first_line(error),
                                    fix="try again; files that are complete are kept") from None
    if (found := _difference(path, file)) is not None:
        path.resolve().unlink(missing_ok=True)
        path.unlink(missing_ok=True)
        raise TritwiseError(f"{name.repository}: {file.name} is not what the hub says it is", why=found,
                            fix="it has been deleted; try again, and distrust the connection if that changes nothing")
    record.add(commit, file.name, file)


def _difference(path: Path, file: _File) -> str | None:
    size = path.stat().st_size
    if size != file.size:
        return f"it has {size} bytes, and {file.size} are stated"
    if file.sha256 is not None:
        digest, stated = sha256_file(path), file.sha256
    else:
        content = path.read_bytes()
        digest, stated = sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest(), file.blob
    return None if digest == stated else f"its hash is {digest}, and {stated} is stated"


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


class _Record:
    """What is known of a model's folder: {"revisions": {revision: commit}, "commits": {commit: {"files", "complete"}}}.

    A file counts as checked while its size and time of change are those of the check.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self._path = folder, folder / _RECORD
        self._values: dict[str, Any] = {"revisions": {}, "commits": {}}
        try:
            found = json.loads(self._path.read_text(encoding="utf-8"))
            if isinstance(found["revisions"], dict) and all(
                    isinstance(each["files"], dict) and isinstance(each["complete"], dict)
                    for each in found["commits"].values()):
                self._values = found
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            pass  # nothing is known, so all is checked again

    def commit(self, revision: str) -> str | None:
        return revision if _COMMIT.fullmatch(revision) else self._values["revisions"].get(revision)

    def files(self, commit: str) -> dict[str, Any]:
        return self._values["commits"].get(commit, {"files": {}})["files"]

    def checked(self, commit: str, file: str) -> bool:
        known = self.files(commit).get(file)
        try:
            state = (self.folder / "snapshots" / commit / file).stat()
        except OSError:
            return False
        return known is not None and (known["size"], known["time"]) == (state.st_size, state.st_mtime_ns)

    def complete(self, commit: str, file: str | None) -> list[str]:
        """The names of what was fetched for the file, or for the directory when None; none if some are not there."""
        needed = self._values["commits"].get(commit, {"complete": {}})["complete"].get(file or "", [])
        return needed if all(self.checked(commit, each) for each in needed) else []

    def add(self, commit: str, name: str, file: _File) -> None:
        entry = self._values["commits"].setdefault(commit, {"files": {}, "complete": {}})
        state = (self.folder / "snapshots" / commit / name).stat()
        entry["files"][name] = {"size": file.size, "time": state.st_mtime_ns, "hash": file.sha256 or file.blob}
        atomic_write_json(self._path, self._values)

    def finish(self, revision: str, commit: str, file: str | None, names: Iterable[str]) -> None:
        self._values["commits"][commit]["complete"][file or ""] = sorted(names)
        self._values["revisions"][revision] = commit
        atomic_write_json(self._path, self._values)
