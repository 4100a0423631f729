"""Which file imports which, by Python's own `modulefinder`."""

from modulefinder import Module, ModuleFinder
from pathlib import Path


class Forgetful(dict):
    """Holds nothing that can be found: `modulefinder` skips a name that once failed, even for another importer."""

    def __contains__(self, key):
        return False


class ImportRecorder(ModuleFinder):
    """Python's own import finder, made to note which file each statement leads to.

    It also notes packages that a statement passes through on the way to what it names; those are left out, as they are
    by `edges` (its docstring says why). Files outside the search path are bad modules to it.
    """

    def __init__(self, root: Path) -> None:
        super().__init__(path=[str(root)])
        self.badmodules = Forgetful()
        self.edges: set[tuple[str, str]] = set()
        self._scanning: list[Module] = []
        self._reached: list[list[Module]] = []
        self._names: list[bool] = [False]

    def scan_code(self, co, m):
        self._scanning.append(m)
        super().scan_code(co, m)
        self._scanning.pop()

    def _safe_import_hook(self, name, caller, fromlist, level=-1):
        self._names.append(bool(fromlist))
        super()._safe_import_hook(name, caller, fromlist, level)
        self._names.pop()

    def import_hook(self, name, caller=None, fromlist=None, level=-1):
        self._reached.append([])
        # `from a import b` first calls for `a`, then for each name: the first call alone leads nowhere. Nor does a call
        # that fails, unless it is for a name, which then is no module but something in one.
        leads = bool(fromlist) or not self._names[-1]
        try:
            return super().import_hook(name, caller, fromlist, level)
        except ImportError:
            leads = bool(fromlist)
            raise
        finally:
            reached = {m.__name__: m.__file__ for m in self._reached.pop() if m.__file__}
            if self._scanning and leads:
                self.edges |= {(self._scanning[-1].__file__, file) for module, file in reached.items()
                               if not any(other.startswith(f"{module}.") for other in reached)}

    def import_module(self, partname, fqname, parent):
        module = super().import_module(partname, fqname, parent)
        if module and self._reached:
            self._reached[-1].append(module)
        return module

    def ensure_fromlist(self, m, fromlist, recursive=0):
        self._reached[-1] += [value for sub in fromlist if isinstance(value := getattr(m, sub, None), Module)]
        super().ensure_fromlist(m, fromlist, recursive)


def modulefinder_edges(folder: Path, root: Path | None = None) -> set[tuple[str, str]]:
    """Pairs of files in a folder, by their paths below `root` (the folder itself): which imports which.

    Files that the running interpreter cannot compile import nothing.
    """
    root = root or folder
    recorder = ImportRecorder(root)
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        try:
            recorder.import_hook(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
        except (ImportError, SyntaxError):  # a name with a hyphen is no module's
            continue
    pairs = ((Path(a).relative_to(root), Path(b).relative_to(root)) for a, b in recorder.edges if a != b)
    return {(a.as_posix(), b.as_posix()) for a, b in pairs
            if folder in (root / a).parents and folder in (root / b).parents}
