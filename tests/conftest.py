"""Settings of every test process and of the processes that tests start."""

import os
import signal
from pathlib import Path

# The tests' tensors are tiny: threads that wait for each other would take most of the time, and far more of it on a
# busy machine. Tests of threads ask for them by number.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Triton's interpreter runs the kernels of tests/kernels on CPU tensors. It has to be chosen before anything imports
# Triton, and torch does that when it is asked for a compiler.
os.environ.setdefault("TRITON_INTERPRET", "1")

# A shell starts what runs in the background with Ctrl-C ignored, and children inherit that: some tests send it.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_configure(config):
    """Before the processes start that share the tests."""
    import long_builds

    long_builds.share_folder()


def pytest_collection_finish(session):
    """Compilations begin at once, where other tests come before those that need them."""
    import long_builds

    files = {Path(item.path).name for item in session.items}
    if len(files) > 2 and not session.config.option.collectonly:
        for name, file in long_builds.NEEDED_BY.items():
            if file in files:
                long_builds.start(name)
