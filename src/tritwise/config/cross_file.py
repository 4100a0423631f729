"""Settings of cross-file completion: which lines become tasks, and how a window is shared out."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from tritwise.config.settings import Count, Settings


class CrossFileSettings(Settings):
    """Which lines of held-out repositories are asked for (CrossCodeEval, arXiv 2310.11248, section 2)."""

    # Where the cross-file name may stand before the cursor. "nowhere": so that nothing in the file can be copied, which
    # leaves members of imported modules and classes; "imports": in import statements only; "anywhere".
    seen: Literal["nowhere", "imports", "anywhere"] = "nowhere"
    # Lines of code before the cursor, imports, comments and docstrings not counted; the paper's number for Python.
    min_code_lines: Annotated[int, Field(ge=0)] = 10
    # The reference in the language's own tokens; the paper keeps 3 to 30.
    min_reference_tokens: Count = 3
    max_reference_tokens: Count = 30
    # A name of one or two letters says nothing.
    min_name_chars: Count = 3
    # Characters of the file before the cursor, its path comment not counted; None: any number.
    max_prefix_chars: Count | None = None
    # So that no large file and no large repository decides the result; chosen by a seeded hash.
    max_per_file: Count = 3
    max_per_repository: Count = 50
    seed: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _check_tokens(self) -> "CrossFileSettings":
        if self.min_reference_tokens > self.max_reference_tokens:
            raise ValueError("needed: min_reference_tokens <= max_reference_tokens")
        return self


class CrossFileWindow(Settings):
    """How a model's window is shared out between other files, the file itself and the answer, in tokens."""

    # The whole window; None: the model's.
    context: Count | None = None
    # For other files, of the whole: CrossCodeEval gives 512 of 2048.
    cross_file_share: Annotated[float, Field(gt=0, lt=1)] = 0.25
    # Most tokens of a generated line: CrossCodeEval's 50.
    max_tokens: Count = 50
