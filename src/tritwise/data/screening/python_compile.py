"""Python's compiler on a text: also a program of its own, which needs nothing but the standard library.

    python -I python_compile.py < text      prints the error's name and line
"""

import ast
import sys
import warnings


def compile_error(text: str) -> tuple[str, int]:
    """("", 0) for a text that is Python, else the error's name and its line (0 when it has none).

    The names are SyntaxError, MemoryError (nested too deeply) and ValueError (zeros, surrogates, numbers of thousands
    of digits).
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            ast.parse(text)  # the compiler up to its syntax tree: nothing is run
        except SyntaxError as error:
            return "SyntaxError", error.lineno or 0
        except (RecursionError, MemoryError):
            return "MemoryError", 0
        except ValueError:
            return "ValueError", 0
    return "", 0


if __name__ == "__main__":
    print(*compile_error(sys.stdin.buffer.read().decode("utf-8", "surrogatepass")), sep="\n")
