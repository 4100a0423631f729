"""The one error type a user can cause."""


# Of a part of a message; names and values in files may be of any length.
LONGEST_LINE = 1000


def one_line(text: str) -> str:
    """A text on one line, without what a terminal takes for commands, and cut where it would fill the screen."""
    if len(text) > LONGEST_LINE:
        text = f"{text[:LONGEST_LINE]}..."
    text = " ".join(text.splitlines())
    if text.isprintable():
        return text
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)


class TritwiseError(Exception):
    """A mistake the user can mend: what happened, why, and what to type next.

    The command line prints it without a traceback and exits with status 1. Programming errors stay
    ordinary Python exceptions. Texts may quote a file that must not be believed: each is made one line.
    """

    def __init__(self, what: str, *, why: str = "", fix: str = "") -> None:
        self.what, self.why, self.fix = what, why, fix = one_line(what), one_line(why), one_line(fix)
        lines = [what]
        if why:
            lines.append(f"why: {why}")
        if fix:
            lines.append(f"try: {fix}")
        super().__init__("\n".join(lines))


class Interrupted(TritwiseError):  # noqa: N818 (it is no error)
    """The user stopped a long job; its state is saved and `fix` says how to go on. Exit status 130."""


class Diverged(TritwiseError):  # noqa: N818 (what happened to the training, not to the program)
    """A training's loss or gradient is no finite number any more; its last good checkpoint is kept."""
