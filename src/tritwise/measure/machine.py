"""What this machine is: for `tritwise doctor`, and beside every number that was measured on it."""

import importlib.metadata
import os
import platform
from typing import Any

from tritwise.engine import available_cores, kernels

_PACKAGES = ("tritwise", "numpy", "safetensors", "tokenizers", "pydantic", "torch", "transformers", "pyarrow")
_BANDWIDTH_BYTES = 256 << 20  # beyond the last-level caches of most processors
_BANDWIDTH_REPEATS = 5


def versions() -> dict[str, str]:
    """Python's version and those of the packages that are installed, without importing them."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def read_bandwidth(threads: int) -> float:
    """Bytes per second that `threads` threads read from memory, the best of a few passes over 256 MiB."""
    from tritwise import _native

    return float(_native.measure_read_bandwidth(threads, _BANDWIDTH_BYTES, _BANDWIDTH_REPEATS))


def machine_facts(*, bandwidth: bool = True) -> dict[str, Any]:
    """Processor, cores, memory, kernels, versions and - unless it is left out - the measured read bandwidth.

    `bandwidth_bytes_per_second` maps a number of threads (1 and all cores, as text) to bytes per second.
    """
    available = kernels()
    from tritwise import _native

    cpu = _native.cpu_info()
    cores = available_cores()
    facts = {
        "processor": cpu["brand"],
        "features": cpu["features"],
        "logical_cores": cpu["logical_cores"],
        "available_cores": cores,
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "kernels": available,
        "kernel": available[0],
        "versions": versions(),
    }
    if bandwidth:
        facts["bandwidth_bytes_per_second"] = {str(n): read_bandwidth(n) for n in sorted({1, cores})}
    return facts
