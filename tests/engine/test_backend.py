"""How many threads the engine takes by itself."""

import os
import subprocess
import sys

import pytest

from tritwise.engine import available_cores, backend


def test_no_more_cores_than_the_affinity_mask_allows():
    one = min(os.sched_getaffinity(0))
    script = (f"import os; os.sched_setaffinity(0, {{{one}}}); "
              "from tritwise.engine import available_cores; print(available_cores())")
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1"


def test_siblings_count_as_one_core_and_a_quota_limits_them(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setattr(backend, "_siblings", lambda cpu: f"{cpu % 4},{cpu % 4 + 4}")
    monkeypatch.setattr(backend, "_cgroup_limit", lambda: None)
    assert available_cores() == 4
    monkeypatch.setattr(backend, "_cgroup_limit", lambda: 3)
    assert available_cores() == 3


@pytest.mark.parametrize(("content", "limit"), [("max 100000", None), ("150000 100000", 2), ("1000 100000", 1)])
def test_a_quota_is_rounded_up_to_whole_cores(monkeypatch, content, limit):
    monkeypatch.setattr(backend.Path, "read_text", lambda self: content)
    assert backend._cgroup_limit() == limit
