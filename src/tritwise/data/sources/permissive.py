"""Which licences are permissive: the list that the permissive-only switch goes by.

It is the Blue Oak Council's (version 15.0.0, all five ratings; blueoakcouncil.org/list), which The Stack's list begins
with (arXiv 2211.15533, section 3.1), and the identifiers that have come into use since it was made.
"""

_BLUE_OAK = """
0BSD AAL ADSL AFL-1.1 AFL-1.2 AFL-2.0 AFL-2.1 AFL-3.0 AMDPLPA AML AMPAS ANTLR-PD ANTLR-PD-fallback APAFML Adobe-2006
Afmparse Apache-1.0 Apache-1.1 Apache-2.0 Artistic-1.0 Artistic-1.0-Perl Artistic-1.0-cl8 Artistic-2.0 BSD-1-Clause
BSD-2-Clause BSD-2-Clause-Darwin BSD-2-Clause-FreeBSD BSD-2-Clause-NetBSD BSD-2-Clause-Patent BSD-2-Clause-Views
BSD-3-Clause BSD-3-Clause-Attribution BSD-3-Clause-Clear BSD-3-Clause-HP BSD-3-Clause-LBNL BSD-3-Clause-Modification
BSD-3-Clause-No-Nuclear-License-2014 BSD-3-Clause-No-Nuclear-Warranty BSD-3-Clause-Open-MPI BSD-3-Clause-Sun
BSD-4-Clause BSD-4-Clause-Shortened BSD-4-Clause-UC BSD-Source-Code BSL-1.0 Bahyph Barr Beerware BlueOak-1.0.0 Borceux
CC0-1.0 CECILL-B CFITSIO CNRI-Jython CNRI-Python CNRI-Python-GPL-Compatible ClArtistic Clips Condor-1.1 Crossword
CrystalStacker Cube DOC DSDP ECL-1.0 ECL-2.0 EFL-1.0 EFL-2.0 Entessa FSFAP FSFUL FSFULLR FTL Fair GLWTPL Giftware HPND
HPND-Fenneberg-Livingston HPND-export-US HPND-sell-regexpr HTMLTIDY IBM-pibs ICU IJG IJG-short ISC ImageMagick
Info-ZIP Intel Intel-ACPI Jam JasPer-2.0 Kazlib LPL-1.0 LPL-1.02 LPPL-1.3c LZMA-SDK-9.22 Leptonica Libpng Linux-OpenIB
MIT MIT-0 MIT-CMU MIT-Modern-Variant MIT-Wu MIT-advertising MIT-enna MIT-feh MIT-open-group MIT-testregex MITNFA MS-PL
MTLL McPhee-slideshow MirOS MulanPSL-1.0 MulanPSL-2.0 Multics Mup NAIST-2003 NASA-1.3 NBPL-1.0 NCSA NICTA-1.0
NIST-Software NLPL NRL NTP NTP-0 Naumen Net-SNMP NetCDF Newsletr OFFIS OGL-Canada-2.0 OGTSL OLDAP-1.1 OLDAP-1.2
OLDAP-1.3 OLDAP-1.4 OLDAP-2.0 OLDAP-2.0.1 OLDAP-2.1 OLDAP-2.2 OLDAP-2.2.1 OLDAP-2.2.2 OLDAP-2.3 OLDAP-2.4 OLDAP-2.5
OLDAP-2.6 OLDAP-2.7 OLDAP-2.8 OML OpenSSL PHP-3.0 PHP-3.01 PSF-2.0 Plexus PostgreSQL Python-2.0 Qhull RSA-MD Rdisc
Ruby SGI-B-2.0 SHL-0.5 SMLNJ SSH-short SWL Saxpath Spencer-86 Spencer-94 Spencer-99 SunPro Symlinks TCL TCP-wrappers
TU-Berlin-1.0 TU-Berlin-2.0 UCAR UPL-1.0 Unicode-DFS-2015 Unicode-DFS-2016 UnixCrypt Unlicense VSL-1.0 Vim W3C
W3C-19980720 W3C-20150513 WTFPL Wsuipa X11 XFree86-1.1 XSkat Xerox Xfig Xnet ZPL-1.1 ZPL-2.0 ZPL-2.1 Zed Zend-2.0 Zlib
bcrypt-Solar-Designer blessing bzip2-1.0.5 bzip2-1.0.6 check-cvs curl diffmark eGenix fwlw hdparm libpng-2.0 libtiff
mpich2 psutils python-ldap snprintf xinetd xlock xpp zlib-acknowledgement
"""
# Public domain by another name, and successors of listed ones.
_SINCE = "CC-PDDC PDDL-1.0 LicenseRef-public-domain LicenseRef-scancode-public-domain Unicode-3.0 CERN-OHL-P-2.0"

PERMISSIVE = frozenset(_BLUE_OAK.split()) | frozenset(_SINCE.split())


def is_permissive(expression: str | None, also: tuple[str, ...] = ()) -> bool:
    """Whether an SPDX expression lets a file be used under permissive licences alone.

    Of `A OR B` one must be permissive, of `A AND B` both; an exception (`WITH`) only adds permissions. None, which
    means that no licence was found, is not permissive. `also` are further identifiers that count.
    """
    tokens = expression.replace("(", " ( ").replace(")", " ) ").split() if expression else []
    allowed = PERMISSIVE | set(also)
    position = 0

    def either() -> bool:
        nonlocal position
        value = both()
        while position < len(tokens) and tokens[position] == "OR":
            position += 1
            value = both() or value  # the right side is read whatever the left one is
        return value

    def both() -> bool:
        nonlocal position
        value = one()
        while position < len(tokens) and tokens[position] in ("AND", "WITH"):
            is_exception = tokens[position] == "WITH"
            position += 1
            if is_exception:
                position += 1
            else:
                value = one() and value
        return value

    def one() -> bool:
        nonlocal position
        if position >= len(tokens):
            position = len(tokens) + 1  # an operator without a right side: no expression
            return False
        token = tokens[position]
        position += 1
        if token == "(":
            value = either()
            position += 1
            return value
        return token.removesuffix("+") in allowed

    # Nesting is bounded by what a person would write.
    if not tokens or tokens.count("(") > 20:
        return False
    value = either()
    return value and position == len(tokens)
