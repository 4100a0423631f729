"""The native core, for the modules of this room: they can be imported without it."""

from functools import cache
from types import ModuleType

from tritwise.common.errors import TritwiseError


@cache
def native() -> ModuleType:
    """The native core. Raises TritwiseError when it is not built."""
    try:  # not `from tritwise import`: that would be an import of the package itself, and so of the engine
        import tritwise._native as core
    except ImportError as error:
        raise TritwiseError("the native core is not built", why=str(error), fix="pip install .") from None
    return core
