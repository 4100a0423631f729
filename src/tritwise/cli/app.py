"""`tritwise`: the entry point, its short menu, and what errors and Ctrl-C become.

    tritwise                 # the menu
    tritwise run --help      # one command in detail

Exit status: 0 success, 1 an error the user can mend (one message, no traceback), 2 a wrong command line,
130 interrupted.
"""

import sys
from collections.abc import Sequence
from keyword import iskeyword

from tritwise import __version__
from tritwise.common.errors import Interrupted, TritwiseError

# Verb, what it does, one example. They stand here, not in the commands, so that the menu imports none of those.
COMMANDS = (
    ("try", "let the small model in this package write", "tritwise try"),
    ("run", "walk a recipe: data, training, export, report", "tritwise run recipes/quickstart.toml"),
    ("data", "build training data, or run one stage of it", "tritwise data build recipes/quickstart.toml"),
    ("train", "train one variant of a recipe", "tritwise train recipes/quickstart.toml --variant ternary"),
    ("export", "write a model as a directory or GGUF file", "tritwise export runs/x/train-ternary model.gguf"),
    ("generate", "complete a prompt, or fill a gap", "tritwise generate model --prompt 'def add(a, b):'"),
    ("inspect", "show shapes, bits per weight, codes, scales", "tritwise inspect model"),
    ("perplexity", "score a text: perplexity and bits per byte", "tritwise perplexity model text.py"),
    ("compare", "show what a setting costs in quality", "tritwise compare model text.py --setting head=int4"),
    ("verify", "check that two models are the same", "tritwise verify model model.gguf"),
    ("quantize", "quantise a dense model after its training", "tritwise quantize dense int4 --to int4"),
    ("bench", "time decoding and prefill on this machine", "tritwise bench --shape 2b4t"),
    ("doctor", "show processor, kernel, bandwidth, versions", "tritwise doctor"),
)
WRONG_USAGE = 2
INTERRUPTED = 130  # 128 + SIGINT, as shells report it


def menu() -> str:
    """What `tritwise` alone prints: each verb with one example."""
    lines = [f"tritwise {__version__}: from repositories to a 1.58-bit language model on a CPU"]
    lines += [f"  {name:<12}{example}" for name, _, example in COMMANDS]
    lines += ["`tritwise --help` says what each does, `tritwise VERB --help` lists its options."]
    return "\n".join(lines)


def build_app():
    """The cyclopts application; each command's module is imported only when that command is called."""
    from cyclopts import App, Parameter

    app = App(
        name="tritwise",
        help="From raw repositories to a 1.58-bit language model running on a CPU.",
        version=__version__,
        help_format="plaintext",  # Markdown would import a parser: a quarter of the start-up time
        default_parameter=Parameter(negative=()),
        suppress_keyboard_interrupt=False,  # `main` answers it
    )
    for order, (name, summary, _) in enumerate(COMMANDS):
        sentence = summary[0].upper() + summary[1:] + "."
        python = f"{name}_" if iskeyword(name) else name
        app.command(f"tritwise.cli.commands.{python}:{python}", name=name, help=sentence, sort_key=order)
    return app


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments:
        print(menu())
        return 0
    if arguments == ["--version"]:
        print(__version__)
        return 0
    try:
        build_app()(arguments, result_action="return_value")
        sys.stdout.flush()
    except TritwiseError as error:
        print(f"tritwise: {error}", file=sys.stderr)
        return INTERRUPTED if isinstance(error, Interrupted) else 1
    except KeyboardInterrupt:
        print("\ntritwise: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader (`| head`) has seen enough. Standard output is closed for good, so that Python does not
        # complain about it at exit.
        sys.stderr.close()
        return 0
    except SystemExit as error:  # cyclopts has printed what is wrong with the command line
        return WRONG_USAGE if error.code else 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
