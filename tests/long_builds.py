"""Compilations that take a minute: they run beside the tests that come before those that need them.

A test asks with `built(name)`; `start` may have been called long before (conftest.py does when tests are collected).
"""

import atexit
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
_folder: list[Path] = []
_started: dict[str, Future[Path]] = {}


def start(name: str) -> None:
    """Begin a build unless it has begun."""
    if not _folder:
        _folder.append(Path(tempfile.mkdtemp(prefix="tritwise-builds-")))
        atexit.register(_end)
    if name not in _started:
        _started[name] = _pool.submit(_wheel if name == "wheel" else _checks, name)


def built(name: str) -> Path:
    """What was built: the package's wheel, or native/tests with sanitizers. Raises AssertionError with the output."""
    start(name)
    return _started[name].result()


def _end() -> None:
    _pool.shutdown(cancel_futures=True)
    shutil.rmtree(_folder[0], ignore_errors=True)


def _wheel(name: str) -> Path:
    folder = _folder[0] / name
    # A build directory of its own: the source tree's may be in use.
    _call(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder,
          f"--config-settings=build-dir={folder / 'build'}", ROOT)
    (wheel,) = folder.glob("*.whl")
    return wheel


def _checks(sanitizers: str) -> Path:
    import cmake
    import ninja

    folder = _folder[0] / sanitizers
    tool = Path(cmake.CMAKE_BIN_DIR) / "cmake"
    _call(tool, "-S", ROOT / "native" / "tests", "-B", folder, "-G", "Ninja",
          f"-DCMAKE_MAKE_PROGRAM={Path(ninja.BIN_DIR) / 'ninja'}", f"-DSANITIZE={sanitizers}")
    _call(tool, "--build", folder)
    return folder / "native_checks"


def _call(*command: str | Path) -> None:
    done = subprocess.run(["nice", "-n", "10", *map(str, command)], capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}\n{done.stderr}"
