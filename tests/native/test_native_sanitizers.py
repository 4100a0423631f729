"""The core under AddressSanitizer, UndefinedBehaviorSanitizer and ThreadSanitizer, without Python in the process.

native/tests is built once a sanitizer with the compiler at hand (CXX, else CMake's choice). What it checks by itself,
every kernel against the scalar one and a tiny model in every way of running it, is checked here too. Two builds of the
core and their runs take minutes: `make test-sanitizers`, after every change to it.
"""

import os
import subprocess
from pathlib import Path

import pytest
from long_builds import built

from tritwise import _native

pytestmark = pytest.mark.slow


def call(*command: str | Path, **environment: str) -> str:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=600,
                          env=os.environ | environment)
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_every_kernel_and_a_tiny_model_stay_inside_their_memory_and_the_language():
    program = built("address,undefined")
    found = call(program, "--quick", ASAN_OPTIONS="detect_stack_use_after_return=1", UBSAN_OPTIONS="print_stacktrace=1")
    for kernel in _native.kernels():
        assert f"{kernel} integer kernels" in found
        assert f"{kernel} float kernels" in found
    assert "sketches of texts" in found
    assert found.endswith("all equal\n")


@pytest.mark.parametrize("kernel", _native.kernels()[:1])
def test_the_pool_and_a_tiny_model_on_threads_have_no_data_race(kernel: str):
    # Which kernel computes makes no difference to who writes where: the fastest one is enough.
    program = built("thread")
    found = call(program, "--quick", "--kernel", kernel, "pool", "models", TSAN_OPTIONS="halt_on_error=1")
    assert "thread pool" in found
    assert found.endswith("all equal\n")
