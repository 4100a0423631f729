"""`SourceSettings`: where repositories are, and which of their files are read."""

from typing import Annotated, Literal

from pydantic import Field

from tritwise.config.settings import Count, Fraction, Settings


class KindSettings(Settings):
    """Which kinds of files are not source that somebody wrote (`data.sources.kinds`)."""

    # A zero byte, or too many control characters, within the first 8000 bytes.
    binary: bool = True
    # Copies of other projects, by their paths: node_modules, vendor, third_party, Pods, *.min.js.
    vendored: bool = True
    # Written by a program, by name (lock files, project files) or by what their head says.
    generated: bool = True
    # Lines that no one types: made short for a browser.
    minified: bool = True
    # Bytes a line, on average, from which a file of a language that is minified is taken to be so.
    minified_mean_line: Count = 110
    # The share of a file that its longest line must reach, when its mean does not decide.
    minified_longest_share: Fraction = 0.5
    # A longest line below this many bytes makes no file minified.
    minified_longest_line: Count = 5000


class SourceSettings(Settings):
    """Where repositories are, and which of their files are read."""

    # Each is a git repository (bare or checked out), an archive (*.tar, .tar.gz, .tgz, .tar.bz2, .tar.xz, .tar.zst), a
    # Parquet file, or a directory of these and of plain folders: every folder in it is a repository, and a folder that
    # holds nothing but repositories is an owner whose name goes before theirs.
    paths: tuple[str, ...] = ()
    # Plain folders that are one repository each.
    folders: tuple[str, ...] = ()
    # The standard library of the running interpreter, cut into its packages.
    python_stdlib: bool = False
    # What is read of a git repository: a branch, tag or commit.
    revision: Annotated[str, Field(pattern=r"^[A-Za-z0-9@][A-Za-z0-9@{}^~/._+-]*$")] = "HEAD"
    # A larger file is named and not read.
    max_bytes: Count = 1_000_000
    # A broken repository stops the work, or is one counted skip (for a crawl).
    broken_repository: Literal["stop", "skip"] = "stop"
    kinds: KindSettings = KindSettings()
    # Keep only files whose licence is on the list of permissive ones (`data.sources.permissive`).
    permissive_only: bool = False
    # SPDX identifiers that count as permissive besides those of the list.
    also_permissive: tuple[str, ...] = ()
    # Buckets that the rows of Parquet files are scattered to; a bucket's paths are sorted in memory.
    buckets: Count = 64
