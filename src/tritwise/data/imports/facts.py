"""What is taken from one file so that the dependencies between files can be found later, without the files.

Facts are small, plain and kept in a column of the documents, so a file is parsed once.
"""

import json
from dataclasses import dataclass

from tritwise.common.errors import TritwiseError


@dataclass(frozen=True, slots=True)
class Facts:
    """Facts of one file.

    `imports` are references to modules, files or names as the file writes them, in the form of its language's module.
    `package` is the package, namespace or module that the file says it belongs to. `defines` are the names that other
    files can mention without importing this file, `uses` the names mentioned here that another file may define; both
    are for languages in which files see each other without an import. `wrong_bytes` counts the bytes that the parser
    could not make sense of. Tuples are sorted and hold nothing twice.
    """

    language: str
    imports: tuple[tuple[str, ...], ...] = ()
    package: str = ""
    defines: tuple[str, ...] = ()
    uses: tuple[str, ...] = ()
    wrong_bytes: int = 0

    def to_json(self) -> str:
        # dataclasses.asdict copies every name of a tuple.
        return json.dumps({name: getattr(self, name) for name in self.__slots__}, ensure_ascii=False,
                          separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> "Facts":
        try:
            values = json.loads(text)
            return cls(values["language"], tuple(tuple(map(str, parts)) for parts in values["imports"]),
                       values["package"], tuple(values["defines"]), tuple(values["uses"]), values["wrong_bytes"])
        except (ValueError, KeyError, TypeError) as error:
            raise TritwiseError("a document's facts are damaged", why=repr(error)) from None
