"""Make `tritwise/data/sources/licence_table.py` from the texts of licences.

    PYTHONPATH=src python benchmarks/data/licence_table.py TEXTS > src/tritwise/data/sources/licence_table.py

TEXTS is a directory of ID.json files with a key `licenseText` (npm's `spdx-license-list`, folder `licenses`) or of
ID.txt files. What is kept of a text: how many words it has, and the smallest hashes of its groups of three words.
"""

import argparse
import base64
import json
import struct
import sys
from pathlib import Path

from tritwise.data.sources.licence_text import KEPT_HASHES, KEPT_MARKS, RELATED, groups, words

# Those that nearly all repositories use (choosealicense.com, Debian, PyPI), and some that must not be taken for them.
IDS = """
0BSD AFL-3.0 AGPL-3.0 Apache-1.1 Apache-2.0 Artistic-1.0-Perl Artistic-2.0 BSD-1-Clause BSD-2-Clause BSD-3-Clause
BSD-3-Clause-Clear BSD-4-Clause BSL-1.0 BlueOak-1.0.0 CC-BY-4.0 CC-BY-NC-4.0 CC-BY-NC-SA-4.0 CC-BY-SA-4.0 CC0-1.0
CDDL-1.0 CECILL-2.1 CPAL-1.0 ECL-2.0 EPL-1.0 EPL-2.0 EUPL-1.2 GPL-1.0 GPL-2.0 GPL-3.0 HPND ICU ISC IPL-1.0 JSON
LGPL-2.0 LGPL-2.1 LGPL-3.0 LPPL-1.3c Libpng MIT MIT-0 MIT-CMU MPL-1.1 MPL-2.0 MS-PL MS-RL MulanPSL-2.0 NCSA ODbL-1.0
OFL-1.1 OSL-3.0 OpenSSL PHP-3.01 PSF-2.0 PostgreSQL Python-2.0 QPL-1.0 Ruby SSPL-1.0 UPL-1.0 Unicode-DFS-2016 Unlicense
Vim W3C WTFPL X11 ZPL-2.1 Zlib bzip2-1.0.6 curl BUSL-1.1 Elastic-2.0 Sleepycat
"""


def text_of(directory: Path, name: str) -> str:
    file = directory / f"{name}.json"
    if file.exists():
        return json.loads(file.read_text())["licenseText"]
    return (directory / f"{name}.txt").read_text()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("texts", type=Path)
    texts = parser.parse_args().texts
    found = {}
    for name in sorted(IDS.split()):
        for source in (name, f"{name}-only"):
            if (texts / f"{source}.json").exists() or (texts / f"{source}.txt").exists():
                text = text_of(texts, source)
                # The GPL, which it adds to, is printed behind it.
                found[name] = words(text.split("GNU GENERAL PUBLIC LICENSE")[0] if name == "LGPL-3.0" else text)
                break
        else:
            print(f"no text of {name}", file=sys.stderr)
    sets = {name: groups(text) for name, text in found.items()}
    kept = {name: sorted(hashes)[:KEPT_HASHES] for name, hashes in sets.items()}
    print('"""Hashes of licence texts, made by benchmarks/data/licence_table.py; `licence_text.py` says of what."""\n')
    print("# SPDX identifier: words of the text, its smallest hashes (32-bit, little-endian).")
    print("TABLE = {")
    for name, hashes in kept.items():
        write(name, len(found[name]), hashes)
    print("}\n\n# Of two that hold much of each other: the first one's hashes that the second has not.\nMARKS = {")
    for name, own in sets.items():
        for other, others in sets.items():
            if name != other and len(own & others) >= RELATED * min(len(own), len(others)):
                write(f"{name} {other}", None, sorted(own - others)[:KEPT_MARKS])
    print("}")


def write(name: str, length: int | None, hashes: list[int]) -> None:
    coded = base64.b85encode(struct.pack(f"<{len(hashes)}I", *hashes)).decode()
    pieces = [json.dumps(coded[start:start + 104]) for start in range(0, len(coded), 104)] or ['""']
    if length is None:
        print(f"    {json.dumps(name)}: {pieces[0]},")
    else:
        print(f"    {json.dumps(name)}: ({length},")
        print("\n".join(f"        {piece}" for piece in pieces) + "),")


if __name__ == "__main__":
    main()
