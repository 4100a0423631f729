"""What a rule says of a file that it drops."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Broken:
    """A rule's name, under which drops are counted, and the number that decided, written out for a report."""

    rule: str
    detail: str
