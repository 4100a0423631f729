"""The one error type a user can cause."""


class TritwiseError(Exception):
    """A mistake the user can mend: what happened, why, and what to type next.

    The command line prints it without a traceback and exits with status 1. Programming errors stay
    ordinary Python exceptions.
    """

    def __init__(self, what: str, *, why: str = "", fix: str = "") -> None:
        self.what, self.why, self.fix = what, why, fix
        lines = [what]
        if why:
            lines.append(f"why: {why}")
        if fix:
            lines.append(f"try: {fix}")
        super().__init__("\n".join(lines))


class Interrupted(TritwiseError):  # noqa: N818 (it is no error)
    """The user stopped a long job; its state is saved and `fix` says how to go on. Exit status 130."""
