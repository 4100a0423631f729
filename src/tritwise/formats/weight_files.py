"""Where the tensors of a model directory lie: one file, or the shards that an index names."""

import os.path
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tritwise.common.errors import TritwiseError
from tritwise.common.files import read_json
from tritwise.formats.safetensors_file import SafetensorsFile, StoredTensor

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"


@dataclass(frozen=True)
class Place:
    """A tensor by its file and its name there."""

    file: SafetensorsFile
    name: str

    @property
    def path(self) -> Path:
        """The file's path."""
        return self.file.path

    @property
    def stored(self) -> StoredTensor:
        """What the file's header says of it."""
        return self.file.tensors[self.name]

    def array(self) -> np.ndarray:
        """Its values, read-only."""
        return self.file.array(self.name)


def tensor_error(place: Place, why: str, fix: str = "") -> TritwiseError:
    """An error that names the file and the tensor as it is called there."""
    return TritwiseError(f"{place.path}: {place.name} cannot be used", why=why, fix=fix)


def locate(path: Path) -> dict[str, Place]:
    """Each tensor's name in the directory `path`, and its place.

    The files are model.safetensors or, when that is absent, the shards named by model.safetensors.index.json (the order
    in which transformers looks). Raises TritwiseError when there are none, and where index and shards disagree.
    """
    if (path / WEIGHTS).exists():
        file = SafetensorsFile(path / WEIGHTS)
        return {name: Place(file, name) for name in file.tensors}
    if (path / INDEX).exists():
        return _locate_shards(path)
    others = sorted(p.name for p in path.iterdir() if p.suffix in (".bin", ".pt", ".pth"))
    if others:
        raise TritwiseError(
            f"{path} holds no safetensors weights", why=f"only {', '.join(others[:3])}: a pickle can run any code "
            "when it is opened, so only safetensors are read",
            fix="save the model again with transformers' save_pretrained(..., safe_serialization=True)")
    raise TritwiseError(f"{path} holds no weights", why=f"neither {WEIGHTS} nor {INDEX} is there")


def _locate_shards(path: Path) -> dict[str, Place]:
    index = path / INDEX
    content: Any = read_json(index, what="an index of shards")
    weight_map = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(weight_map, dict) or not weight_map:
        raise TritwiseError(f"{index} is not an index of shards", why="it has no weight_map of names to files")
    for name, shard in weight_map.items():
        if not isinstance(shard, str) or Path(shard).name != shard or not shard.endswith(".safetensors"):
            raise TritwiseError(f"{index}: {name} is said to lie in {shard!r}",
                                why="a shard is a .safetensors file beside the index, named without a path")
    files = {}
    for shard in sorted(set(weight_map.values())):
        if not os.path.isfile(path / shard):
            name = next(name for name, at in weight_map.items() if at == shard)
            raise TritwiseError(f"{path / shard} does not exist", why=f"{INDEX} says that it holds {name}",
                                fix="copy or download the missing file")
        files[shard] = SafetensorsFile(path / shard)
    for name, shard in weight_map.items():
        if name not in files[shard].tensors:
            raise tensor_error(Place(files[shard], name), f"it is missing; {INDEX} says that it is there")
    for shard, file in files.items():
        for name in file.tensors:
            if weight_map.get(name) != shard:
                raise tensor_error(Place(file, name), f"{INDEX} does not say that it is there")
    return {name: Place(files[shard], name) for name, shard in weight_map.items()}
