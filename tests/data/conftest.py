"""One small library and one build over it, for the whole folder."""

import shutil
from pathlib import Path

import pytest
from small_library import build_here, copy_library, make_recipe


@pytest.fixture(scope="session")
def library(tmp_path_factory) -> Path:
    """A directory of repositories: packages as directories, modules in directories of their own."""
    flat = copy_library(tmp_path_factory.mktemp("library") / "flat")
    root = flat.with_name("folders")
    for entry in sorted(flat.iterdir()):
        home = root / entry.stem.removeprefix("_py")
        if entry.is_dir():
            shutil.copytree(entry, home / entry.name)
        else:
            home.mkdir(parents=True, exist_ok=True)
            shutil.copy(entry, home / entry.name)
    return root


@pytest.fixture(scope="session")
def built(library, tmp_path_factory):
    """(data directory, its report, its recipe) of one build over `library`."""
    out = tmp_path_factory.mktemp("built") / "data"
    recipe = make_recipe(sources={"paths": [str(library)]})
    return out, build_here(recipe, out), recipe
