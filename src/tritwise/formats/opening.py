"""`open_model`: a model by its path or its name on the Hugging Face Hub, whatever it is stored as."""

from pathlib import Path

from tritwise.formats.gguf_model import GGUFModel
from tritwise.formats.hub import fetch, parse_name
from tritwise.formats.reader import ModelDirectory, open_directory

_OF_A_DIRECTORY = (".safetensors", ".json", ".bin")


def open_model(path: str | Path) -> ModelDirectory | GGUFModel:
    """A Hugging Face directory as `open_directory` opens it, or a GGUF file, with the same methods.

    What is no path but could be a name on the hub (`org/name`, `org/name@revision`, `org/name/file.gguf`) is fetched.
    Raises TritwiseError with the file, the tensor or key, and the reason.
    """
    name, path = str(path), Path(path)
    if not path.exists() and not path.is_symlink() and parse_name(name) is not None:
        path = fetch(name)
    if path.is_file() and path.suffix not in _OF_A_DIRECTORY:
        return GGUFModel(path)
    return open_directory(path)
