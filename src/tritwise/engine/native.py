"""The native core, imported when it is first needed."""

from types import ModuleType

from tritwise.common.errors import TritwiseError


def native() -> ModuleType:
    """`tritwise._native`. Raises TritwiseError when it is not built."""
    try:
        from tritwise import _native
    except ImportError as error:
        raise TritwiseError("the native core is not built", why=str(error), fix="pip install .") from None
    return _native
