"""Write every malformed GGUF file into a folder: `python -m corpus OUT`."""

import re
import sys
from pathlib import Path

from corpus.gguf_malformed import FILES


def main(out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    for number, (name, make) in enumerate(FILES.items()):
        (out / f"{number:03}-{re.sub(r'[^a-z0-9^+-]+', '-', name.lower())[:80]}.gguf").write_bytes(make())
    print(f"{len(FILES)} files in {out}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
