"""facts.json beside the bundled model: what was measured of it when it was put in, and the hashes of its files."""

from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from tritwise.common.errors import TritwiseError
from tritwise.common.files import read_json, sha256_file
from tritwise.config.model import config_error
from tritwise.config.settings import Count, Fraction, NonNegative, Positive, Settings

MODEL = Path(__file__).parent / "python-small"
FACTS = "facts.json"
_AGAIN = "install the package again: pip install --force-reinstall tritwise"

Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class FileFacts(Settings):
    """A file of the model directory."""

    bytes: Count
    sha256: Hash


class TrainingFacts(Settings):
    """What the weights were trained on, in tokens of the model's own tokenizer.

    `tokens` went through the model; the data has `data_tokens`. `recipe_hash` is of what the recipe says about the
    data, `run_key` of everything that decides the training's numbers.
    """

    step: Count
    steps: Count
    tokens: Count
    data_tokens: Count
    data_bytes: Count
    files: Count
    packages: Count
    python: str
    recipe_hash: Hash
    run_key: Hash


class HeldOutFacts(Settings):
    """Bits a byte of whole repositories that were never trained on, through the engine, and what xz -9e needs."""

    bits_per_byte: Positive
    xz_bits_per_byte: Positive
    bytes: Count
    tokens: Count
    documents: Count
    context: Count
    stride: Count


class InfillingFacts(Settings):
    """HumanEval's single-line infilling: lines written exactly, white space around them apart, the likeliest tokens.

    `cut` tasks did not fit the context whole.
    """

    tasks: Count
    exact: Annotated[int, Field(ge=0)]
    cut: Annotated[int, Field(ge=0)]
    max_tokens: Count
    sha256: Hash

    @property
    def exact_match(self) -> float:
        """Share of the tasks."""
        return self.exact / self.tasks


class ReferenceFacts(Settings):
    """A short text and its bits a byte: the same on every machine, so an installation can be checked with it."""

    text: Annotated[str, Field(min_length=1)]
    bits_per_byte: Positive


class Facts(Settings):
    """Everything that is claimed of the bundled model."""

    name: str
    parameters: Count
    bits_per_weight: Positive
    bits_per_quantised_weight: NonNegative
    zeros: Fraction
    context: Count
    training: TrainingFacts
    held_out: HeldOutFacts
    infilling: InfillingFacts | None
    reference: ReferenceFacts
    files: Annotated[dict[str, FileFacts], Field(min_length=1)]

    @property
    def bytes(self) -> int:
        """Of all files of the model."""
        return sum(file.bytes for file in self.files.values())


def read_facts(directory: Path = MODEL) -> Facts:
    """The facts of a directory. Raises TritwiseError when there are none, or other ones than these."""
    path = Path(directory) / FACTS
    if not path.is_file():
        raise TritwiseError("this installation has no bundled model", why=f"{path} does not exist", fix=_AGAIN)
    values = read_json(path, what="the facts of the bundled model")
    try:
        return Facts.model_validate(values)
    except ValidationError as error:
        raise config_error(error, str(path)) from None


def model_path(directory: Path = MODEL) -> Path:
    """The directory of the bundled model, after each of its files was compared with its size and hash in facts.json.

    Raises TritwiseError when a file is missing or another one.
    """
    for name, file in read_facts(directory).files.items():
        path = Path(directory) / name
        if not path.is_file():
            raise TritwiseError("the bundled model is not whole", why=f"{path} does not exist", fix=_AGAIN)
        if path.stat().st_size != file.bytes or sha256_file(path) != file.sha256:
            raise TritwiseError("the bundled model is damaged", why=f"{path} is not the file that facts.json names",
                                fix=_AGAIN)
    return Path(directory)
