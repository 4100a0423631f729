"""Compilations that take a minute: they run beside the tests that come before those that need them.

A test asks with `built(name)`; `start` may have been called long before (conftest.py does when tests are collected).
Processes that share the work of testing share the folder: the first one builds, the others wait for it.
"""

import atexit
import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parents[1]
# The file of tests that needs each.
NEEDED_BY = {"wheel": "test_walls.py", "address,undefined": "test_native_sanitizers.py",
             "thread": "test_native_sanitizers.py"}

_pool = ThreadPoolExecutor(1)  # one after the other: the tests need a core too
_started: dict[str, Future[Path]] = {}


def share_folder() -> None:
    """Choose where builds lie, for this process and those that it starts; it is removed when this process ends."""
    if "TRITWISE_TEST_BUILDS" not in os.environ:
        os.environ["TRITWISE_TEST_BUILDS"] = tempfile.mkdtemp(prefix="tritwise-builds-")
        atexit.register(shutil.rmtree, os.environ["TRITWISE_TEST_BUILDS"], ignore_errors=True)


def start(name: str) -> None:
    """Begin a build unless it has begun."""
    if not _started:
        atexit.register(_pool.shutdown, cancel_futures=True)
    if name not in _started:
        _started[name] = _pool.submit(_once, name)


def built(name: str) -> Path:
    """What was built: the package's wheel, or native/tests with sanitizers. Raises AssertionError with the output."""
    start(name)
    return _started[name].result()


def _once(name: str) -> Path:
    """Build, or wait for the process that does; the result stands in a file."""
    folder = Path(os.environ["TRITWISE_TEST_BUILDS"]) / name
    folder.mkdir(exist_ok=True)
    with (folder / "result").open("a+") as result:
        fcntl.flock(result, fcntl.LOCK_EX)
        result.seek(0)
        known = result.read()
        if not known:
            known = str((_wheel if name == "wheel" else _checks)(folder, name))
            result.write(known)
    return Path(known)


def _wheel(folder: Path, name: str) -> Path:
    # A build directory of its own: the source tree's may be in use.
    _call(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder,
          f"--config-settings=build-dir={folder / 'build'}", ROOT)
    (wheel,) = folder.glob("*.whl")
    return wheel


def _checks(folder: Path, sanitizers: str) -> Path:
    import cmake
    import ninja

    tool = Path(cmake.CMAKE_BIN_DIR) / "cmake"
    _call(tool, "-S", ROOT / "native" / "tests", "-B", folder, "-G", "Ninja",
          f"-DCMAKE_MAKE_PROGRAM={Path(ninja.BIN_DIR) / 'ninja'}", f"-DSANITIZE={sanitizers}")
    _call(tool, "--build", folder)
    return folder / "native_checks"


def _call(*command: str | Path) -> None:
    done = subprocess.run(["nice", "-n", "10", *map(str, command)], capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}\n{done.stderr}"
