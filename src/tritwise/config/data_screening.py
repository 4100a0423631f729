"""Settings of the later screens: syntax, heuristics, the quality model, and decontamination."""

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field, field_validator

from tritwise.config.settings import Count, Fraction, PerLanguage, Positive, Settings


class ContaminationSettings(Settings):
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
    # A name is a word of two characters and more that begins with no digit and is no number: "1 2 3 4 5 6 7 8 9 10" has
    # none, nor has "1 one 2 two 3 three 4 four 5 five".
    min_distinct_names: Annotated[int, Field(ge=0)] = 4
    # An n-gram that stands in this many sources (repositories, packages) of the reference corpus is boilerplate.
    max_reference_sources: Count = 1


# Of the bytes of a file, the share that was not parsed as anything, by tree-sitter or, in languages whose grammars trip
# over sound files, by a second parse of the simplified text. Measured on 85 repositories, 5 % drops 5 of 3 160 C files,
# 10 of 1 687 C++, 2 of 1 962 C#, 1 of 692 Kotlin, 4 of 380 Swift, a third of them samples that are no such language; of
# 10 751 files in Java, Go, PHP, Scala and TypeScript 1 % drops none, of 8 558 in JavaScript, Ruby and Rust 44, most of
# them tests of wrong syntax.
MAX_WRONG_FRACTION = {
    "c": 0.05, "c++": 0.05, "c#": 0.05, "kotlin": 0.05, "swift": 0.05,
    "go": 0.01, "java": 0.01, "javascript": 0.01, "php": 0.01, "ruby": 0.01, "rust": 0.01, "scala": 0.01,
}


class SyntaxSettings(Settings):
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


class HeuristicLimits(Settings):
    """What one language has of its own; None takes the value that all languages have."""

    max_repeated_lines: Fraction | None = None
    max_repeated_ngrams: Fraction | None = None
    max_number_words: Fraction | None = None
    max_short_names: Fraction | None = None
    max_long_words: Fraction | None = None
    min_name_entropy: Annotated[float, Field(ge=0)] | None = None
    max_comment_lines: Fraction | None = None
    max_lines_without_definition: Count | None = None


class HeuristicSettings(PerLanguage):
    """Signs of unreadable or poorly modular code. Ideas are OpenCoder's (arXiv 2411.04905, appendix on code filters);
    the limits were set so that the sound code of well-kept packages stays.
    """

    # Only files of this many words are judged: shares of fewer say little.
    min_words: Count = 60
    # Share of the characters, in lines of ten and more, that stand in repeats of an earlier line.
    max_repeated_lines: Fraction = 0.7
    # Share of runs of ten words that are repeats of an earlier one.
    max_repeated_ngrams: Fraction = 0.75
    # Share of words that begin with a digit: tables of data.
    max_number_words: Fraction = 0.75
    # Share of names that have one character: minified, obfuscated.
    max_short_names: Fraction = 0.7
    # Share of characters in words of more than 48 characters: encoded data, mangled names.
    max_long_words: Fraction = 0.5
    # Bits a name, over the names of a file: few names again and again.
    min_name_entropy: Annotated[float, Field(ge=0)] = 2.5
    # Share of lines that are comments: code that was commented away, a licence with nothing under it.
    max_comment_lines: Fraction = 0.95
    # Lines that are no comment between one definition (function, class, type) and the next, or an end of the file.
    max_lines_without_definition: Count = 1500
    languages: Mapping[str, HeuristicLimits] = Field(default_factory=dict)


class QualitySettings(Settings):
    """A logistic regression on hashed n-grams: which features, and how they are trained."""

    # Features are hashed into 2^bits weights.
    bits: Annotated[int, Field(ge=10, le=24)] = 18
    # Only so much of a file's beginning is looked at.
    max_characters: Count = 100_000
    # Of each class, an evenly spaced sample is trained on beyond so many documents.
    max_documents: Count = 5000
    # One document in so many, chosen by its text, calibrates the score; another one tests it.
    hold_out_every: Annotated[int, Field(ge=3)] = 10
    steps: Count = 200
    learning_rate: Positive = 0.05
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    # Files that the model scores below this are dropped; a score is the probability of the good class, were both equal
    # in number.
    min_score: Fraction = 0.2
