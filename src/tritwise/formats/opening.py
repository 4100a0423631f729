"""`open_model`: a model by its path, whatever it is stored as."""

import os.path
from pathlib import Path

from tritwise.formats.gguf_model import GGUFModel
from tritwise.formats.reader import ModelDirectory, open_directory

_OF_A_DIRECTORY = (".safetensors", ".json", ".bin")


def open_model(path: str | Path) -> ModelDirectory | GGUFModel:
    """A Hugging Face directory as `open_directory` opens it, or a GGUF file, with the same methods.

    Raises TritwiseError with the file, the tensor or key, and the reason.
    """
    path = Path(path)
    if os.path.isfile(path) and path.suffix not in _OF_A_DIRECTORY:
        return GGUFModel(path)
    return open_directory(path)
