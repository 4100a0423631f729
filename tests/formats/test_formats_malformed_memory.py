"""The whole of both corpora in one process: what the libraries below take is counted, too, and nothing piles up."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

TESTS = Path(__file__).parents[1]
# Above what a valid model takes; the longest file of these has 17 MB.
MEGABYTES = 128

SCRIPT = """
    import json, os, resource, shutil, sys
    from pathlib import Path
    from corpus.directories import DAMAGES, write_good
    from corpus.gguf_layout import encode
    from corpus.gguf_malformed import FILES
    from corpus.gguf_models import model
    from hostile import read_everything
    from tritwise import TritwiseError

    def peak():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10

    def descriptors():
        return len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").is_dir() else 0

    root, refused = Path(sys.argv[1]), 0
    file, good = root / "model.gguf", write_good(root / "good")
    file.write_bytes(encode(model()))
    read_everything(file)
    read_everything(good)
    before, opened = peak(), descriptors()
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (512 << 20), most))  # no length that is declared can be allocated
    for name, make in FILES.items():
        file.write_bytes(make())
        try:
            read_everything(file)
        except TritwiseError:
            refused += 1
    for name, damage in DAMAGES.items():
        if "100 MB" in name:
            continue
        path = root / "model"
        shutil.copytree(good, path)
        damage(path)
        try:
            read_everything(path)
        except TritwiseError:
            refused += 1
        shutil.rmtree(path)
    print(json.dumps({"refused": refused, "more": peak() - before, "descriptors": descriptors() - opened}))
"""


def test_the_corpora_take_little_memory_and_leave_no_file_open(tmp_path):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(
        [str(TESTS), str(TESTS / "formats"), *filter(None, sys.path)])}
    child = subprocess.run([sys.executable, "-c", textwrap.dedent(SCRIPT), tmp_path], env=environment, check=False,
                           capture_output=True, text=True)
    assert child.returncode == 0, child.stderr[-3000:]
    found = json.loads(child.stdout)
    assert found["refused"] >= 1300
    assert found["more"] < MEGABYTES
    assert found["descriptors"] == 0
