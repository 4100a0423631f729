"""The line that precedes a file: its path in a comment of its language."""

from tritwise.data.languages.table import LANGUAGES

# GNU's assembler has its own sign for the languages of most processors; ; separates statements there.
_GNU_ASSEMBLY = (".s",)


def path_comment(language: str, path: str) -> str:
    """`path` as one comment line of `language`, with its line end (arXiv 2401.14196, section 2.2).

    JSON and notebooks, which are JSON, have no comments: for them it is the empty text, so that a document of theirs
    stays one. Where a comment is closed by signs that stand in the path, a space is put between those.
    Raises KeyError for a language that is not in the table.
    """
    comment = LANGUAGES[language].comment
    if comment is None:
        return ""
    opening, closing = comment
    if language == "assembly" and path.lower().endswith(_GNU_ASSEMBLY):
        opening = "#"
    if not closing:
        return f"{opening} {path}\n"
    if len(closing) == 1:
        path = path.replace(closing, f"\\{ord(closing):03o}")
    while closing in path:
        path = path.replace(closing, f"{closing[0]} {closing[1:]}")
    return f"{opening} {path} {closing}\n"
