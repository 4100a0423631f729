"""Triton's interpreter runs the kernels of these tests on CPU tensors; the conftest above chooses it."""

import sys

import pytest
from hypothesis import settings

# A slow machine is no failure: no time limit for a single example.
settings.register_profile("tritwise", deadline=None)
settings.load_profile("tritwise")


def pytest_ignore_collect(collection_path):
    """Triton is for Linux, where CI runs all of this."""
    return True if sys.platform != "linux" and collection_path.suffix == ".py" else None


@pytest.fixture(scope="session", autouse=True)
def _quick_interpreter():
    """Without a check of every addition for overflow, which takes several times as long; a test of extremes has it."""
    from quick_interpreter import quick_interpreter

    with quick_interpreter():
        yield


@pytest.fixture
def random():
    """numpy's generator, the same in every test."""
    import numpy as np

    return np.random.default_rng(7)
