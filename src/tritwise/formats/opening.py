"""`open_model`: a model by its path or its name on the Hugging Face Hub, whatever it is stored as."""

import os.path
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tritwise.common.errors import TritwiseError
from tritwise.formats.gguf_model import GGUFModel
from tritwise.formats.gguf_values import I2SLayout
from tritwise.formats.hub import fetch, parse_name
from tritwise.formats.packing import TernaryTensor
from tritwise.formats.reader import ModelDirectory, open_directory

_OF_A_DIRECTORY = (".safetensors", ".json", ".bin")


def latent(model: ModelDirectory | GGUFModel, name: str) -> NDArray[np.float32]:
    """A weight to go on training from: stored latent weights, or floats that quantise to the codes there are.

    Raises TritwiseError for what is not readable and for a weight with several scales.
    """
    tensor = model.latent(name) if isinstance(model, ModelDirectory) else model.read(name)
    return tensor.latent() if isinstance(tensor, TernaryTensor) else tensor.astype(np.float32)


def open_model(path: str | Path, *, i2s_layout: I2SLayout | None = None) -> ModelDirectory | GGUFModel:
    """A Hugging Face directory as `open_directory` opens it, or a GGUF file, with the same methods.

    What is no path but could be a name on the hub (`org/name`, `org/name@revision`, `org/name/file.gguf`) is fetched.
    `i2s_layout` is for GGUF files with I2_S tensors of another layout than x86's (`GGUFModel`).
    Raises TritwiseError with the file, the tensor or key, and the reason.
    """
    name, path = str(path), Path(path)
    if not os.path.lexists(path) and parse_name(name) is not None:
        path = fetch(name)
    if os.path.isfile(path) and path.suffix not in _OF_A_DIRECTORY:
        return GGUFModel(path, i2s_layout=i2s_layout)
    if i2s_layout is not None:
        raise TritwiseError(f"{path} has no layout of I2_S", why="it is no GGUF file")
    return open_directory(path)
