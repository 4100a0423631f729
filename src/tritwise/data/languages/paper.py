"""What DeepSeek-Coder was trained on by language (arXiv 2401.14196 v2, table 1), for a report to compare with."""

from typing import NamedTuple


class Share(NamedTuple):
    """A language's part after all filters: gigabytes, thousands of files, percent of the bytes."""

    name: str
    gigabytes: float
    thousand_files: int
    percent: float


# The table's own sums: 797.92 GB and 603 173 thousand files; its rows add up to a little less.
TOTAL_GIGABYTES, TOTAL_THOUSAND_FILES = 797.92, 603_173

_ROWS = """
Ada; 0.91; 126; 0.11
Agda; 0.26; 59; 0.03
Alloy; 0.07; 24; 0.01
ANTLR; 0.19; 38; 0.02
AppleScript; 0.03; 17; 0
Assembly; 0.91; 794; 0.11
Augeas; 0; 1; 0
AWK; 0.09; 53; 0.01
Batchfile; 0.92; 859; 0.12
Bluespec; 0.1; 15; 0.01
C; 28.64; 27111; 3.59
C#; 58.56; 53739; 7.34
C++; 90.87; 36006; 11.39
Clojure; 0.9; 295; 0.11
CMake; 0.9; 359; 0.11
CoffeeScript; 0.92; 361; 0.12
Common Lisp; 0.92; 105; 0.11
CSS; 5.63; 11638; 0.71
CUDA; 0.91; 115; 0.11
Dart; 0.89; 264; 0.11
Dockerfile; 0.04; 48; 0
Elixir; 0.91; 549; 0.11
Elm; 0.92; 232; 0.12
Emacs Lisp; 0.91; 148; 0.11
Erlang; 0.92; 145; 0.12
F#; 0.91; 340; 0.11
Fortran; 1.67; 654; 0.21
GLSL; 0.92; 296; 0.11
Go; 2.58; 1365; 0.32
Groovy; 0.89; 340; 0.11
Haskell; 0.87; 213; 0.11
HTML; 30.05; 14998; 3.77
Idris; 0.11; 32; 0.01
Isabelle; 0.74; 39; 0.09
Java; 148.66; 134367; 18.63
Java Server Pages; 0.86; 1072; 0.11
JavaScript; 53.84; 71895; 6.75
JSON; 4.61; 11956; 0.58
Julia; 0.92; 202; 0.12
Jupyter Notebook; 14.38; 2555; 1.8
Kotlin; 6; 3121; 0.75
Lean; 0.52; 68; 0.07
Literate Agda; 0.05; 4; 0.01
Literate CoffeeScript; 0.01; 3; 0
Literate Haskell; 0.16; 20; 0.02
Lua; 0.82; 138; 0.1
Makefile; 0.92; 460; 0.12
Maple; 0.03; 6; 0
Mathematica; 0.82; 10; 0.1
MATLAB; 0.01; 1; 0
OCaml; 0.91; 139; 0.11
Pascal; 0.79; 470; 0.1
Perl; 0.81; 148; 0.1
PHP; 58.92; 40627; 7.38
PowerShell; 0.91; 236; 0.11
Prolog; 0.03; 5; 0
Protocol Buffer; 0.92; 391; 0.12
Python; 120.68; 75188; 15.12
R; 0.92; 158; 0.11
Racket; 0.09; 13; 0.01
RMarkdown; 6.83; 1606; 0.86
Ruby; 15.01; 18526; 1.88
Rust; 0.61; 692; 0.08
SAS; 0.92; 70; 0.11
Scala; 0.81; 971; 0.1
Scheme; 0.92; 216; 0.12
Shell; 13.92; 10890; 1.74
Smalltalk; 0.92; 880; 0.12
Solidity; 0.85; 83; 0.11
Sparql; 0.1; 88; 0.01
SQL; 15.14; 7009; 1.9
Stan; 0.2; 41; 0.03
Standard ML; 0.74; 117; 0.09
Stata; 0.91; 122; 0.11
SystemVerilog; 0.91; 165; 0.11
TCL; 0.9; 110; 0.11
Tcsh; 0.17; 53; 0.02
Tex; 20.46; 2867; 2.56
Thrift; 0.05; 21; 0.01
TypeScript; 60.62; 62432; 7.6
Verilog; 0.01; 1; 0
VHDL; 0.85; 392; 0.11
Visual Basic; 0.75; 73; 0.09
XSLT; 0.36; 48; 0.04
Yacc; 0.72; 67; 0.09
YAML; 0.74; 890; 0.09
Zig; 0.81; 70; 0.1
"""


def _rows() -> dict[str, Share]:
    table = {}
    for line in _ROWS.strip().splitlines():
        name, gigabytes, files, percent = line.split("; ")
        table[name.lower()] = Share(name, float(gigabytes), int(files), float(percent))
    return table


PAPER_TABLE = _rows()
