"""Settings of the later screens: syntax, heuristics, the quality model, and decontamination."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, field_validator

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(gt=0)]


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ContaminationSettings(_Settings):
    """What of a test set counts as found in a file (arXiv 2401.14196, section 2.3).

    The paper drops a file that holds any 10-gram of a test set, and test strings of 3 to 9 words that stand in it
    exactly. It says nothing of n-grams that say nothing; here an n-gram counts when it has enough different words that
    are names, and is no boilerplate of a reference corpus. A text none of whose n-grams counts is looked for as it
    stands, like a short one.
    """

    ngram: Annotated[int, Field(ge=4, le=50)] = 10
    min_short_words: Annotated[int, Field(ge=3)] = 3
    # A short string counts from this many characters on, runs of white space as one: "return len(string)" has 18.
    min_short_characters: Count = 20
    # A name is a word of two characters and more that begins with no digit. "1 2 3 4 5 6 7 8 9 10" has none.
    min_distinct_names: Annotated[int, Field(ge=0)] = 4
    # An n-gram that stands in this many sources (repositories, packages) of the reference corpus is boilerplate.
    max_reference_sources: Count = 1


# Of the bytes of a file, the share inside tree-sitter's error nodes. Grammars of languages with a preprocessor, or with
# syntax younger than the grammar, have such nodes in sound files: measured on well-kept repositories, 5 % drops 15 of
# 300 C files, 7 of 71 C++, 2 of 300 Kotlin, none of C# and Swift; Java, Go, Rust, JavaScript, PHP, Ruby and Scala
# files had none at all.
MAX_WRONG_FRACTION = {
    "c": 0.05, "c++": 0.05, "c#": 0.05, "kotlin": 0.05, "swift": 0.05,
    "go": 0.01, "java": 0.01, "javascript": 0.01, "php": 0.01, "ruby": 0.01, "rust": 0.01, "scala": 0.01,
}


class SyntaxSettings(_Settings):
    """Which files are not source code of their language."""

    # Of languages that `languages` does not name.
    max_wrong_fraction: Fraction = 0.02
    languages: dict[str, Fraction] = MAX_WRONG_FRACTION
    # Python files whose brackets nest deeper are parsed in a process of their own, with a limit of this many seconds:
    # what makes a parser slow, or overflows its stack, nests.
    max_nesting_here: Annotated[int, Field(ge=0)] = 50
    max_seconds: Positive = 10

    @field_validator("languages", mode="after")
    @classmethod
    def _with_defaults(cls, given: dict[str, float]) -> dict[str, float]:
        return MAX_WRONG_FRACTION | given
