"""Triton's interpreter runs the kernels of these tests on CPU tensors; it has to be chosen before they are imported."""

import os

import pytest
from hypothesis import settings

os.environ.setdefault("TRITON_INTERPRET", "1")

# A slow machine is no failure: no time limit for a single example.
settings.register_profile("tritwise", deadline=None)
settings.load_profile("tritwise")


def pytest_ignore_collect(collection_path):
    """Without Triton there is nothing to test here."""
    try:
        import triton  # noqa: F401
    except ImportError:
        return True if collection_path.suffix == ".py" else None
    return None


@pytest.fixture
def random():
    """numpy's generator, the same in every test."""
    import numpy as np

    return np.random.default_rng(7)
