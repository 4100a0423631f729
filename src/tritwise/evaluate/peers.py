"""Other programs' opinion of a model: the logits that transformers or llama.cpp compute for the same token ids.

    with open_peer("transformers", "runs/quickstart/ternary", context=512) as peer:
        peer.logits([5, 6, 7])        # float32 [3, vocabulary]

Neither is a dependency; each is imported when it is asked for.
"""

import ctypes
import importlib.util
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from tritwise.common.errors import TritwiseError
from tritwise.formats import open_model

PeerName = Literal["transformers", "llama.cpp"]
_PACKAGES = {"transformers": (("transformers", "torch"), "pip install transformers torch accelerate"),
             "llama.cpp": (("llama_cpp",), "pip install llama-cpp-python")}


class Peer(Protocol):
    """A model that another program has opened."""

    version: str

    def logits(self, ids: list[int]) -> NDArray[np.float32]:
        """Logits float32 [T, vocab]: row t is the prediction for what follows ids[0..t]."""

    def encode(self, text: str) -> list[int] | None:
        """Ids of user text alone, without a beginning; None when the program found no tokenizer."""


@contextmanager
def open_peer(name: PeerName, path: str | Path, *, context: int, threads: int | None = None) -> Iterator[Peer]:
    """Open the model at `path` with another program, for at most `context` tokens at a time.

    transformers opens Hugging Face directories, in float32, and dense GGUF files; llama.cpp opens GGUF files, with
    keys and values in float32. Raises TritwiseError when the program is not installed and when it does not open the
    model, with its own words.
    """
    if name not in _PACKAGES:
        raise TritwiseError(f"there is no program {name!r} to compare with", why=f"known are {', '.join(_PACKAGES)}")
    packages, install = _PACKAGES[name]
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    if missing:
        raise TritwiseError(f"{name} cannot be asked", why=f"{' and '.join(missing)} cannot be imported", fix=install)
    opener = {"transformers": _transformers, "llama.cpp": _llama_cpp}[name]
    with opener(Path(path), context, threads) as peer:
        yield peer


class _Transformers:
    """A causal model and its tokenizer."""

    def __init__(self, model: Any, tokenizer: Any, version: str) -> None:
        self._model, self._tokenizer, self.version = model, tokenizer, version

    def logits(self, ids: list[int]) -> NDArray[np.float32]:
        import torch

        # transformers compiles its ternary layers, seconds for each shape.
        with torch.inference_mode(), torch.compiler.set_stance("force_eager"):
            return self._model(torch.tensor([ids])).logits[0].float().numpy()

    def encode(self, text: str) -> list[int] | None:
        if self._tokenizer is None:
            return None
        from transformers.utils import logging

        with _quiet(logging):  # it remarks that the text is longer than the context
            return self._tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]


@contextmanager
def _transformers(path: Path, context: int, threads: int | None) -> Iterator[_Transformers]:
    directory = open_model(path)
    kind = directory.config.linear_type
    if path.is_file() and kind != "dense":
        raise TritwiseError(f"transformers cannot be asked about {path}",
                            why=f"it opens a GGUF file as a dense model, and this one is {kind}",
                            fix="give the Hugging Face directory, or ask llama.cpp")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its own imports
        import torch
        import transformers
        where = {"gguf_file": path.name} if path.is_file() else {}
        folder = path.parent if path.is_file() else path
        with _quiet(transformers.utils.logging):
            try:
                model, info = transformers.AutoModelForCausalLM.from_pretrained(
                    folder, dtype=torch.float32, local_files_only=True, output_loading_info=True, **where)
            except Exception as error:  # whatever it raises, it did not open the model
                raise _not_opened("transformers", path, error) from None
            wrong = {kind: sorted(map(str, names)) for kind, names in info.items() if names}
            if wrong:
                kind, names = next(iter(wrong.items()))
                raise TritwiseError(f"transformers does not open {path} as it is",
                                    why=f"{kind.replace('_', ' ')}: {', '.join(names[:3])}")
            tokenizer = None
            if directory.tokenizer_json() is not None:
                try:
                    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True, **where)
                except Exception as error:
                    raise _not_opened("transformers", path, error, what="the tokenizer of ") from None
    before = torch.get_num_threads()
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        # Of a quantised directory the floats come in the type they are stored in, whatever was asked for, and its own
        # `float` refuses.
        yield _Transformers(torch.nn.Module.float(model.eval()), tokenizer, transformers.__version__)
    finally:
        torch.set_num_threads(before)


@contextmanager
def _quiet(logging: Any) -> Iterator[None]:
    """transformers without its bars and remarks."""
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


class _LlamaCpp:
    """llama-cpp-python's `Llama`, which keeps the logits of all positions."""

    def __init__(self, model: Any, version: str) -> None:
        self._model, self.version = model, version

    def logits(self, ids: list[int]) -> NDArray[np.float32]:
        self._model.reset()
        self._model.eval(ids)
        return np.array(self._model.scores[:len(ids)], dtype=np.float32)

    def encode(self, text: str) -> list[int] | None:
        return self._model.tokenize(text.encode(), add_bos=False, special=False)


@contextmanager
def _llama_cpp(path: Path, context: int, threads: int | None) -> Iterator[_LlamaCpp]:
    if not path.is_file():
        raise TritwiseError(f"llama.cpp cannot be asked about {path}", why="it opens GGUF files",
                            fix="give a GGUF file of the model, beside the directory if both are to be compared")
    import llama_cpp
    from llama_cpp._logger import llama_log_callback

    said: list[str] = []

    @llama_cpp.llama_log_callback
    def listen(level: int, text: bytes, _: object) -> None:
        if level == 4:  # GGML_LOG_LEVEL_ERROR; the exception itself holds no reason
            said.append(text.decode(errors="replace").strip())

    llama_cpp.llama_log_set(listen, ctypes.c_void_p(0))
    try:
        # 0 is GGML_TYPE_F32.
        model = llama_cpp.Llama(str(path), n_ctx=context, n_batch=context, n_ubatch=context, logits_all=True,
                                type_k=0, type_v=0, n_threads=threads, n_threads_batch=threads, verbose=False)
    except Exception as error:
        raise _not_opened("llama.cpp", path, said[0] if said else error) from None
    finally:
        llama_cpp.llama_log_set(llama_log_callback, ctypes.c_void_p(0))
    try:
        yield _LlamaCpp(model, llama_cpp.__version__)
    finally:
        model.close()


def _not_opened(program: str, path: Path, error: Exception | str, *, what: str = "") -> TritwiseError:
    words = str(error).strip() or type(error).__name__
    return TritwiseError(f"{program} does not open {what}{path}", why=words.splitlines()[0])
