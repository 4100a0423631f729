"""Whether other programs kept the processors busy while something was measured. Linux; elsewhere nothing is known.

A runtime whose threads spin at barriers falls to a tenth when another program takes a processor, so one disturbed burst
says nothing about it.
"""

import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path

_STAT = Path("/proc/stat")
_TICK = os.sysconf("SC_CLK_TCK")


def busy_seconds() -> float | None:
    """Processor seconds that all programs have used since the start of the machine; None where that is unknown."""
    if not _STAT.exists():
        return None
    user, nice, system, _idle, _wait, irq, softirq, steal = map(int, _STAT.read_text().split("\n", 1)[0].split()[1:9])
    return (user + nice + system + irq + softirq + steal) / _TICK


def own_seconds(children: Iterable[int]) -> float:
    """Processor seconds of this process, of its children that have ended, and of these that are running."""
    times = os.times()
    running = (Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in children)
    return sum(times[:4]) + sum((int(fields[11]) + int(fields[12])) / _TICK for fields in running)


def disturbance(burst: Callable[[], float], children: Iterable[int]) -> tuple[float, float | None]:
    """What `burst` returns, and the share of all processors' time that others used meanwhile (None: unknown)."""
    children = tuple(children)
    busy, began = busy_seconds(), time.perf_counter()
    if busy is None:
        return burst(), None
    own = own_seconds(children)
    value = burst()
    others = (busy_seconds() - busy) - (own_seconds(children) - own)
    capacity = (time.perf_counter() - began) * (os.cpu_count() or 1)
    return value, max(0.0, others / capacity)


def wait_until_quiet(share: float, limit: float) -> None:
    """Return when others use less than `share` of all processors, looked at for a second, or after `limit` seconds."""
    end = time.perf_counter() + limit
    while time.perf_counter() < end:
        _, others = disturbance(lambda: time.sleep(1) or 0.0, ())
        if others is None or others <= share:
            return
