"""llama.cpp as llama-cpp-python builds it, through a worker in its own environment."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from llama_bench import model_file
from worker import started
from works import Opened, Work


class LlamaCppPython:
    """One type of the linears and one of the head."""

    def __init__(self, environment: Path, shape: str, cache: Path, *, kind: str, head: str, architecture: str,
                 dense: bool = False) -> None:
        self._python, self._shape, self._cache, self._dense = environment / "bin" / "python", shape, cache, dense
        self._kind, self._head, self._architecture = kind, head, architecture
        self.name = f"llama.cpp {kind}" + ("" if dense else f", head {head}")

    def does(self, work: Work) -> bool:
        return work.dense == self._dense

    @contextmanager
    def open(self, work: Work) -> Iterator[Opened]:
        file, bytes_per_token, note = model_file(self._shape, self._cache, self._kind, self._head, self._architecture)
        with started(str(self._python), "llama_cpp_worker.py", work, file) as (burst, ready):
            program = f"llama-cpp-python {ready['version']}" if ready else "from opening the file, in the process"
            yield Opened(burst, bytes_per_token, ", ".join(filter(None, (note, program))))
